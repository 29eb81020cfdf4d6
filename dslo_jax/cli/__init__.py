"""The command ``dslo``: the only place that prints and sets exit codes."""

import os
import sys
import traceback
from collections.abc import Sequence

from rich.console import Console

from dslo_jax.cli import ablate, bench, cache, convert, evaluate, segment, weights
from dslo_jax.cli.terminal import results, say, told
from dslo_jax.errors import DeviceError, DsloError, OptionError, OutputError


PARTIAL, INTERRUPTED, UNREAD, BUG = OutputError.exit_code, 130, 141, 1

COMMANDS = {
    "segment": segment.run,
    "weights": weights.run,
    "convert": convert.run,
    "eval": evaluate.run,
    "ablate": ablate.run,
    "bench": bench.run,
    "cache": cache.run,
}
_USAGE = """usage: dslo COMMAND ...

  dslo segment PHOTO... --classes "cat, sofa|couch, wall"   photos to label maps
  dslo weights                                              list the checkpoints
  dslo weights NAME...                                      download and verify some
  dslo convert DATASET --root FOLDER                        convert labels for dslo eval
  dslo eval DATASET --root FOLDER                           scores on a data set
  dslo ablate --dataset DATASET --root FOLDER               the tables of the paper
  dslo bench solvers                                        times of the solvers
  dslo bench compare A.json B.json                          compare two such times
  dslo cache                                                what is kept between runs

dslo COMMAND --help lists the options."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``dslo`` and return the exit code.

    0: done. 1: a bug. 2: a bad option. 3: a bad photo or class list. 4: a bad
    checkpoint. 5: a device that is missing or out of memory. 6: some photos failed, or
    results could not be written. 7: slower than ``bench compare`` allows. 130:
    interrupted. 141: the reader of the output has ended.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    if not arguments or arguments[0] not in COMMANDS:
        wants_help = bool(arguments) and arguments[0] in ("-h", "--help")
        say(results() if wants_help else errors, _USAGE)
        return 0 if wants_help else OptionError.exit_code
    try:
        with told(errors):
            return COMMANDS[arguments[0]](arguments[1:], errors)
    except SystemExit as stop:  # the option parser has printed the error
        return stop.code if isinstance(stop.code, int) else OptionError.exit_code
    except DsloError as error:
        say(errors, f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        say(errors, "interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes its output when it ends, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD
    except Exception as error:
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
            say(errors, f"error: {_out_of_memory(error)}")
            return DeviceError.exit_code
        say(errors, traceback.format_exc())
        say(errors, "This is a bug in dslo-jax; please report the lines above.")
        return BUG


def _out_of_memory(error: Exception) -> DeviceError:
    reason = str(error).splitlines()[0] if str(error) else "no more memory"
    return DeviceError(
        "D01",
        f"out of memory ({reason}); try fewer photos or images at once, fewer classes, "
        "a smaller --affinity-size or --short-side, or half precision",
    )
