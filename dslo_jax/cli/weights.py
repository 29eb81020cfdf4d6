"""``dslo weights``: download checkpoints, and say where they are."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import tyro
from rich.console import Console

from dslo_jax import hub
from dslo_jax.cli.terminal import results, say
from dslo_jax.errors import CheckpointError
from dslo_jax.hub.presets import Kind


@dataclass(frozen=True)
class Weights:
    """Download checkpoints, and say where they are.

    Args:
        names: Presets, or repositories with their kind: clip-b16, sd2-base, dino-b8,
            dinov2-b14, dinov2-reg-b14.
        kind: What a repository that is no preset holds; attention is any of the others.
        offline: Only look, never ask a hub.
    """

    names: tyro.conf.Positional[tuple[str, ...]]
    kind: Kind = "clip"
    offline: bool = False


def run(arguments: list[str], errors: Console) -> int:
    """Run the command; returns the exit code."""
    del errors  # whatever goes wrong is told by the caller
    options = tyro.cli(Weights, prog="dslo weights", args=arguments)
    for name in options.names:
        kind = hub.kind_of(name) or options.kind
        with readable_checkpoint():
            folder = hub.resolve(name, kind, offline=options.offline)
        say(results(), f"{name} {folder}")
    return 0


@contextmanager
def readable_checkpoint() -> Iterator[None]:
    """Tell a person about files of a checkpoint that the system refuses to read."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            "W01", f"a checkpoint cannot be read: {error}; check its permissions"
        ) from error
