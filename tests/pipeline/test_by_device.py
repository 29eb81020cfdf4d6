"""A batch that runs without waiting gives what the choices of the host give."""

import dataclasses
from contextlib import contextmanager, nullcontext
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.array import ArrayImpl

from dslo_jax import FailedPhoto, Segmenter, SegmenterConfig, prompts, scenes, tuning
from dslo_jax.errors import DeviceError
from dslo_jax.evaluation import Cell, Sample
from dslo_jax.evaluation.sweeps.oracles import InformedBatch
from dslo_jax.images import read_photo
from dslo_jax.pipeline import Batch, Memory, Placement, checks, num_compilations
from dslo_jax.pipeline.stages import Clock, watch
from dslo_jax.solvers import Discrepancy, Solution
from tests.pipeline.colours import ColourLogits, colour_networks


CONFIG = SegmenterConfig.of(affinity_size=64, short_side=64, templates=("{}",))
NAMES = ["cat", "sofa", "wall", "sky", "road"]
SIZES = ((50, 75), (64, 64), (90, 31))


@pytest.fixture(scope="module")
def tokenizer(checkpoint):
    return prompts.load_tokenizer(checkpoint / "clip")


@pytest.fixture
def segmenter(tokenizer):
    return Segmenter(colour_networks(tokenizer), CONFIG)


@pytest.fixture
def photos(make_photo):
    return [make_photo(*size, i) for i, size in enumerate(SIZES)]


@contextmanager
def by_device():
    """In this block the CPU is treated as an accelerator."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "HOST_DECIDES_ON", ())
        yield


def both(segment):
    """What the host's choices give, and what the device gives."""
    found, tiles = [], []
    for way in (nullcontext(), by_device()):
        with way, watch() as calls:
            found.append(segment())
        labels = [call.static for call in calls if call.stage == "labels"]
        tiles.append(any("form" in static for static in labels))
    assert tiles == [True, False]
    return found


def assert_same(host, device):
    for one, other in zip(host, device, strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_allclose(one.discrepancy, other.discrepancy, rtol=1e-5)
        assert one.ties == other.ties
        for mine, theirs in zip(one.reports, other.reports, strict=True):
            assert mine._replace(error=0, score=0) == theirs._replace(error=0, score=0)


@pytest.mark.parametrize("mode", ["velocity", "path", "logits"])
@pytest.mark.parametrize("upsampling", ["bilateral", "bilinear"])
def test_the_device_gives_what_the_host_gives(segmenter, photos, mode, upsampling):
    def segment():
        options = {"mode": mode, "upsampling": upsampling}
        return segmenter.batch(photos, NAMES, batch_size=2, **options)

    assert_same(*both(segment))


def test_the_background_is_that_of_the_host(segmenter, photos):
    names = [*NAMES, "background"]

    def segment():
        options = {"background_threshold": 0.4, "background_scale": 4.0}
        return segmenter.batch(photos, names, batch_size=2, mode="logits", **options)

    host, device = both(segment)
    assert_same(host, device)
    assert [each.unsure for each in host] == [each.unsure for each in device]
    assert all(0 < each.unsure < 1 for each in host)


@pytest.mark.slow
def test_labels_of_the_bundled_networks_are_the_same():
    segmenter = Segmenter.from_pretrained("demo", offline=True)
    sizes = [(64, 64), (96, 72)]
    photos = [scenes.draw_scene(i, size=size).pixels for i, size in enumerate(sizes)]
    names = [each.name for each in scenes.CLASSES]

    def segment():
        return segmenter.batch(photos, names, short_side=64, affinity_size=64)

    host, device = both(segment)
    assert_same(host, device)
    assert [result.notes for result in host] == [result.notes for result in device]


class Waits:
    """Counts what waits for a device, or copies from it."""

    def __init__(self):
        self.count = 0

    def counted(self, function):
        """The function, with its calls counted."""

        def count(*args, **kwargs):
            self.count += 1
            return function(*args, **kwargs)

        return count


@pytest.fixture
def waits(monkeypatch):
    found = Waits()
    monkeypatch.setattr(jax, "block_until_ready", found.counted(jax.block_until_ready))
    ready = found.counted(ArrayImpl.block_until_ready)
    monkeypatch.setattr(ArrayImpl, "block_until_ready", ready)
    # Whatever reads an array on the host, from device_get to bool(), reads this.
    value = property(found.counted(ArrayImpl._value.fget))
    monkeypatch.setattr(ArrayImpl, "_value", value)
    return found


@pytest.mark.parametrize("mode", ["velocity", "path"])
def test_nothing_waits_between_pixels_and_labels(segmenter, photos, waits, mode):
    """Arrays go to the device where that is said; nothing comes from it."""
    config, classes = CONFIG.with_options(mode=mode), prompts.parse_classes(NAMES)
    read = [read_photo(photo) for photo in photos[:2]]

    def begin(clock):
        batch = Batch(segmenter.networks, read, classes, size=2, clock=clock)
        waits.count = 0
        batch.start(config)
        return batch

    with by_device():
        begin(Clock()).labelled(config)  # compiles, and embeds the names
        assert waits.count > 0
        with jax.transfer_guard("disallow"):
            begin(Clock(waits=False))
        assert waits.count == 0
    begin(Clock(waits=False))
    assert waits.count > 0  # the host decides again


def test_results_of_a_batch_are_fetched_at_once(segmenter, photos, monkeypatch):
    fetched = []
    fetch = Placement.fetch

    def noted(placement, tree):
        leaves = jax.tree.leaves(tree)
        fetched.append(sum(isinstance(leaf, jax.Array) for leaf in leaves))
        return fetch(placement, tree)

    with by_device():
        segmenter.batch(photos[:2], NAMES, batch_size=2)
        monkeypatch.setattr(Placement, "fetch", noted)
        segmenter.batch(photos[:2], NAMES, batch_size=2)
    assert [count for count in fetched if count] == [max(fetched)]


def solver_calls(calls):
    """Classes and discrepancy of each call of the solver."""
    return [
        (call.arguments[0].shape[1], call.static["discrepancy"])
        for call in calls
        if call.stage == "solver"
    ]


def test_more_survivors_than_room_are_solved_again(segmenter, photos, monkeypatch):
    host = segmenter.batch(photos, NAMES, batch_size=1, mode="logits")
    monkeypatch.setattr(checks, "FEWEST_CLASSES", 1)
    monkeypatch.setattr(checks, "GROWTH", 2)
    with by_device(), watch() as calls:
        device = segmenter.batch(photos, NAMES, batch_size=1, mode="logits")
    assert_same(host, device)
    counts = [sum(not report.rejected for report in each.reports) for each in host]
    rooms = [classes for classes, _ in solver_calls(calls)]
    assert rooms[0] == 1
    assert max(rooms) == 1 << (max(counts) - 1).bit_length()
    assert len(photos) < len(rooms) <= 3 * len(photos)


@pytest.mark.slow
def test_more_rows_than_room_are_solved_again(segmenter, photos, monkeypatch):
    host = segmenter.batch(photos, NAMES, batch_size=1, mode="path")
    monkeypatch.setattr(checks, "FEWEST_ROWS", 4)
    monkeypatch.setattr(checks, "READING_PARTS", 64)
    with by_device(), watch() as calls:
        device = segmenter.batch(photos, NAMES, batch_size=1, mode="path")
    assert_same(host, device)
    rows = [discrepancy.support for _, discrepancy in solver_calls(calls)]
    assert rows[0] == 4
    assert max(rows) > 4
    assert len(photos) < len(rows)


@dataclasses.dataclass(frozen=True)
class Late(Discrepancy):
    """A discrepancy whose first attempt solves nothing."""

    name: ClassVar[str] = "late"

    is_first: bool = False

    @property
    def attempts(self):
        return (Late(is_first=True), self)

    def solve(self, source, affinity=None):
        fault = jnp.full(len(source), 13 if self.is_first else 0, jnp.int32)
        return Solution.exact(source, fault)


def test_what_the_first_attempt_cannot_solve_is_tried_again(segmenter, photos):
    host = segmenter.batch(photos, NAMES, batch_size=2, discrepancy=Late())
    with by_device(), watch() as calls:
        device = segmenter.batch(photos, NAMES, batch_size=2, discrepancy=Late())
    assert_same(host, device)
    attempts = [discrepancy.is_first for _, discrepancy in solver_calls(calls)]
    # Batches that were started before the first one was fetched are tried again, too.
    batches = 2
    assert attempts[0]
    assert attempts.count(False) == batches
    assert attempts.count(True) <= batches


class BlindToWhite(ColourLogits):
    """Features that are NaN in white patches."""

    def features(self, patches, attention):
        found = super().features(patches, attention)
        white = patches.pixels.min(axis=(2, 3, 4)) > 0.99
        return jnp.where(white[..., None], jnp.nan, found)


def test_a_photo_that_fails_does_not_take_the_others_with_it(tokenizer, photos):
    networks = colour_networks(tokenizer)
    networks.logits = type(networks.logits)(BlindToWhite(), networks.placement)
    segmenter = Segmenter(networks, CONFIG)
    photos[1][:] = 255
    with by_device():
        first, second, third = segmenter.stream(photos, NAMES, batch_size=2)
    assert isinstance(second, FailedPhoto)
    assert second.error.code == "S01"
    assert_same(segmenter.batch(photos[::2], NAMES), [first, third])


def test_too_little_memory_is_found_when_results_are_fetched(monkeypatch):
    def fail(_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(jax, "device_get", fail)
    with pytest.raises(DeviceError, match=r"D01.*a smaller batch"):
        Placement(jax.devices()[0]).fetch(jnp.ones(1))


def test_large_photos_are_labelled_one_by_one(segmenter, photos, monkeypatch):
    host = segmenter.batch(photos, NAMES, mode="logits")
    monkeypatch.setattr(tuning, "LAYERS_AHEAD", 1000)
    with by_device(), watch() as calls:
        device = segmenter.batch(photos, NAMES, mode="logits")
    assert_same(host, device)
    values = [call.arguments[0] for call in calls if call.stage == "labels"]
    assert {each.shape[0] for each in values} == {1}


@pytest.mark.parametrize("oracles", [(), ("map",), ("classes", "seeds")])
def test_a_sweep_measures_the_same(segmenter, photos, oracles):
    rng = np.random.default_rng(0)
    samples = [
        Sample(str(i), read_photo(photo), rng.integers(0, 5, size).astype(np.uint8))
        for i, (photo, size) in enumerate(zip(photos[:2], SIZES[:2], strict=True))
    ]

    def label():
        cell = Cell(CONFIG, frozenset(oracles))
        batch = InformedBatch(
            segmenter.networks,
            samples,
            prompts.parse_classes(NAMES),
            cell,
            size=2,
            memory=Memory(),
        )
        return batch.labelled(CONFIG), batch.solved(CONFIG)

    (host, solved), (device, found) = both(label)
    np.testing.assert_array_equal(solved.order, found.order)
    for one, other in zip(host, device, strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)


def test_timings_are_those_of_the_batch_or_of_every_stage(segmenter, photos):
    with by_device():
        (whole,) = segmenter.batch(photos[:1], NAMES)
        (single,) = segmenter.batch(photos[:1], NAMES, time_stages=True)
    names = {timing.stage for timing in whole.timings}
    assert names == {"read", "resize", "fold", "batch"}
    seconds = {timing.stage: timing.seconds for timing in whole.timings}
    assert seconds["batch"] > 0
    names = {timing.stage for timing in single.timings}
    assert {"attend", "solver", "labels"} <= names
    assert "batch" not in names


@pytest.mark.parametrize("mode", ["velocity", "path"])
def test_warming_up_compiles_all_that_a_stream_needs(tokenizer, photos, mode):
    config = CONFIG.with_options(mode=mode, short_side=72)
    segmenter = Segmenter(colour_networks(tokenizer), config)
    before = num_compilations()
    with by_device():
        segmenter.warm_up(NAMES, batch_size=3, sizes=SIZES)
        warm = num_compilations()
        segmenter.batch(photos, NAMES, batch_size=3)
    assert before < warm == num_compilations()


def test_warming_up_compiles_windows_and_the_threshold(tokenizer, photos):
    windows = {"short_side": 72, "window": 32, "window_stride": 16}
    config = CONFIG.with_options(
        mode="logits", background_threshold=0.3, background_scale=7.0, **windows
    )
    segmenter = Segmenter(colour_networks(tokenizer), config)
    names = [*NAMES, "background"]
    with by_device():
        segmenter.warm_up(names, batch_size=3, sizes=SIZES)
        warm = num_compilations()
        segmenter.batch(photos, names, batch_size=3)
    assert num_compilations() == warm


def test_warming_up_a_cpu_compiles_what_shapes_determine(tokenizer, photos):
    config = CONFIG.with_options(short_side=80)
    segmenter = Segmenter(colour_networks(tokenizer), config)
    segmenter.warm_up(NAMES, batch_size=3, sizes=SIZES)
    warm = num_compilations()
    segmenter.batch(photos, NAMES, batch_size=3)
    assert num_compilations() == warm


def test_few_batches_are_in_flight(segmenter, photos):
    given = []

    def endless():
        while True:
            given.append(len(given))
            yield photos[0]

    with by_device():
        stream = segmenter.stream(endless(), NAMES, batch_size=2)
        for _ in range(5):
            next(stream)
        stream.close()
    # Those that the caller has, two batches that run or wait, and the photos read.
    assert len(given) <= 6 + 2 * 2 + 2 * 2
