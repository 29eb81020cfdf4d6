"""The cases of a property test: their number and their seeds."""

from hypothesis import settings, strategies as st


PROPERTY = settings(derandomize=True, max_examples=8, deadline=None)
SEEDS = st.integers(0, 2**16)
