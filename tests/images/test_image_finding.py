"""Photos that are found in folders and by patterns, and names of results."""

import os
from pathlib import Path, PurePath

import pytest
from hypothesis import given, settings, strategies as st
from pictures import encode, noise

from dslo_jax.errors import ImageError
from dslo_jax.images import find_photos
from dslo_jax.images.finding import safe_name


@pytest.fixture
def folder(tmp_path):
    for name in ("10.jpg", "2.JPG", "a/1.png", "notes.txt", ".hidden.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encode(noise(), "PNG"))
    return tmp_path


def names_of(*args, **options):
    return [photo.name for photo in find_photos(*args, **options)]


def test_folder_in_natural_order(folder):
    assert names_of(folder) == ["2.JPG", "10.jpg"]
    assert names_of([folder], recursive=True) == ["2.JPG", "10.jpg", "a/1.png"]


def test_named_file_needs_no_suffix(folder):
    assert names_of(folder / "notes.txt") == ["notes.txt"]


def test_globs_mirror_the_path_below_their_fixed_part(folder):
    assert names_of(f"{folder}/*") == ["2.JPG", "10.jpg"]
    assert names_of(f"{folder}/*/*.png") == ["a/1.png"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("1.jpg", r"there is no file .*did you mean '10.jpg'\?$"),
        ("Cat.jpeg", r"there is no file .*\)$"),  # nothing is near
        ("*.webp", r"nothing matches the pattern '.*\*.webp' \(from "),
        ("*.txt", "no photo found"),
    ],
)
def test_nothing_there(folder, path, said):
    with pytest.raises(ImageError, match=rf"I01.*{said}"):
        find_photos(folder / path)


def test_empty_folder_mentions_recursion(folder):
    (folder / "a" / "1.png").rename(folder / "a" / "1.txt")
    with pytest.raises(ImageError, match="use --recursive"):
        find_photos(folder / "a")
    with pytest.raises(ImageError, match="no photo found in an empty list"):
        find_photos([])


def test_same_names_from_two_roots_stay_apart(tmp_path):
    for root in ("x", "y", "z"):
        (tmp_path / root).mkdir()
        (tmp_path / root / "a.jpg").touch()
    (tmp_path / "z" / "A~2.jpg").touch()
    names = names_of([tmp_path / root for root in "xyz"])
    assert names == ["a.jpg", "a~2.jpg", "a~3.jpg", "A~2~2.jpg"]


def test_a_file_reached_twice_is_listed_once(folder):
    assert names_of([folder / "2.JPG", folder, f"{folder}/2*"]) == [
        "2.JPG",
        "10.jpg",
    ]


def test_what_is_not_a_regular_file_is_skipped_with_a_reason(folder):
    os.mkfifo(folder / "pipe.jpg")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "zero.jpg").symlink_to("/dev/zero")
    (folder / "gone.jpg").symlink_to("nowhere")
    (folder / "a" / "up").symlink_to("..")
    (folder / "linked.jpg").symlink_to("10.jpg")
    skipped = {}
    names = names_of(
        folder,
        recursive=True,
        on_skip=lambda path, reason: skipped.update({path.name: reason}),
    )
    assert names == ["2.JPG", "10.jpg", "a/1.png", "linked.jpg"]
    assert skipped.keys() == {"pipe.jpg", "loop.jpg", "zero.jpg", "gone.jpg", "up"}
    assert skipped["pipe.jpg"] == "a pipe"
    assert skipped["zero.jpg"] == "a device"


def test_a_named_pipe_is_left_to_the_reader_to_refuse(folder):
    os.mkfifo(folder / "pipe.jpg")
    assert names_of(folder / "pipe.jpg") == ["pipe.jpg"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/b.jpg", "a/b.jpg"),
        ("../../etc/x.jpg", "_/_/etc/x.jpg"),
        ("a\nb\x1b[31m.jpg", "a_b_[31m.jpg"),
        ("\u202egpj.exe", "_gpj.exe"),
        ("bad\udcff.jpg", "bad_.jpg"),
        ('a:b*c?"<>|.jpg', "a_b_c_____.jpg"),
        ("猫.jpg", "猫.jpg"),
    ],
)
def test_safe_names(path, name):
    assert safe_name(PurePath(path)) == name


def test_long_names_are_cut_and_stay_apart():
    first, second = (safe_name(PurePath("猫" * 80 + end)) for end in ("a.jpg", "b.jpg"))
    assert first != second
    assert first.endswith(".jpg")
    assert len(first.encode()) <= 200


@settings(max_examples=200, derandomize=True)
@given(st.text(min_size=1))
def test_safe_names_stay_below_any_folder(text):
    name = safe_name(PurePath(text))
    resolved = (Path("/out") / name).resolve()
    assert resolved.is_relative_to("/out")
    name.encode()
