"""Shards of an evaluation, and their sum; no network, see ``stub_sweep``."""

import json
import shutil

import pytest
from stub_sweep import CELLS, CIRCUMSTANCES, CONFIG, StubSet, StubSweep, evaluate_stub

from dslo_jax.errors import OptionError
from dslo_jax.evaluation import Journal, evaluate, merge, rescore, shard_samples
from dslo_jax.evaluation.sweeps.manifest import header_of
from dslo_jax.runs import Shard, only_run


FILES = ("metrics.json", "metrics.md", "index.html")
HEADER = header_of(StubSet(11), CONFIG, {})


def samples_of(count=11):
    return StubSet(count, broken=["photo 003"])


def measure(out, shard, *, sweep=None, samples=None, changed=None, **options):
    """Measure a shard, or what an earlier call has left of it."""
    samples = samples or samples_of()
    header = header_of(samples, CONFIG, {**CIRCUMSTANCES, **(changed or {})}, shard)
    journal = Journal(out / shard.file("journal.jsonl"), header)
    part = shard_samples(samples, shard, 2)
    sweep = sweep or StubSweep()
    return evaluate(sweep, part, CELLS, journal, out, shard=shard, **options)


def measure_all(out, count, **options):
    out.mkdir(exist_ok=True)
    for index in range(count):
        measure(out, Shard(index, count), **options)


def contents(out):
    return [(out / name).read_bytes() for name in FILES]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What one evaluation of all photos writes; one of them cannot be read."""
    out = tmp_path_factory.mktemp("undisturbed")
    evaluate_stub(out, samples_of())
    return contents(out)


# 8 shards for 6 batches: two of them have no photo.
@pytest.mark.parametrize("count", [2, 3, 8])
def test_merged_shards_have_the_bytes_of_one_evaluation(tmp_path, expected, count):
    measure_all(tmp_path, count)
    assert not (tmp_path / "metrics.json").exists()
    merge(samples_of(), CELLS, HEADER, tmp_path)
    assert contents(tmp_path) == expected
    merge(samples_of(), CELLS, HEADER, tmp_path)  # again, over its own results
    assert contents(tmp_path) == expected


def test_a_shard_measures_the_batches_of_the_whole(tmp_path):
    sweep = StubSweep()
    found = measure(tmp_path, Shard(1, 3), sweep=sweep)
    # Photo 003 cannot be read; its place in its batch stays empty.
    assert sweep.batches[:2] == [("photo 002",), ("photo 008", "photo 009")]
    assert (found["scored"], found["expected"]) == (3, 4)
    assert json.loads((tmp_path / "metrics-1of3.json").read_text()) == found
    timings = json.loads((tmp_path / "timings-1of3.json").read_text())
    assert timings["last_run"]["photos"] == 3


def test_a_shard_that_was_stopped_goes_on_and_is_refused_before(tmp_path, expected):
    measure(tmp_path, Shard(0, 2))

    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(tmp_path, Shard(1, 2), watch=stop)
    words = r"O05.*shard 1/2 .* 3 of its 5 .*'photo 006'"
    with pytest.raises(OptionError, match=words):
        merge(samples_of(), CELLS, HEADER, tmp_path)
    assert not (tmp_path / "metrics.json").exists()
    measure(tmp_path, Shard(1, 2))
    merge(samples_of(), CELLS, HEADER, tmp_path)
    assert contents(tmp_path) == expected


def test_saved_labels_of_shards_are_scored_again(tmp_path, expected):
    measure_all(tmp_path, 2, save_labels=True)
    assert not (tmp_path / "examples").exists()
    merge(samples_of(), CELLS, HEADER, tmp_path)
    assert contents(tmp_path)[:2] == expected[:2]
    (tmp_path / "metrics.json").unlink()
    journal = Journal(tmp_path / "journal.jsonl", HEADER)
    rescore(samples_of(), CELLS, journal, tmp_path)
    assert (tmp_path / "metrics.json").read_bytes() == expected[0]


def refused(out, code, words):
    with pytest.raises(OptionError, match=f"(?s){code}.*{words}"):
        merge(samples_of(), CELLS, HEADER, out)
    assert not (out / "metrics.json").exists()


def test_shards_that_do_not_belong_together_are_refused(tmp_path):
    refused(tmp_path / "none", "O05", "no journals of shards in .*none")
    measure(tmp_path, Shard(1, 4))
    refused(tmp_path, "O05", "lacks 3 of 4 shards: 0/4, 2/4, 3/4;")
    measure(tmp_path, Shard(0, 2))
    refused(tmp_path, "O04", "into 2, 4 parts: 0/2, 1/4;")


def test_a_shard_under_the_name_of_another_is_refused(tmp_path):
    measure(tmp_path, Shard(0, 2))
    shutil.copy(tmp_path / "journal-0of2.jsonl", tmp_path / "journal-1of2.jsonl")
    refused(tmp_path, "O04", "journal-1of2.*shard = '0/2', now it is '1/2'.*once")


def test_a_shard_with_other_circumstances_is_refused(tmp_path):
    measure(tmp_path, Shard(0, 2))
    measure(tmp_path, Shard(1, 2), changed={"checkpoint": "other", "machine": "arm64"})
    words = "journal-1of2.*machine = 'arm64', now it is 'x86_64'.*checkpoint = 'other'"
    refused(tmp_path, "O04", f"{words}.*as in shard 0/2")


def test_shards_of_other_photos_are_refused(tmp_path):
    measure_all(tmp_path, 2, samples=samples_of(12))
    refused(tmp_path, "O04", "dataset.photos = 12, now it is 11.*as in this command")


def test_a_shard_that_runs_is_not_merged(tmp_path):
    measure_all(tmp_path, 2)
    with only_run(tmp_path, "-1of2"):
        refused(tmp_path, "O08", "in use by process")


def test_the_worst_and_best_photos_are_among_those_of_the_shards(tmp_path):
    """Each shard keeps the label maps of six photos at most, whatever it has."""
    samples = StubSet(40)
    measure_all(tmp_path / "shards", 2, samples=samples)
    kept = [path.stem for path in (tmp_path / "shards" / "examples").rglob("*.png")]
    assert len(kept) == len(set(kept)) == 12
    header = header_of(samples, CONFIG, {})
    merge(samples, CELLS, header, tmp_path / "shards")
    evaluate_stub(tmp_path / "whole", samples)
    assert contents(tmp_path / "shards") == contents(tmp_path / "whole")
