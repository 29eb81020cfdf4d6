import gc
import threading
import weakref

import numpy as np
import pytest
from PIL import Image

from dslo_jax import FailedPhoto, Segmentation
from dslo_jax.errors import ClassListError, DeviceError, OptionError, SolverError
from dslo_jax.images import read_photo
from dslo_jax.pipeline import Batch


NAMES = ["cat", "sofa"]


@pytest.fixture
def photos(make_photo):
    return [make_photo(50, 75, seed) for seed in range(5)]


def same(one, other):
    return (
        np.array_equal(one.labels, other.labels)
        and np.array_equal(one.discrepancy, other.discrepancy)
        and one.reports == other.reports
    )


def test_a_stream_gives_what_a_batch_gives_in_order(segmenter, photos):
    together = segmenter.batch(photos, NAMES, batch_size=2)
    streamed = list(segmenter.stream(iter(photos), NAMES, batch_size=2))
    assert all(map(same, streamed, together))


def test_a_photo_that_fails_is_a_value_in_its_place(segmenter, photos, tmp_path):
    (tmp_path / "page.jpg").write_text("<!DOCTYPE html>")
    given = [photos[0], tmp_path / "page.jpg", "absent.png", photos[1]]
    first, page, absent, last = segmenter.stream(given, NAMES, batch_size=4)
    assert (page.source, page.error.code) == (tmp_path / "page.jpg", "I02")
    assert (absent.source, absent.error.code) == ("absent.png", "I01")
    assert isinstance(first, Segmentation)
    assert isinstance(last, Segmentation)


def test_nothing_is_read_before_it_is_needed(segmenter, photos):
    given = []

    def endless():
        while True:
            given.append(len(given))
            yield photos[0]

    stream = segmenter.stream(endless(), NAMES, batch_size=2)
    for _ in range(5):
        next(stream)
    stream.close()
    # Those that the caller has, two batches that run or wait, and the photos read.
    assert len(given) <= 6 + 2 * 2 + 2 * 2


@pytest.mark.slow
def test_results_are_not_kept(segmenter, photos):
    kept = []
    for result in segmenter.stream(iter(photos[:4]), NAMES, batch_size=2):
        kept.append(weakref.ref(result))
        del result
        gc.collect()
        assert sum(each() is not None for each in kept) == 0


def test_closing_ends_all_threads(segmenter, photos):
    before = threading.active_count()
    stream = segmenter.stream(iter(photos * 4), NAMES, batch_size=2)
    next(stream)
    stream.close()
    assert threading.active_count() == before


def test_a_batch_that_fails_is_tried_photo_by_photo(segmenter, photos, monkeypatch):
    solve = Batch.solve
    sizes = []

    def fail(batch, config):
        sizes.append(len(batch.padded))
        if any(photo.pixels[0, 0, 0] == 7 for photo in batch.photos):
            raise SolverError("S03", "no solution")
        return solve(batch, config)

    monkeypatch.setattr(Batch, "solve", fail)
    photos[1][0, 0, 0] = 7
    photos[3][0, 0, 0] = 8
    first, second, third = segmenter.stream(photos[:3], NAMES, batch_size=3)
    assert isinstance(first, Segmentation)
    assert isinstance(third, Segmentation)
    assert second.error.code == "S03"
    assert sizes == [3, 3, 3, 3]  # no further program is compiled


def test_after_too_little_memory_photos_are_alone(segmenter, photos, monkeypatch):
    solve = Batch.solve
    sizes = []

    def fail(batch, config):
        sizes.append(len(batch.padded))
        if len(batch.padded) > 1:
            raise DeviceError("D01", "too little memory")
        return solve(batch, config)

    monkeypatch.setattr(Batch, "solve", fail)
    results = list(segmenter.stream(photos[:2], NAMES, batch_size=2))
    assert sizes == [2, 1, 1]
    assert all(isinstance(result, Segmentation) for result in results)


def test_labels_that_do_not_fit_into_the_memory(segmenter, photos, monkeypatch):
    def fail(*_):
        raise MemoryError("Unable to allocate 9 GiB")

    monkeypatch.setattr(Batch, "labelled", fail)
    (result,) = segmenter.stream(photos[:1], NAMES)
    assert isinstance(result, FailedPhoto)
    assert result.error.code == "D01"
    assert "9 GiB" in str(result.error)


def test_errors_that_concern_all_photos_are_raised(segmenter, photos):
    with pytest.raises(OptionError, match="O01"):
        segmenter.stream(photos, NAMES, batch_size=0)
    with pytest.raises(OptionError, match=r"O03.*'cat\.jpg'.*\['cat\.jpg'\]"):
        segmenter.stream("cat.jpg", NAMES)
    with pytest.raises(ClassListError, match="C01"):
        segmenter.stream(photos, [])
    with pytest.raises(ClassListError, match="C03"):
        next(segmenter.stream(photos, ["cat " * 90]))


def test_a_photo_above_the_limit_is_not_decoded(segmenter, photos, tmp_path):
    Image.fromarray(photos[0]).save(tmp_path / "a.png")
    (result,) = segmenter.stream([tmp_path / "a.png"], NAMES, max_pixels=100)
    assert result.error.code == "I04"


def test_reading_is_timed(segmenter, photos, tmp_path):
    Image.fromarray(photos[0]).save(tmp_path / "a.png")
    result = segmenter(tmp_path / "a.png", NAMES)
    stages = [timing.stage for timing in result.timings]
    assert stages.index("read") < stages.index("resize") < stages.index("fold")
    assert len(set(stages)) == len(stages)
    assert same(result, segmenter(read_photo(photos[0]), NAMES))
