"""Strict modes for the whole suite: no silent promotion, no silent broadcasting."""

import jax
import pytest


jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64():
    """Double precision, for the tests that compare with float64."""
    with jax.enable_x64(True):
        yield
