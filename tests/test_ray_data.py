"""Batches of photos as columns, and real actors of Ray, one of which is killed."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dslo_jax import Segmenter, SegmenterConfig
from dslo_jax.errors import OptionError
from dslo_jax.ray_data import RaySegmenter


SCRIPT = Path(__file__).with_name("ray_actors.py")
CLASSES = ["cat", "sofa", "wall"]
CONFIG = SegmenterConfig.of(affinity_size=64, short_side=64, templates="single")


@pytest.fixture(scope="module")
def segmenter(checkpoint):
    return RaySegmenter(CLASSES, checkpoint, batch_size=2, config=CONFIG)


def columns(*photos):
    column = np.empty(len(photos), object)
    column[:] = photos
    return {"bytes": column, "path": np.array([f"{i}.jpg" for i in range(len(photos))])}


def test_a_batch_of_photos_becomes_a_batch_of_results(segmenter, checkpoint):
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (32, 48, 3), np.uint8)
    other = rng.integers(0, 256, (40, 30, 3), np.uint8)
    found = segmenter(columns(photo, b"no image", other))
    assert list(found) == ["path", "labels", "json", "error"]
    assert found["path"].tolist() == ["0.jpg", "1.jpg", "2.jpg"]
    assert found["error"][[0, 2]].tolist() == ["", ""]
    assert "[I02]" in found["error"][1]
    assert found["labels"][1] == found["json"][1] == b""
    alone = Segmenter.from_pretrained(checkpoint, config=CONFIG)(other, CLASSES)
    assert found["labels"][2] == alone.files(("labels",))["labels.png"]
    assert json.loads(found["json"][2])["photo"]["height"] == 40


def test_bad_options_and_columns_are_told(segmenter, checkpoint):
    with pytest.raises(OptionError, match=r"O03.*'picture'"):
        RaySegmenter(CLASSES, checkpoint, write=("picture",))
    with pytest.raises(OptionError, match=r"O01.*batch_size = 0"):
        RaySegmenter(CLASSES, checkpoint, batch_size=0)
    with pytest.raises(OptionError, match=r"O05.*'bytes'.*image"):
        segmenter({"image": np.zeros((1, 4, 4, 3))})


@pytest.mark.interop
def test_an_actor_that_is_killed_costs_no_result(checkpoint, tmp_path):
    (tmp_path / "checkpoint").symlink_to(checkpoint)
    finished = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    found = json.loads(finished.stdout.splitlines()[-1])
    sys.path.insert(0, str(SCRIPT.parent))
    from ray_actors import BROKEN, OPTIONS, PHOTOS, digest, photo

    alone = RaySegmenter(CLASSES, checkpoint, **OPTIONS)
    rows = alone(
        {"photo": [photo(i) for i in range(PHOTOS)], "index": np.arange(PHOTOS)}
    )
    expected = {
        str(i): digest({name: column[i] for name, column in rows.items()})
        for i in range(PHOTOS)
    }
    assert "[I02]" in expected[str(BROKEN)]
    assert found["rows"] == PHOTOS
    assert found["digests"] == expected
    assert len(found["workers"]) >= 2
    assert found["killed"] > 0
