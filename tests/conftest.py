"""Strict modes for the whole suite: no silent promotion, no silent broadcasting.

Compiled programs are kept in ``.pytest_cache``, for the other processes of a run and
for later runs, because the suite spends most of its time compiling.

Programs for tiny networks need no fast code, so XLA compiles them in a third of the
time: without LLVM's optimisations, without its own slow emitters. ``XLA_FLAGS`` of the
environment comes first, even if it is empty: ``make slow`` compiles as users do.
"""

import importlib.metadata
import os


# Before jax is imported; processes that a test starts inherit it. XLA ends the process
# at a flag that it does not know, and version 0.12 no longer knows the last one.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_use_onednn=false --xla_cpu_parallel_codegen_split_count=1 "
    + "--xla_cpu_use_fusion_emitters=false"
    * importlib.metadata.version("jaxlib").startswith("0.10."),
)

# What a test computes must not come from an earlier run.
os.environ.setdefault("DSLO_CACHE", "")

from pathlib import Path

import jax
import pytest


_COMPILED = Path(__file__).parents[1] / ".pytest_cache" / "compiled"
jax.config.update("jax_compilation_cache_dir", str(_COMPILED))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64():
    """Double precision, for the tests that compare with float64."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A folder of small networks with random weights; who changes it makes a copy."""
    # Here and not above: what is imported before the shape checks begin has none.
    from checkpoints.random_weights import write_random_checkpoint

    return write_random_checkpoint(tmp_path_factory.mktemp("checkpoint"))
