"""The command ``dslo``: the only place that prints and sets exit codes."""

import errno
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version

from rich.console import Console

from dslo_jax.cli import (
    ablate,
    bench,
    cache,
    completion,
    convert,
    doctor,
    evaluate,
    export,
    segment,
    serve,
    terminal,
    weights,
)
from dslo_jax.cli.terminal import close_streams, open_streams, results, say, told
from dslo_jax.devices import device_error
from dslo_jax.errors import DsloError, OptionError, OutputError, did_you_mean


PARTIAL, BUG = OutputError.exit_code, 1
INTERRUPTED, UNREAD, TERMINATED = 130, 141, 143

COMMANDS = {
    "segment": segment.run,
    "export": export.run,
    "weights": weights.run,
    "convert": convert.run,
    "eval": evaluate.run,
    "ablate": ablate.run,
    "bench": bench.run,
    "cache": cache.run,
    "doctor": doctor.run,
    "completion": completion.run,
    "serve": serve.run,
}
_USAGE = """usage: dslo COMMAND ...

  dslo segment PHOTO... --classes "cat, sofa|couch, wall"   photos to label maps
  dslo serve --model demo                                   a page in the browser
  dslo export FORMAT RESULTS TARGET                         results for other programs
  dslo export stablehlo TARGET --classes "cat, sofa"        the method as one program
  dslo weights                                              list the checkpoints
  dslo weights NAME...                                      download and verify some
  dslo convert DATASET --root FOLDER                        convert labels for dslo eval
  dslo eval DATASET --root FOLDER                           scores on a data set
  dslo ablate --dataset DATASET --root FOLDER               the tables of the paper
  dslo bench pipeline --quick                               times from photos to labels
  dslo bench scaling                                        the same over devices
  dslo bench plan --images 1e9 --device h200 --result FILE  devices, hours and bytes
  dslo bench solvers                                        times of the solvers
  dslo bench compare A.json B.json                          compare two such times
  dslo bench compile                                        all stages, for other chips
  dslo cache                                                what is kept between runs
  dslo doctor                                               what works on this machine
  dslo completion SHELL                                     TAB for bash, zsh or fish

dslo COMMAND --help lists the options, dslo --version prints the version."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``dslo`` and return the exit code.

    0: done. 1: a bug. 2: a bad option. 3: a bad photo or class list. 4: a bad
    checkpoint. 5: a device that is missing, or a machine without memory, files or
    threads to spare. 6: some photos failed, or results could not be written. 7: slower
    than ``bench compare`` allows. 130: interrupted. 141: the reader of the output has
    ended. 143: ended by SIGTERM. 8: the self-test of ``doctor`` failed.
    """
    open_streams()
    try:
        return _run(list(sys.argv[1:] if arguments is None else arguments))
    except BrokenPipeError:
        return UNREAD
    except OSError:  # standard error is full, so nothing can be said
        return OutputError.exit_code
    finally:
        close_streams()


def _run(arguments: list[str]) -> int:
    """Run a command; every error is printed on standard error.

    Raises:
        OSError: Standard error cannot be written.
    """
    errors = terminal.errors()
    if not arguments or arguments[0] not in COMMANDS:
        return _without_command(arguments[0] if arguments else "", errors)
    try:
        with told(errors):
            return COMMANDS[arguments[0]](arguments[1:], errors)
    except SystemExit as stop:  # the option parser has printed the error
        return stop.code if isinstance(stop.code, int) else OptionError.exit_code
    except KeyboardInterrupt as stop:
        say(errors, "interrupted")
        return TERMINATED if isinstance(stop, terminal.Terminated) else INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:
        known = error if isinstance(error, DsloError) else _of_surroundings(error)
        if known is not None:
            say(errors, f"error: {known}")
            return known.exit_code
        say(errors, traceback.format_exc())
        say(errors, "This is a bug in dslo-jax; please report the lines above.")
        return BUG


def _without_command(word: str, errors: Console) -> int:
    """Answer a command line that does not begin with a command."""
    if word in ("-h", "--help"):
        say(results(), _USAGE)
        return 0
    if word in ("-V", "--version"):
        say(results(), f"dslo-jax {version('dslo-jax')}")
        return 0
    if not word:
        say(errors, _USAGE)
        return OptionError.exit_code
    listed = f"commands: {', '.join(COMMANDS)}; dslo --help explains them"
    hint = did_you_mean(word, [*COMMANDS, "--help", "--version"], then=listed)
    kind = "option" if word.startswith("-") else "command"
    error = OptionError("O02", f"unknown {kind} {word!r}; {hint}")
    say(errors, f"error: {error}")
    return error.exit_code


def _of_surroundings(error: Exception) -> DsloError | None:
    """The error about the machine or the terminal behind an exception, if it is one."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)
    if isinstance(error, OSError) and error.errno in full and error.filename is None:
        return OutputError.cannot_write("standard output", error, remedy="make room")
    return device_error(error)
