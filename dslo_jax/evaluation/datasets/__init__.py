"""Data sets on disk: benchmarks, and folders of one's own."""

from dslo_jax.evaluation.datasets.benchmark_set import BenchmarkSet as BenchmarkSet
from dslo_jax.evaluation.datasets.benchmarks import (
    BENCHMARKS as BENCHMARKS,
    Benchmark as Benchmark,
    find_benchmark as find_benchmark,
)
from dslo_jax.evaluation.datasets.convert import (
    Conversion as Conversion,
    convert as convert,
)
from dslo_jax.evaluation.datasets.finding import (
    DATASETS as DATASETS,
    find_dataset as find_dataset,
)
from dslo_jax.evaluation.datasets.folder_set import FolderSet as FolderSet
from dslo_jax.evaluation.datasets.layouts import Layout as Layout
from dslo_jax.evaluation.datasets.protocols import (
    BENCHMARK_PROTOCOLS as BENCHMARK_PROTOCOLS,
    BenchmarkProtocol as BenchmarkProtocol,
    protocol_background as protocol_background,
    protocol_options as protocol_options,
)
