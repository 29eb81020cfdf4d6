"""Discrepancies compiled once for all tests of a process."""

import functools

import jax


@functools.partial(jax.jit, static_argnums=0)
def solve(discrepancy, source, affinity):
    return discrepancy.solve(source, affinity)
