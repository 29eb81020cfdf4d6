"""The cases that a property is tried on: how many, and from which seeds."""

from hypothesis import settings, strategies as st


PROPERTY = settings(derandomize=True, max_examples=8, deadline=None)
SEEDS = st.integers(0, 2**16)
