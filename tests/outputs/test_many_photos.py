"""Many photos in one file: tar for WebDataset, Parquet for datasets."""

import builtins
import io
import json
import os
import tarfile
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from dslo_jax.errors import OptionError
from dslo_jax.outputs import FILES, write_parquet, write_tar


@pytest.fixture(scope="module")
def photos(result):
    files = result.files(tuple(FILES))
    return {"deep/cat.v2.jpg": files, "猫 100%.png": result.files(("labels", "json"))}


UNDECODABLE = os.fsdecode(b"bad\xff.jpg")


def test_a_tar_as_webdataset_groups_it(photos, tmp_path):
    """Members of one key are neighbours; a key ends at the first dot of the name."""
    write_tar(tmp_path / "a.tar", photos)
    samples = {}
    with tarfile.open(tmp_path / "a.tar") as archive:
        for member in archive:
            folder, _, name = member.name.rpartition("/")
            key, ending = f"{folder}/{name}".lstrip("/").split(".", 1)
            assert key not in samples or key == list(samples)[-1]
            content = archive.extractfile(member).read()
            samples.setdefault(key, {})[ending] = content
            assert (member.mtime, member.uid, member.uname) == (0, 0, "")
    assert [unquote(key) for key in samples] == list(photos)
    for sample, files in zip(samples.values(), photos.values(), strict=True):
        expected = {**files, "json": files["segmentation.json"]}
        del expected["segmentation.json"]
        assert sample == expected


def test_equal_results_give_equal_tars(photos, tmp_path):
    for name in ("a.tar", "b.tar"):
        write_tar(tmp_path / name, photos)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


@pytest.mark.interop
def test_parquet_as_datasets_shows_it(photos, result, tmp_path):
    import datasets

    write_parquet(tmp_path / "a.parquet", photos)
    loaded = datasets.Dataset.from_parquet(
        str(tmp_path / "a.parquet"), cache_dir=str(tmp_path / "cache")
    )
    first, second = loaded
    assert [first["name"], second["name"]] == list(photos)
    assert isinstance(loaded.features["labels"], datasets.Image)
    for row in (first, second):
        np.testing.assert_array_equal(np.asarray(row["labels"]), result.labels)
        assert row["classes"] == list(result.classes)
        areas = [report.area for report in result.reports]
        np.testing.assert_allclose(row["areas"], areas)
        assert (row["height"], row["width"]) == result.labels.shape
        assert json.loads(row["json"])["schema"] == "dslo.segmentation.v2"
    assert first["overlay"].size == first["overlay_png"].size
    assert second["overlay"] is None
    with np.load(io.BytesIO(first["maps"])) as maps:
        assert tuple(maps) == result.classes


@pytest.mark.interop
def test_parquet_is_one_picture_file_in_a_struct(photos, tmp_path):
    import pyarrow.parquet

    write_parquet(tmp_path / "a.parquet", photos)
    table = pyarrow.parquet.read_table(tmp_path / "a.parquet")
    row = table.column("labels")[0].as_py()
    assert row["path"] == "deep/cat.v2.jpg.labels.png"
    with Image.open(io.BytesIO(row["bytes"])) as image:
        assert image.mode == "L"
    write_parquet(tmp_path / "b.parquet", photos)
    same = (tmp_path / "a.parquet").read_bytes() == (
        tmp_path / "b.parquet"
    ).read_bytes()
    assert same


def test_parquet_without_its_package(photos, tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(OptionError, match=r"O05.*dslo-jax\[parquet\]"):
        write_parquet(tmp_path / "a.parquet", photos)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_not_utf8(result, tmp_path):
    write_tar(tmp_path / "a.tar", {UNDECODABLE: result.files(("json",))})
    with tarfile.open(tmp_path / "a.tar") as archive:
        assert archive.getnames() == [f"{UNDECODABLE.replace('.', '%2E')}.json"]


@pytest.mark.interop
def test_a_row_whose_name_is_not_utf8(result, tmp_path):
    import pyarrow.parquet

    write_parquet(tmp_path / "a.parquet", {UNDECODABLE: result.files(("labels",))})
    table = pyarrow.parquet.read_table(tmp_path / "a.parquet")
    assert table.column("name")[0].as_py() == "bad\\udcff.jpg"
    assert table.column("classes")[0].as_py() is None


def test_a_failure_leaves_no_tar(photos, tmp_path):
    with pytest.raises(TypeError):
        write_tar(tmp_path / "a.tar", {**photos, "broken": {"labels.png": None}})
    assert list(tmp_path.iterdir()) == []
