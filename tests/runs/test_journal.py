import errno
import os

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from dslo_jax.errors import OptionError, OutputError
from dslo_jax.runs import Journal, check_begun


HEADER = {"checkpoint": "abc", "size": [1, 2]}
FIRST = {("cell", "photo 1"): {"ties": 0.25}, ("cell", "photo 2"): {"ties": 0.5}}
SECOND = {("cell", "photo 3"): {"ties": 0.75}}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "deep" / "journal.jsonl"
    journal = Journal(path, HEADER)
    journal.append(FIRST)
    journal.append(SECOND)
    return path


def test_a_journal_is_read_back(path):
    assert Journal(path, HEADER).records == FIRST | SECOND


def test_a_torn_last_line_is_cut_off_at_every_byte(path):
    content = path.read_bytes()
    start = content[:-1].rfind(b"\n") + 1
    for end in range(start, len(content)):
        path.write_bytes(content[:end])
        assert Journal(path, HEADER).records == FIRST
        assert path.read_bytes() == content[:start]


def test_what_follows_a_torn_line_is_not_glued_to_it(path):
    path.write_bytes(path.read_bytes()[:-5])
    Journal(path, HEADER).append(SECOND)
    assert Journal(path, HEADER).records == FIRST | SECOND


def test_damage_elsewhere_is_told_and_not_skipped(path):
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"0.25", b"0.26")
    path.write_bytes(b"".join(lines))
    with pytest.raises(OptionError, match=r"O04.*line 2, is damaged"):
        Journal(path, HEADER)


def test_records_of_other_circumstances_are_refused(path):
    with pytest.raises(OptionError, match=r"O04.*checkpoint = 'abc', now it is 'xyz'"):
        Journal(path, HEADER | {"checkpoint": "xyz"})


def test_other_circumstances_are_refused_before_all_of_them_are_known(path):
    content = path.read_bytes()
    check_begun(path.with_name("none"), {"any": "thing"})
    check_begun(path, {"size": (1, 2)})
    for name in HEADER:
        with pytest.raises(OptionError, match=rf"O04.*{name} = .*now it is 'other'"):
            check_begun(path, {name: "other"})
        check_begun(path, {name: "other"}, is_result=lambda record: False)
    assert path.read_bytes() == content


def test_a_file_without_a_whole_line_is_refused(path):
    path.write_bytes(b"12345678 {")
    with pytest.raises(OptionError, match=r"O04.*no journal"):
        Journal(path, HEADER)


@given(data=st.data())
@settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_damage_is_told_or_cut_off_and_never_read(path, data):
    """Bytes that flip or go missing: whole batches in order, or a refusal."""
    content = path.read_bytes()
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3), "flips")):
        place = data.draw(st.integers(0, len(content) - 1), "place")
        damaged[place] ^= data.draw(st.integers(1, 255), "bits")
    end = data.draw(st.integers(0, len(content)) | st.just(len(content)), "end")
    broken = path.with_name("damaged.jsonl")
    broken.write_bytes(bytes(damaged[:end]))
    try:
        records = Journal(broken, HEADER).records
    except OptionError:
        return
    assert records in ({}, FIRST, FIRST | SECOND)
    assert content.startswith(broken.read_bytes())


def test_a_line_that_the_disk_cut_short_is_taken_back(path, monkeypatch):
    write = os.write
    journal = Journal(path, HEADER)
    before = path.read_bytes()

    def full(file, content):
        if len(content) < 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, content[: len(content) - 5])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OutputError, match="O06"):
            journal.append({("cell", "photo 4"): {"ties": 1.0}})
    assert path.read_bytes() == before
    third = {("cell", "photo 5"): {"ties": 0.0}}
    journal.append(third)  # there is room again
    assert Journal(path, HEADER).records == FIRST | SECOND | third
