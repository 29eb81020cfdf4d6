import pytest
from miniatures import SPECS, build


@pytest.fixture(params=sorted(SPECS))
def miniature(request, tmp_path):
    """Name, specification, folder of all data sets, root and stored values."""
    root, stored = build(request.param, tmp_path / "data")
    return request.param, SPECS[request.param], tmp_path / "data", root, stored
