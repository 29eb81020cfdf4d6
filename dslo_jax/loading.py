"""The networks of a pair: found, downloaded if needed, and loaded on their device."""

from collections.abc import Callable
from pathlib import Path

import jax
from flax import nnx

from dslo_jax import hub
from dslo_jax.attention import (
    AffinityOptions,
    AffinitySource,
    downscaling_of,
    load_affinity,
)
from dslo_jax.cache import keep_programs
from dslo_jax.devices import find_devices, network_dtype
from dslo_jax.logits import load_logits, load_proxy
from dslo_jax.model_info import Checkpoint, ModelInfo
from dslo_jax.pairs import Pair
from dslo_jax.pipeline import Networks, place


def load_pair(
    pair: Pair,
    *,
    name: str = "",
    dtype: str,
    device: str,
    devices: int | str = 1,
    offline: bool,
) -> tuple[Networks, Callable[[], ModelInfo]]:
    """Load the networks of a pair.

    Args:
        pair: From ``find_pair``.
        name: Name of the pair, for results.
        dtype: As for ``Segmenter.from_pretrained``.
        device: As for ``Segmenter.from_pretrained``.
        devices: As for ``Segmenter.from_pretrained``.
        offline: Whether to open no network connection.

    Returns:
        The networks, whose source of affinities and proxy are found and loaded when
        they are needed for the first time. And a function that tells what they are,
        for results; it names the last two as soon as they are loaded.

    Raises:
        CheckpointError: A checkpoint is missing, damaged or of another kind.
        DeviceError: There is no such device, or there are not so many (``D02``).
        OptionError: The precision is unknown (``O03``), or ``devices`` is no number
            (``O01``).
    """
    placement = place(find_devices(device, devices))
    target = placement.device
    keep_programs(target)
    precision = network_dtype(dtype, target)
    checkpoints: dict[str, Checkpoint] = {}

    def resolve(name: str | Path, kind: hub.Kind, role: str) -> Path:
        half = precision.itemsize < 4
        found = hub.resolve(name, kind, offline=offline, half=half)
        checkpoints[role] = _checkpoint(name, found)
        return found

    def load_attention(options: AffinityOptions) -> AffinitySource:
        folder = resolve(pair.attention, "attention", "attention")
        with jax.default_device(target):
            return load_affinity(folder, dtype=precision, options=options)

    def load_second() -> nnx.Module:
        assert pair.proxy is not None  # else there is nothing to load
        folder = resolve(pair.proxy, "vit", "proxy")
        with jax.default_device(target):
            return load_proxy(folder, dtype=precision)

    folder = resolve(pair.clip, "clip", "clip")
    with jax.default_device(target):
        logits = load_logits(folder, dtype=precision)
    networks = Networks.with_kept_names(
        logits,
        hub.find_tokenizer(folder, logits.vocab_size, offline=offline),
        {"": load_attention},
        downscaling=downscaling_of(pair.attention),
        proxy=None if pair.proxy is None else load_second,
        placement=placement,
    )

    def model() -> ModelInfo:
        return ModelInfo(
            name,
            checkpoints["clip"],
            checkpoints.get("attention"),
            str(precision),
            target.device_kind,
            checkpoints.get("proxy"),
        )

    return networks, model


def _checkpoint(name: str | Path, place: Path) -> Checkpoint:
    """What is known of a checkpoint that was found for a name."""
    source = hub.source_of(place)
    if source is None:
        return Checkpoint(str(name))
    return Checkpoint(str(name), source.repository, source.revision, source.hashes)
