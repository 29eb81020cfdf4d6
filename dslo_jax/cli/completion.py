"""``dslo completion``: scripts that complete command lines in a shell."""

import contextlib
from dataclasses import dataclass, make_dataclass
from typing import Annotated, Any, Literal, Union

import tyro
from rich.console import Console

from dslo_jax.cli import (
    ablate,
    bench,
    cache,
    convert,
    doctor,
    evaluate,
    export,
    segment,
    serve,
    weights,
)


@dataclass(frozen=True)
class Completion:
    """Print a script that completes the commands and options of dslo with the TAB key.

    bash: dslo completion bash > ~/.local/share/bash-completion/completions/dslo. zsh:
    dslo completion zsh > ~/.zfunc/_dslo, with fpath+=~/.zfunc before compinit. fish:
    dslo completion fish > ~/.config/fish/completions/dslo.fish. Then start a new shell.

    Args:
        shell: The shell.
    """

    shell: tyro.conf.Positional[Literal["bash", "zsh", "fish"]]


def run(arguments: list[str], errors: Console) -> int:
    """Run the command and return the exit code."""
    options = tyro.cli(Completion, prog="dslo completion", args=arguments)
    words = ["--tyro-print-completion", options.shell]
    with contextlib.suppress(SystemExit):  # how it ends after printing
        tyro.cli(_all_commands(), prog="dslo", args=words)
    return 0


def _all_commands() -> Any:
    """All commands as the sub-commands of one parser."""
    commands = {
        "segment": segment.Segment,
        "export": export.Export,
        "weights": weights.Weights,
        "convert": convert.Convert,
        "eval": evaluate.Evaluate,
        "ablate": ablate.Ablate,
        "bench": _holder(bench.commands()),
        "cache": cache.Cache,
        "doctor": doctor.Doctor,
        "serve": serve.Serve,
        "completion": Completion,
    }
    return Union[  # noqa: UP007  # the types are made here
        tuple(
            Annotated[kind, tyro.conf.subcommand(name)]
            for name, kind in commands.items()
        )
    ]


def _holder(commands: Any) -> type:
    """A command that has nothing but sub-commands of its own."""
    named = Annotated[commands, tyro.conf.arg(name="")]
    return make_dataclass("Holder", [("command", named)])
