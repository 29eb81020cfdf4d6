"""Measuring the method on photos with truth: scores, sweeps, tables, reports."""

from dslo_jax.evaluation.boundary import (
    BoundaryCounts as BoundaryCounts,
    boundary_counts as boundary_counts,
)
from dslo_jax.evaluation.cells import Cell as Cell, Oracle as Oracle
from dslo_jax.evaluation.datasets import (
    convert as convert,
    find_dataset as find_dataset,
)
from dslo_jax.evaluation.evaluator import (
    cells_of as cells_of,
    evaluate as evaluate,
    rescore as rescore,
)
from dslo_jax.evaluation.journal import Journal as Journal
from dslo_jax.evaluation.metrics import IGNORE as IGNORE, Confusion as Confusion
from dslo_jax.evaluation.networks import (
    Networks as Networks,
    add_sources as add_sources,
    load_networks as load_networks,
)
from dslo_jax.evaluation.paper import (
    paper_columns as paper_columns,
    paper_tables as paper_tables,
    published as published,
)
from dslo_jax.evaluation.samples import (
    First as First,
    Sample as Sample,
    SampleSet as SampleSet,
    SceneSet as SceneSet,
)
from dslo_jax.evaluation.sweep import (
    Labelled as Labelled,
    Measurement as Measurement,
    Sweep as Sweep,
)
from dslo_jax.evaluation.tables import (
    TABLES as TABLES,
    Row as Row,
    Source as Source,
    Table as Table,
    build_tables as build_tables,
)
