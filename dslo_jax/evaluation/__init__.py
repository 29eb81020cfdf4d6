"""Measuring the method on photos with truth: scores, sweeps, tables, reports."""

from dslo_jax.evaluation.cells import Cell as Cell, Oracle as Oracle
from dslo_jax.evaluation.journal import Journal as Journal
from dslo_jax.evaluation.metrics import IGNORE as IGNORE, Confusion as Confusion
from dslo_jax.evaluation.samples import Sample as Sample, SceneSet as SceneSet
from dslo_jax.evaluation.sweep import (
    Labelled as Labelled,
    Measurement as Measurement,
    Networks as Networks,
    Sweep as Sweep,
    load_networks as load_networks,
)
from dslo_jax.evaluation.tables import (
    TABLES as TABLES,
    Row as Row,
    Table as Table,
    build_tables as build_tables,
)
