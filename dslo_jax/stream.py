"""Photos to results in a stream: in order, in bounded memory, with failures as values.

Three steps run at the same time: threads read and scale photos, one thread runs the
networks and the solver on a batch, and the caller's thread makes the labels of the
batch before it. Each step holds a limited number of photos and of their bytes.

On an accelerator the second step only starts the programs of a batch, up to its labels,
and the third one waits for them: the results of a batch are fetched while the next
batches are computed.
"""

import dataclasses
import os
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence, Sized
from contextlib import closing
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from dslo_jax import images, tuning
from dslo_jax.config import SegmenterConfig
from dslo_jax.errors import DeviceError, DsloError, OptionError, attempt
from dslo_jax.images import Photo
from dslo_jax.model_info import ModelInfo
from dslo_jax.pairs import World
from dslo_jax.pipeline import Batch, Networks, Room, ScaledPhoto
from dslo_jax.pipeline.stages import BATCH, Announce, Clock, Timing, merged
from dslo_jax.prompts import ClassList
from dslo_jax.segmentation import Segmentation, assemble
from dslo_jax.small_world import world_logits, world_notes
from dslo_jax.threads import batched, map_ahead


R = TypeVar("R")
_READERS = 4
_LABELLED = 2**24  # bytes of the pixels of photos that are labelled at once
_BUDGET = 2**28  # bytes of pixels that each step holds beyond the photos it works on


class FailedPhoto(NamedTuple):
    """A photo of a stream that has no result.

    Attributes:
        source: The photo as it was given, such as its path.
        error: The reason.
    """

    source: Any
    error: DsloError


class _Read(NamedTuple):
    """A photo that was read and scaled."""

    source: Any
    photo: ScaledPhoto


class _Solved(NamedTuple):
    """A photo of a batch whose maps are known, or are being computed.

    Attributes:
        source: The photo as it was given.
        batch: Its batch.
        index: Its place in the batch.
        timings: Seconds of the stages so far.
        begun: When the batch began, if nothing had been compiled.
        world_logits: See ``small_world``; ``None`` without a world.
    """

    source: Any
    batch: Batch
    index: int
    timings: tuple[Timing, ...]
    begun: float
    world_logits: Any


class Stream:
    """The stream of ``Segmenter.stream``; see there.

    Args:
        networks: The networks.
        config: The options of the method.
        classes: The classes.
        batch_size: Photos at once on the device.
        time_stages: As for ``Segmenter.stream``.
        max_pixels: Greatest number of pixels of a photo.
        announce: As for ``Segmenter``.
        world: As for ``Segmenter``.
        model: The networks, for the results.
    """

    def __init__(
        self,
        networks: Networks,
        config: SegmenterConfig,
        classes: ClassList,
        *,
        batch_size: int,
        time_stages: bool | None,
        max_pixels: int,
        announce: Announce | None,
        world: World | None,
        model: ModelInfo | None,
    ):
        self._networks = networks
        self._config = config
        self._classes = classes
        self._batch_size = batch_size
        self._max_pixels = max_pixels
        self._announce = announce
        self._world = world
        self._model = model
        placement = networks.placement
        self._host_decides = tuning.host_decides(placement.platform)
        self._waits = self._host_decides or bool(time_stages)
        self._clock = self._new_clock()  # of the next batch
        self._room = Room()
        self._finished = 0.0  # when the last batch was finished
        # A ``with jax.disable_jit():`` of the caller does not reach other threads.
        self._disable_jit: bool = jax.config.jax_disable_jit  # pyright: ignore[reportAttributeAccessIssue]

    def run(
        self, photos: Iterable[Any]
    ) -> Generator[Segmentation | FailedPhoto, None, None]:
        """The results of all photos, in their order.

        Raises:
            ClassListError: A name has too many tokens (``C03``).
        """
        self._embed_names()
        read = map_ahead(
            self._read,
            photos,
            threads=_READERS,
            ahead=2 * self._batch_size,
            weigh=_num_bytes,
            budget=_BUDGET,
        )
        batches = batched(read, self._batch_size)
        solved = map_ahead(
            self._solve_batch,
            batches,
            threads=1,
            ahead=2,
            weigh=lambda batch: sum(map(_num_bytes, batch)),
            budget=_BUDGET,
        )
        with closing(read), closing(solved):
            for batch in solved:
                for part in _parts(batch):
                    finished = deque(self._finish(part))
                    while finished:  # a result is not kept when the caller has it
                        yield finished.popleft()

    def _embed_names(self) -> None:
        """Embed the names before any photo: an error concerns all photos."""
        templates = self._config.clip.templates
        self._networks.embed(self._clock, self._classes.names, templates)

    def _read(self, source: Any) -> _Read | FailedPhoto:
        return _failure_or(source, attempt(self._scaled, source))

    def _scaled(self, source: Any) -> _Read:
        """Read and scale a photo."""
        clock = Clock()
        photo = ScaledPhoto(clock.time("read", self._photo_of, source), clock)
        layers_of = None
        if not self._host_decides and self._config.upsampling.upsampling != "dense":
            layers_of = self._networks.grid(self._config.affinity)
        attention = self._config.clip.attention
        source = self._networks.source_of_logits(attention).module
        sides = source.cuts(attention).sides
        photo.prepare(self._config, sides, layers_of=layers_of)
        return _Read(source, photo)

    def _new_clock(self) -> Clock:
        return Clock(self._announce, waits=self._waits)

    def _photo_of(self, source: Any) -> Photo:
        return images.read_photo(source, max_pixels=self._max_pixels)

    def _solve_batch(
        self, batch: Sequence[_Read | FailedPhoto]
    ) -> list[_Solved | FailedPhoto]:
        """Run the networks and the solver, or start them.

        Where a batch fails, each of its photos is tried alone: so only those that fail
        themselves are lost.
        """
        read = [each for each in batch if isinstance(each, _Read)]
        with jax.disable_jit(self._disable_jit):
            together = attempt(self._solve, read, self._batch_size)
            if isinstance(together, DsloError):
                size = 1 if isinstance(together, DeviceError) else self._batch_size
                together = [self._solve_alone(each, size) for each in read]
        solved = iter(together)
        return [
            each if isinstance(each, FailedPhoto) else next(solved) for each in batch
        ]

    def _solve_alone(self, read: _Read, size: int) -> _Solved | FailedPhoto:
        alone = attempt(lambda: self._solve([read], size)[0])
        return _failure_or(read.source, alone)

    def _solve(self, read: Sequence[_Read], size: int) -> list[_Solved]:
        if not read:
            return []
        clock, self._clock = self._clock, self._new_clock()
        begun = time.perf_counter() - clock.compile_seconds
        batch = Batch(
            self._networks,
            [each.photo for each in read],
            self._classes,
            size=size,
            clock=clock,
            room=self._room,
        )
        batch.start(self._config)
        compared = None
        if self._world is not None:
            compared = world_logits(self._world, batch)
        batch.forget_inputs(self._config)
        timings, begun = clock.timings, begun + clock.compile_seconds
        return [
            _Solved(each.source, batch, index, timings, begun, compared)
            for index, each in enumerate(read)
        ]

    def _finish(
        self, part: Sequence[_Solved | FailedPhoto]
    ) -> Sequence[Segmentation | FailedPhoto]:
        """Make the labels of a part of a batch, and the results.

        Where this fails for all, each photo is tried alone. If the batch was only
        started before, this is the first time that a photo can fail.
        """
        solved = [each for each in part if isinstance(each, _Solved)]
        if not solved:
            return [each for each in part if isinstance(each, FailedPhoto)]
        together = attempt(self._label, solved)
        if not isinstance(together, DsloError):
            return together
        size = 1 if isinstance(together, DeviceError) else self._batch_size
        return [self._finish_alone(each, size) for each in solved]

    def _finish_alone(self, solved: _Solved, size: int) -> Segmentation | FailedPhoto:
        def finish() -> Segmentation:
            mine = solved
            if not self._host_decides:
                photo = solved.batch.scaled[solved.index]
                (mine,) = self._solve([_Read(solved.source, photo)], size)
            return self._label([mine])[0]

        return _failure_or(solved.source, attempt(finish))

    def _label(self, solved: Sequence[_Solved]) -> list[Segmentation]:
        batch, config = solved[0].batch, self._config
        batch.clock = self._new_clock()
        labelled = batch.class_labels(config, [each.index for each in solved])
        maps, clock = batch.solved(config), batch.clock
        if not clock.waits:
            clock.add(BATCH, self._seconds_of(solved[0]))
        notes = self._world_notes(solved[0])
        return [
            assemble(
                batch.photos[each.index],
                self._classes,
                maps.order[each.index, : maps.counts[each.index]],
                jax.tree.map(itemgetter(each.index), maps.solution),
                labels,
                grid=batch.grid(config),
                timings=merged(each.timings, clock.timings),
                config=config,
                model=self._model,
                notes=tuple(notes[each.index]),
            )
            for each, labels in zip(solved, labelled, strict=True)
        ]

    def _seconds_of(self, solved: _Solved) -> float:
        """Seconds of a batch on the device, without compilation.

        Batches run one after another, so a batch begins when the one before has ended.
        """
        now = time.perf_counter()
        begun, self._finished = max(solved.begun, self._finished), now
        return max(0.0, now - begun - solved.batch.clock.compile_seconds)

    def _world_notes(self, solved: _Solved) -> Sequence[tuple[str, ...]]:
        batch = solved.batch
        if self._world is None:
            return [()] * len(batch.photos)
        logits = batch.placement.fetch(solved.world_logits)[: len(batch.photos)]
        return world_notes(self._world, self._classes, logits.astype(np.float32))


def batch_size_for(photos: Any, batch_size: int) -> int:
    """The size of the batches of a stream: that which is asked for, or all photos.

    Args:
        photos: The photos; the number of a generator is not known.
        batch_size: As asked for.

    Raises:
        OptionError: The size is below 1 (``O01``), or ``photos`` is one path and no
            collection (``O03``).
    """
    if batch_size < 1:
        raise OptionError("O01", f"batch_size = {batch_size}; expected at least 1")
    if isinstance(photos, str | bytes | os.PathLike):
        given = f"{photos!r:.80}"
        raise OptionError("O03", f"photos = {given}; did you mean [{given}]?")
    if isinstance(photos, Sized):
        return max(1, min(batch_size, len(photos)))
    return batch_size


def warm_up(
    networks: Networks,
    config: SegmenterConfig,
    classes: ClassList,
    sizes: Iterable[tuple[int, int]],
    *,
    batch_size: int,
    announce: Announce | None,
    world: World | None,
) -> None:
    """Compile the programs of batches of photos of each size, without running them.

    Args:
        networks: As for ``Stream``.
        config: As for ``Stream``.
        classes: As for ``Stream``.
        sizes: Heights and widths of photos.
        batch_size: As for ``Stream``.
        announce: As for ``Stream``.
        world: As for ``Stream``.

    Raises:
        OptionError: A side is below 1 (``O01``).
        DeviceError: The device has too little memory (``D01``).
    """
    for size in sizes:
        if min(size) < 1:
            raise OptionError("O01", f"sizes has {size}; expected at least 1 x 1")
        photo = images.read_photo(np.zeros((*size, 3), np.uint8))
        batch = Batch(
            networks,
            [photo],
            classes,
            size=batch_size,
            clock=Clock(announce),
            placement=dataclasses.replace(networks.placement, only_shapes=True),
        )
        batch.compile_programs(config)
        if world is not None:
            world_logits(world, batch)


def _parts(
    batch: Iterable[_Solved | FailedPhoto],
) -> Iterator[list[_Solved | FailedPhoto]]:
    """Divide a batch into photos that are labelled together, and failures.

    Labels take far more memory than the photo, so large photos are labelled alone.
    """
    part: list[_Solved | FailedPhoto] = []
    for each in batch:
        total = sum(map(_num_bytes, part)) + _num_bytes(each)
        if part and (_owner(part[0]) is not _owner(each) or total > _LABELLED):
            yield part
            part = []
        part.append(each)
    yield part


def _owner(item: _Solved | FailedPhoto) -> object:
    """The batch of a photo, which is another one if the photo was solved alone."""
    return item.batch if isinstance(item, _Solved) else item


def _failure_or(source: Any, result: R | DsloError) -> R | FailedPhoto:
    return FailedPhoto(source, result) if isinstance(result, DsloError) else result


def _num_bytes(item: _Read | _Solved | FailedPhoto) -> int:
    """Bytes of the pixels of a photo."""
    if isinstance(item, FailedPhoto):
        return 0
    if isinstance(item, _Read):
        return item.photo.photo.pixels.nbytes
    return item.batch.photos[item.index].pixels.nbytes
