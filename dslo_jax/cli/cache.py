"""``dslo cache``: what is kept between runs, where, and how to remove it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from dslo_jax.cache import folders
from dslo_jax.cli.terminal import one_line, results, say
from dslo_jax.errors import OutputError
from dslo_jax.hub.download import readable_size


@dataclass(frozen=True)
class Cache:
    """Show, locate or remove what is kept between runs, to make starts faster.

    Compiled programs and the features of class names are kept. Downloaded checkpoints
    are not part of it; see dslo weights.

    Args:
        action: show: the folders and their sizes. path: the folder of the whole cache.
            clear: remove the entries.
        kind: The entries to remove: compiled programs, features of names, or all.
    """

    action: Annotated[Literal["show", "path", "clear"], tyro.conf.Positional] = "show"
    kind: Annotated[Literal["compiled", "names", "all"], tyro.conf.Positional] = "all"


def run(arguments: list[str], errors: Console) -> int:
    """Run the command and return the exit code."""
    options = tyro.cli(Cache, prog="dslo cache", args=arguments)
    root = folders.root()
    if root is None:
        say(errors, "the cache is off: DSLO_CACHE is empty, or there is no home folder")
        return 0
    actions: dict[str, Callable[[Path, str, Console], None]] = {
        "show": _show,
        "path": _path,
        "clear": _clear,
    }
    actions[options.action](root, options.kind, errors)
    return 0


def _show(root: Path, _: str, errors: Console) -> None:
    for kind in folders.KINDS:
        found = folders.content_of(root / kind)
        size = f"{found.files} entries, {readable_size(found.size)}"
        say(results(), f"{kind}: {size}, in {one_line(root / kind)}")
    limit = readable_size(folders.size_limit())
    say(errors, f"at most {limit} are kept (DSLO_CACHE_SIZE); the oldest go first")


def _path(root: Path, _: str, errors: Console) -> None:
    say(results(), one_line(root))


def _clear(root: Path, kind: str, errors: Console) -> None:
    for each in folders.KINDS if kind == "all" else (kind,):
        try:
            removed = folders.clear(each)
        except OSError as error:
            raise OutputError.cannot_write(
                root / each, error, remedy="change its permissions"
            ) from error
        size = readable_size(removed.size)
        say(results(), f"removed {removed.files} entries of {each}, {size}")
