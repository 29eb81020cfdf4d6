"""A local hub in place of the real one, and checkpoints of a few bytes."""

import huggingface_hub.constants as constants
import pytest
from checkpoints.local_hub import LocalHub, serving


@pytest.fixture
def local_hub(monkeypatch, tmp_path):
    """A running hub that this process takes for the real one, and an empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DSLO_CACHE", str(tmp_path / "dslo-cache"))
    with serving(LocalHub()) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield hub
