"""Evaluation on photos with true labels: data sets, sweeps, scores, reports."""

from dslo_jax.evaluation.comparison import Compared as Compared, compare as compare
from dslo_jax.evaluation.datasets import (
    convert as convert,
    find_dataset as find_dataset,
)
from dslo_jax.evaluation.datasets.samples import (
    First as First,
    Sample as Sample,
    SampleSet as SampleSet,
)
from dslo_jax.evaluation.datasets.scene_set import SceneSet as SceneSet
from dslo_jax.evaluation.evaluator import (
    cells_of as cells_of,
    evaluate as evaluate,
    rescore as rescore,
)
from dslo_jax.evaluation.metrics import (
    IGNORE as IGNORE,
    BoundaryCounts as BoundaryCounts,
    Confusion as Confusion,
    boundary_counts as boundary_counts,
)
from dslo_jax.evaluation.reports.paper import (
    paper_columns as paper_columns,
    paper_tables as paper_tables,
    published as published,
)
from dslo_jax.evaluation.shards import merge as merge, shard_samples as shard_samples
from dslo_jax.evaluation.sweeps.cells import (
    Attention as Attention,
    Cell as Cell,
    Oracle as Oracle,
)
from dslo_jax.evaluation.sweeps.networks import (
    Networks as Networks,
    add_attentions as add_attentions,
    load_networks as load_networks,
)
from dslo_jax.evaluation.sweeps.sweep import (
    Labelled as Labelled,
    Measurement as Measurement,
    Sweep as Sweep,
)
from dslo_jax.evaluation.sweeps.table import Row as Row, Table as Table
from dslo_jax.evaluation.sweeps.tables import (
    TABLES as TABLES,
    build_tables as build_tables,
)
from dslo_jax.runs.journal import Journal as Journal
