import jaxtyping
import pytest


@pytest.fixture
def unchecked(monkeypatch):
    """Without the shape checks of the test suite, as a user meets our own errors."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
