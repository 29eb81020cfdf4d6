"""The networks of a sweep, loaded once for all cells."""

from collections.abc import Mapping
from pathlib import Path

import jax

from dslo_jax import hub
from dslo_jax.attention import (
    AffinityOptions,
    AffinitySource,
    downscaling_of,
    fitting_size,
    load_affinity,
)
from dslo_jax.devices import find_device, network_dtype
from dslo_jax.evaluation.sweeps.cells import Attention
from dslo_jax.loading import load_pair
from dslo_jax.pairs import Pair
from dslo_jax.pipeline import Networks
from dslo_jax.runs import digest


def load_networks(
    pair: Pair,
    *,
    dtype: str = "auto",
    device: str = "auto",
    devices: int | str = 1,
    offline: bool = False,
) -> Networks:
    """Load the networks of a pair, for any number of configurations.

    Args:
        pair: From ``find_pair``.
        dtype: As in ``Segmenter.from_pretrained``.
        device: As in ``Segmenter.from_pretrained``.
        devices: As in ``Segmenter.from_pretrained``.
        offline: Whether to open no network connection.

    Raises:
        CheckpointError: A checkpoint is missing, damaged or of another kind.
        DeviceError: A device is absent.
    """
    networks, _ = load_pair(
        pair, dtype=dtype, device=device, devices=devices, offline=offline
    )
    networks.affinity_source(options=pair.config.affinity)  # errors now, and not later
    return networks


def add_attentions(
    networks: Networks,
    pair: Pair,
    named: Mapping[str, str | Path],
    *,
    dtype: str = "auto",
    device: str = "auto",
    offline: bool = False,
) -> tuple[Networks, tuple[Attention, ...]]:
    """Load further networks with attention, to compare them with that of the pair.

    The CLIP of the pair is always one of them. The photo size of each network is chosen
    so that it has as many patches as the network of the pair, as nearly as possible.

    Args:
        networks: From ``load_networks``.
        pair: The pair of these networks.
        named: Presets, folders or repositories of further networks, by their names in
            tables.
        dtype: As in ``Segmenter.from_pretrained``.
        device: As in ``Segmenter.from_pretrained``.
        offline: Whether to open no network connection.

    Returns:
        The networks with the further ones, and the ``Attention`` of each; that of the
        pair is the last.

    Raises:
        CheckpointError: A checkpoint is missing, damaged or of another kind.
        DeviceError: The device is absent.
    """
    target = find_device(device)
    precision = network_dtype(dtype, target)
    own = hub.resolve(pair.attention, "attention", offline=offline)
    side = networks.grid(pair.config.affinity)[0]
    loaded: dict[str, AffinitySource] = {}
    told = []
    places = {_name(pair.clip, "clip"): pair.clip, **named}
    for name, place in places.items():
        folder = hub.resolve(
            place, "attention", offline=offline, half=precision.itemsize < 4
        )
        if folder == own:
            continue
        key = digest([folder])[:16]
        patch = downscaling_of(folder)
        size = fitting_size(side * patch, patch)
        if key not in loaded:
            options = AffinityOptions(size=size)
            with jax.default_device(target):
                loaded[key] = load_affinity(folder, dtype=precision, options=options)
        told.append(Attention(name, key, size))
    told.append(Attention(_name(pair.attention, hub.attention_of(own)), "", 0))
    return networks.with_affinities(loaded), tuple(told)


def _name(place: str | Path, otherwise: str) -> str:
    """The name of a preset; ``otherwise`` for other checkpoints."""
    return str(place) if hub.kind_of(str(place)) else otherwise
