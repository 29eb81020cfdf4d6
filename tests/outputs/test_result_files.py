"""Result files: whole or absent, and readable by anyone."""

import io
import json
import math
import os
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from dslo_jax.errors import ImageError, OptionError, OutputError
from dslo_jax.files import atomic_file
from dslo_jax.outputs import (
    chosen_files,
    encode_json,
    encode_maps,
    output_path,
    write_folder,
)


class TestFiles:
    def test_a_failure_leaves_the_old_file(self, tmp_path):
        path = tmp_path / "a.txt"
        path.write_text("old")

        def fail_half_way():
            with atomic_file(path) as file:
                file.write(b"half")
                raise RuntimeError("power cut")

        with pytest.raises(RuntimeError, match="power cut"):
            fail_half_way()
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]

    def test_replaces_a_link_and_not_its_target(self, tmp_path):
        target = tmp_path / "target"
        target.write_text("precious")
        (tmp_path / "link").symlink_to(target)
        with atomic_file(tmp_path / "link") as file:
            file.write(b"new")
        assert target.read_text() == "precious"
        assert (tmp_path / "link").read_text() == "new"

    def test_permissions_follow_the_user(self, tmp_path):
        (tmp_path / "plain").touch()
        write_folder(tmp_path / "a", {"labels.png": b""})
        modes = [(tmp_path / name).stat().st_mode for name in ("plain", "a/labels.png")]
        assert modes[0] == modes[1]

    def test_output_path(self, tmp_path):
        out = tmp_path / "out"
        assert output_path(out, "a/b.png") == out / "a" / "b.png"
        out.mkdir()
        (out / "away").symlink_to(tmp_path)
        for name in ("../b.png", "/etc/b.png", "away/b.png", "a/../../b.png"):
            with pytest.raises(ImageError, match="I08"):
                output_path(out, name)

    def test_maps_round_trip(self):
        rng = np.random.default_rng(0)
        maps = {
            name: rng.normal(size=(3, 4)).astype(np.float32)
            for name in ("cat", "file", "allow_pickle", "sofa/couch", "猫", "a b")
        }
        content = encode_maps(maps)
        assert content == encode_maps(maps)  # also a second later: it holds no time
        with np.load(io.BytesIO(content), allow_pickle=False) as loaded:
            assert list(loaded) == list(maps)
            for name, values in maps.items():
                np.testing.assert_array_equal(loaded[name], values)

    def test_objects_are_never_pickled(self):
        with pytest.raises(ValueError, match="plain numbers"):
            encode_maps({"cat": np.array([{}])})

    @pytest.mark.parametrize("write", [(), ("labels", "png"), "labels"])
    def test_unknown_kinds(self, write):
        with pytest.raises(OptionError, match=r"O03.*labels, coloured, overlay"):
            chosen_files(write)


class TestFolder:
    def test_a_result_replaces_the_old_one_as_a_whole(self, tmp_path):
        folder = tmp_path / "deep" / "cat.jpg"
        write_folder(folder, {"labels.png": b"old", "maps.npz": b"old"})
        assert write_folder(folder, {"labels.png": b"new"}) == folder
        assert [path.name for path in folder.iterdir()] == ["labels.png"]
        assert (folder / "labels.png").read_bytes() == b"new"
        assert list(folder.parent.iterdir()) == [folder]

    @pytest.mark.parametrize("other", ["notes.txt", "deep/labels.png"])
    def test_other_files_are_never_removed(self, tmp_path, other):
        write_folder(tmp_path / "a", {"labels.png": b"old"})
        path = tmp_path / "a" / other
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"precious")
        with pytest.raises(OutputError, match=r"O06.*(notes|deep)"):
            write_folder(tmp_path / "a", {"labels.png": b"new"})
        assert path.read_bytes() == b"precious"
        assert (tmp_path / "a" / "labels.png").read_bytes() == b"old"

    def test_a_file_of_the_name_stays(self, tmp_path):
        (tmp_path / "a").write_text("precious")
        with pytest.raises(NotADirectoryError):
            write_folder(tmp_path / "a", {"labels.png": b"new"})
        assert (tmp_path / "a").read_text() == "precious"
        assert list(tmp_path.iterdir()) == [tmp_path / "a"]

    def test_a_link_to_a_folder_stays_a_link(self, tmp_path):
        (tmp_path / "there").mkdir()
        (tmp_path / "link").symlink_to("there")
        write_folder(tmp_path / "link", {"labels.png": b"new"})
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "there" / "labels.png").read_bytes() == b"new"

    def test_a_name_of_any_length(self, tmp_path):
        folder = write_folder(tmp_path / ("x" * 255), {"labels.png": b"new"})
        assert list(tmp_path.iterdir()) == [folder]


class Point(NamedTuple):
    x: float
    y: tuple


class TestJson:
    def read(self, content):
        def refuse(constant):
            raise AssertionError(constant)

        return json.loads(content.decode("utf-8"), parse_constant=refuse)

    def test_values(self):
        value = {
            "z": np.float32(0.5),
            "a": [np.int64(3), jnp.arange(2), np.array([[1.5, np.nan]])],
            "point": Point(math.inf, (True, None)),
            "path": Path("a/b.jpg"),
            "猫": "<\x1b>",
            3: -math.inf,
        }
        content = encode_json(value)
        read = self.read(content)
        assert read == {
            "z": 0.5,
            "a": [3, [0, 1], [[1.5, None]]],
            "point": {"x": None, "y": [True, None]},
            "path": "a/b.jpg",
            "猫": "<\x1b>",
            "3": None,
        }
        assert list(read) == ["z", "a", "point", "path", "猫", "3"]
        assert "猫" in content.decode("utf-8")

    def test_undecodable_file_names(self):
        name = os.fsdecode(b"bad\xff.jpg")
        assert self.read(encode_json({"name": name})) == {"name": name}

    def test_unknown_values(self):
        with pytest.raises(TypeError, match="set cannot be written as JSON"):
            encode_json({"a": {1}})

    @settings(max_examples=100, deadline=None, derandomize=True)
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=8,
        )
    )
    def test_always_strict(self, value):
        self.read(encode_json(value))
