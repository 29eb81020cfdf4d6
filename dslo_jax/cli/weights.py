"""``dslo weights``: list, download and verify checkpoints."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from dslo_jax import hub
from dslo_jax.cli.terminal import results, say
from dslo_jax.cli.values import Names
from dslo_jax.devices import Precision, find_device, network_dtype
from dslo_jax.errors import CheckpointError, brief, cause_of, did_you_mean
from dslo_jax.hub.download import check_hashes, readable_size
from dslo_jax.hub.repositories import (
    cache_folder,
    cached_folder,
)
from dslo_jax.pairs import BUNDLED, PAIRS, Pair
from dslo_jax.runs import describe


@dataclass(frozen=True)
class Weights:
    """List the checkpoints on this machine, or download and verify some.

    Args:
        names: Presets (clip-b16, sd2-base ...), pairs (sd2+clip-b16 ...), or
            repositories with their kind. Without names, all presets are listed.
        kind: Kind of a repository that is not a preset; attention stands for any of the
            other kinds.
        half: Download weights in half precision where they are offered.
        offline: Open no network connection.
    """

    names: Annotated[
        Names, tyro.conf.Positional, tyro.conf.arg(metavar="[NAME...]")
    ] = ()
    kind: hub.Kind = "clip"
    half: bool = False
    offline: bool = False


def run(arguments: list[str], errors: Console) -> int:
    """Run the command and return the exit code."""
    options = tyro.cli(Weights, prog="dslo weights", args=arguments)
    if not options.names:
        results(soft_wrap=False).print(_table())
        say(errors, f"downloads are kept in {cache_folder()}")
        return 0
    for name in _presets(options.names):
        if name in BUNDLED:
            say(results(), f"{name} {BUNDLED[name]}, a part of this package")
            continue
        kind = hub.kind_of(name) or options.kind
        with readable_checkpoint():
            folder = hub.resolve(name, kind, offline=options.offline, half=options.half)
            verified = hub.verify(name, folder)
        told = f", sha256 of {verified} files verified" if verified else ""
        say(results(), f"{name} {folder}{told}")
    return 0


@contextmanager
def readable_checkpoint() -> Iterator[None]:
    """Turn an error of the system about a file into a ``CheckpointError`` (``W01``)."""
    try:
        yield
    except OSError as error:
        what = repr(error.filename) if error.filename else "a checkpoint"
        raise CheckpointError(
            "W01", f"{what} cannot be read: {cause_of(error)}; check its permissions"
        ) from error


def _presets(names: tuple[str, ...]) -> list[str]:
    """The presets of pairs, and all other names as they are, each once.

    Raises:
        CheckpointError: A name is nothing that could be found (``W01``).
    """
    known = [*hub.PRESETS, *PAIRS, *BUNDLED]
    parts: list[str] = []
    for name in names:
        pair = PAIRS.get(name)
        if name not in known and "/" not in name and not os.path.exists(name):
            hint = did_you_mean(name, known, then=f"known: {', '.join(known)}")
            raise CheckpointError(
                "W01",
                f"{brief(name)} is no folder, file, preset, pair or repository; {hint}",
            )
        parts += [name] if pair is None else [str(pair.clip), str(pair.attention)]
    return list(dict.fromkeys(parts))


def _table() -> Table:
    """The table of all presets, with their sizes and states."""
    table = Table("preset", "what", "size", "state", box=None, pad_edge=False)
    for name, preset in hub.PRESETS.items():
        size = f"about {readable_size(preset.megabytes * 10**6)}"
        table.add_row(name, preset.kind, size, state_of(preset))
    return table


def state_of(preset: hub.Preset) -> str:
    """Whether a preset is on this machine, without reading its weights."""
    for mirror in preset.mirrors:
        folder = cached_folder(mirror)
        if folder is None:
            continue
        try:
            hub.check_folder(folder, preset.kind)
            check_hashes(folder, mirror, fully=False)
            return "here"
        except CheckpointError as error:
            return "in part" if error.code == "W01" else f"unusable ({error.code})"
    return "not here"


def circumstances_of(
    pair: Pair,
    *,
    batch_size: int,
    precision: Precision,
    device: str,
    with_attention: bool = True,
    with_proxy: bool = False,
) -> dict[str, Any]:
    """Describe what the results of a run depend on, besides photos and options.

    Args:
        pair: The networks, which are loaded.
        batch_size: Photos at once.
        precision: Precision of the networks.
        device: Name of the device.
        with_attention: Whether the source of affinities is used.
        with_proxy: Whether the proxy of the logits is used.

    Returns:
        The result of ``runs.describe``.
    """
    target = find_device(device)
    places = [hub.resolve(pair.clip, "clip", offline=True)]
    if with_attention:
        places.append(hub.resolve(pair.attention, "attention", offline=True))
    if with_proxy and pair.proxy is not None:
        places.append(hub.resolve(pair.proxy, "vit", offline=True))
    return describe(
        places,
        batch_size=batch_size,
        precision=network_dtype(precision, target).name,
        device=target,
    )
