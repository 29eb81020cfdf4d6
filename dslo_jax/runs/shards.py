"""A part of a list of photos, for each of several processes or machines."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import jax

from dslo_jax.errors import OptionError


T = TypeVar("T")

_LAUNCHERS = {
    "Open MPI": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    "torchrun": ("RANK", "WORLD_SIZE"),
}
"""The variables with the number of a process and the number of all, by launcher."""

# Only srun sets it. A batch script without srun has SLURM_PROCID and SLURM_NTASKS too,
# but there is one process, which must not take the first of SLURM_NTASKS parts alone.
_TASKS = "SLURM_STEP_NUM_TASKS"


class Shard(NamedTuple):
    """A part of a list of photos, for one of several processes or machines.

    Attributes:
        index: The number of the part, from 0.
        count: The number of parts.
    """

    index: int = 0
    count: int = 1

    @classmethod
    def of(cls, text: str, surroundings: Mapping[str, str] = os.environ) -> "Shard":
        """Read ``INDEX/COUNT``, such as ``0/4``; or ``auto``, for the launcher's.

        Args:
            text: The text.
            surroundings: The environment variables, for ``auto``.

        Raises:
            OptionError: The text or a variable is something else (``O01``), or no
                launcher was found (``O05``).
        """
        if text == "auto":
            return _launched(surroundings)
        index, _, count = text.partition("/")
        return _checked(f"--shard {text!r}", index, count)

    @property
    def label(self) -> str:
        """The text that ``of`` reads, such as ``0/4``."""
        return f"{self.index}/{self.count}"

    @property
    def suffix(self) -> str:
        """The end of the names of the files of this part; empty for a whole list."""
        return "" if self.count == 1 else f"-{self.index}of{self.count}"

    def file(self, name: str) -> str:
        """The name of a file of this part: ``journal-0of4.jsonl``.

        Args:
            name: The name for a whole list, such as ``journal.jsonl``.
        """
        stem, dot, kind = name.rpartition(".")
        return f"{stem}{self.suffix}{dot}{kind}"

    def part_of(self, items: Sequence[T], batch_size: int) -> list[T]:
        """Every ``count``-th batch of a list, beginning with batch ``index``.

        Whole batches are taken, and not single items, so that every photo shares its
        batch with the same photos as without shards. So the results are equal.

        Args:
            items: The whole list.
            batch_size: Number of items in a batch.
        """
        return [
            item
            for position, item in enumerate(items)
            if position // batch_size % self.count == self.index
        ]


WHOLE = Shard()


def _launched(surroundings: Mapping[str, str]) -> Shard:
    """The shard of this process, from whatever has started it."""
    found = dict(_all_launched(surroundings))
    if not found:
        raise OptionError(
            "O05",
            "--shard auto: this process was started by none of srun, a SLURM array, "
            "torchrun, Open MPI and a TPU slice, and jax.distributed is not "
            "initialized; give --shard INDEX/COUNT",
        )
    if len(set(found.values())) > 1:
        told = ", ".join(f"{shard.label} ({name})" for name, shard in found.items())
        raise OptionError(
            "O01",
            f"--shard auto: the launchers disagree: {told}; give --shard INDEX/COUNT",
        )
    return next(iter(found.values()))


def _all_launched(surroundings: Mapping[str, str]) -> Iterator[tuple[str, Shard]]:
    """Every launcher that is known here, and the shard that it gives."""
    if jax.distributed.is_initialized():
        yield "jax.distributed", Shard(jax.process_index(), jax.process_count())
    in_array = "SLURM_ARRAY_TASK_ID" in surroundings
    in_step = _TASKS in surroundings
    if in_array or in_step:
        array = _array(surroundings) if in_array else WHOLE
        step = _of(surroundings, "SLURM_PROCID", _TASKS) if in_step else WHOLE
        index = array.index * step.count + step.index
        yield "SLURM", Shard(index, array.count * step.count)
    for name, (index, count) in _LAUNCHERS.items():
        if index in surroundings and count in surroundings:
            yield name, _of(surroundings, index, count)
    hosts = surroundings.get("TPU_WORKER_HOSTNAMES", "").split(",")
    if len(hosts) > 1:  # with one host, other machines may work beside it
        worker = surroundings.get("TPU_WORKER_ID", "")
        yield "TPU slice", _checked("TPU_WORKER_ID", worker, str(len(hosts)))


def _array(surroundings: Mapping[str, str]) -> Shard:
    """The shard of a task of a SLURM array.

    A list of some tasks, as it is given to repeat them, does not say how many parts
    there are. It is refused.
    """
    names = ("ID", "MIN", "MAX", "COUNT")
    task, first, last, count = (
        surroundings.get(f"SLURM_ARRAY_TASK_{name}", "") for name in names
    )
    gapless = count.isdecimal() and (first, last) == ("0", str(int(count) - 1))
    if not gapless:
        raise OptionError(
            "O01",
            f"--shard auto: the SLURM array has {count} tasks from {first} to {last}; "
            "expected all from 0, as with sbatch --array=0-15. To repeat some tasks, "
            "give --shard $SLURM_ARRAY_TASK_ID/16",
        )
    return _checked("SLURM_ARRAY_TASK_ID", task, count)


def _of(surroundings: Mapping[str, str], index: str, count: str) -> Shard:
    """The shard that two variables give."""
    return _checked(
        f"{index}/{count}", surroundings.get(index, ""), surroundings[count]
    )


def _checked(origin: str, index: str, count: str) -> Shard:
    if index.isdecimal() and count.isdecimal() and int(index) < int(count):
        return Shard(int(index), int(count))
    found = "" if origin.startswith("--shard") else f" is {index!r}/{count!r}"
    raise OptionError(
        "O01",
        f"{origin}{found}; expected INDEX/COUNT with INDEX from 0 to COUNT - 1, as in "
        "0/4, 1/4, 2/4 and 3/4; or auto",
    )
