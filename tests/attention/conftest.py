import pytest


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory):
    """A pipeline folder and the networks of diffusers that are in it."""
    # Here and not above: what is imported before the shape checks begin has none.
    from checkpoints import diffusion

    folder = tmp_path_factory.mktemp("pipeline")
    return folder, diffusion.save_pipeline(folder, seed=21)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The cache of a test, in place of that of the user."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("DSLO_CACHE", str(folder))
    return folder
