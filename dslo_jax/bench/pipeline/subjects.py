"""What is measured: this pipeline, and that of PyTorch, behind the same functions."""

import importlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Integer, UInt8

from dslo_jax import images
from dslo_jax.config import SegmenterConfig
from dslo_jax.errors import OptionError
from dslo_jax.pipeline import Batch, Networks, Room, Solved
from dslo_jax.pipeline.stages import Clock
from dslo_jax.prompts import ClassList
from dslo_jax.segmenter import Segmenter


OURS, TORCH = "dslo-jax", "torch"

Photos = Sequence[UInt8[np.ndarray, "_ _ 3"]]
Labels = list[Integer[np.ndarray, "_ _"]]

# Steps that the other pipeline does not have apart.
_SAME_STAGE = {"fold": "labels"}


class Subject(NamedTuple):
    """A pipeline to measure.

    Attributes:
        name: ``OURS`` or ``TORCH``.
        segment: Function of photos and the size of a batch to their labels, both on the
            host.
        stages: Function of the photos of one batch to the seconds of each stage; it
            waits after every stage.
    """

    name: str
    segment: Callable[[Photos, int], Labels]
    stages: Callable[[Photos], dict[str, float]]


class Staged(NamedTuple):
    """A batch whose stages were timed.

    Attributes:
        seconds: Seconds of each stage, without compilation.
        compile_seconds: Seconds of tracing and compiling of each stage.
        solved: The maps of the batch.
    """

    seconds: dict[str, float]
    compile_seconds: dict[str, float]
    solved: Solved


def our_subject(
    networks: Networks, config: SegmenterConfig, classes: ClassList
) -> Subject:
    """This pipeline.

    Args:
        networks: The networks on their device.
        config: The options of the method.
        classes: The classes.
    """
    segmenter = Segmenter(networks, config)
    room = Room()

    def segment(photos: Photos, batch: int) -> Labels:
        found = segmenter.batch(photos, classes, batch_size=batch)
        return [each.labels for each in found]

    def stages(photos: Photos) -> dict[str, float]:
        return run_stages(
            networks, segmenter.config, classes, photos, room=room
        ).seconds

    return Subject(OURS, segment, stages)


def run_stages(
    networks: Networks,
    config: SegmenterConfig,
    classes: ClassList,
    photos: Photos,
    *,
    room: Room | None = None,
) -> Staged:
    """Segment one batch, and wait after every stage.

    Args:
        networks: The networks on their device.
        config: The options of the method.
        classes: The classes.
        photos: The photos of the batch.
        room: The sizes to solve with, as for ``Batch``.

    Raises:
        DeviceError: The device has too little memory for the batch (``D01``).
    """
    clock = Clock(waits=True)
    read = [images.read_photo(photo) for photo in photos]
    batch = Batch(networks, read, classes, size=len(read), clock=clock, room=room)
    batch.class_labels(config)
    seconds, compiling = dict[str, float](), dict[str, float]()
    for timing in clock.timings:
        stage = _SAME_STAGE.get(timing.stage, timing.stage)
        seconds[stage] = seconds.get(stage, 0.0) + timing.seconds
        compiling[stage] = compiling.get(stage, 0.0) + timing.compile_seconds
    return Staged(seconds, compiling, batch.solved(config))


class TorchNetworks(NamedTuple):
    """The networks in PyTorch.

    Attributes:
        module: ``torch_bridge.pipeline``.
        networks: Its ``Networks``.
        load_s: Time of loading, in seconds.
    """

    module: Any
    networks: Any
    load_s: float


def load_torch(model: str, *, precision: str, device: str) -> TorchNetworks:
    """Load the networks in PyTorch.

    Args:
        model: As for ``dslo segment``; a pair with Stable Diffusion.
        precision: ``"float32"``, ``"bfloat16"``, ``"float16"`` or ``"auto"``.
        device: ``"cpu"``, ``"gpu"`` or ``"auto"``.

    Raises:
        OptionError: PyTorch, transformers or diffusers is not installed (``O05``), or
            the pair or the device cannot be used with PyTorch (``O01``).
    """
    try:  # by name: this package does not depend on PyTorch
        module = importlib.import_module("torch_bridge.pipeline")
    except ImportError as error:
        raise OptionError(
            "O05",
            f"--against torch needs PyTorch, transformers and diffusers ({error}); "
            'try: pip install "dslo-jax[torch]"',
        ) from error
    start = time.perf_counter()
    place = {"gpu": "cuda"}.get(device, device)
    try:
        networks = module.load_networks(model, dtype=precision, device=place)
    except (ValueError, RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise OptionError("O01", f"--against torch: {reason}") from error
    return TorchNetworks(module, networks, time.perf_counter() - start)


def torch_subject(
    loaded: TorchNetworks,
    config: SegmenterConfig,
    classes: ClassList,
    *,
    compiled: bool,
) -> Subject:
    """The pipeline of PyTorch.

    Args:
        loaded: From ``load_torch``.
        config: The options of the method, with the layers of the affinity named.
        classes: The classes.
        compiled: Whether to use ``torch.compile``.
    """
    pipeline = loaded.module.TorchPipeline(
        loaded.networks, classes, config, compiled=compiled
    )

    def segment(photos: Photos, batch: int) -> Labels:
        found = []
        for first in range(0, len(photos), batch):
            found += pipeline(photos[first : first + batch], wait=False)
        return found

    def stages(photos: Photos) -> dict[str, float]:
        pipeline(photos, wait=True)
        return dict(pipeline.seconds)

    return Subject(TORCH, segment, stages)
