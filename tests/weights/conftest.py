import pytest


@pytest.fixture
def path(tmp_path):
    """A file of weights that a test writes."""
    return tmp_path / "pytorch_model.bin"
