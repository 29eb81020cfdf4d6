"""One setting of the pipeline, measured for all sizes of a batch."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from dslo_jax.bench.energy import Energy
from dslo_jax.bench.memory import available_bytes, device_peak
from dslo_jax.bench.peaks import Peaks
from dslo_jax.bench.pipeline.photos import draw_photos, read_photos, save_photos
from dslo_jax.bench.pipeline.result import words_of_setting
from dslo_jax.bench.pipeline.scenarios import (
    BATCHES,
    END_TO_END,
    FILES,
    OFFLINE,
    SINGLE,
    STAGES,
    Setting,
    agreement_of,
    end_to_end,
    expected_labels,
    pairs_of,
    stage_times,
)
from dslo_jax.bench.pipeline.subjects import (
    OURS,
    TORCH,
    Photos,
    TorchNetworks,
    our_subject,
    run_stages,
    torch_subject,
)
from dslo_jax.bench.pipeline.work import StageCosts, costs_of
from dslo_jax.bench.timing import Effort, measure
from dslo_jax.config import SegmenterConfig
from dslo_jax.errors import DeviceError, is_out_of_memory
from dslo_jax.pipeline import Networks
from dslo_jax.pipeline.stages import watch
from dslo_jax.prompts import ClassList
from dslo_jax.segmenter import Segmenter
from dslo_jax.stream import FailedPhoto


LARGEST = 1024  # photos of a batch, where memory does not end before


class Tools(NamedTuple):
    """What all settings of a sweep share; see ``Sweep``."""

    scenarios: tuple[str, ...]
    effort: Effort
    peaks: Peaks
    distinct: int
    photos: tuple[str, ...]
    photo_size: tuple[int, int]
    theirs: TorchNetworks | None
    compiled: bool
    energy: Energy | None
    trace: Path | None
    say: Callable[[str], None]


class Measured(NamedTuple):
    """The rows of one setting and one size of a batch.

    Attributes:
        rows: Plain values, for result files.
        pairs: Comparisons of the rows of two pipelines.
    """

    rows: list[dict[str, Any]]
    pairs: list[dict[str, Any]]


class _First(NamedTuple):
    """The first calls with one size of a batch.

    Attributes:
        seconds: Time of the first call by pipeline, with compilation.
        costs: Costs of our stages by their names; ``None`` if memory ended.
        rows: A row for each pipeline that ran out of memory.
    """

    seconds: dict[str, float]
    costs: Mapping[str, StageCosts] | None
    rows: list[dict[str, Any]]


class OneSetting:
    """One setting, for all sizes of a batch.

    Args:
        networks: Our networks on their device.
        config: The options of the method.
        classes: The classes.
        precision: Precision of the networks.
        tools: What all settings share.
    """

    def __init__(
        self,
        networks: Networks,
        config: SegmenterConfig,
        classes: ClassList,
        precision: str,
        tools: Tools,
    ):
        self._networks, self._classes, self._tools = networks, classes, tools
        self._segmenter = Segmenter(networks, config)
        self._config = self._segmenter.config  # with the layers of the affinity named
        self._subjects = {OURS: our_subject(networks, self._config, classes)}
        if tools.theirs is not None:
            self._subjects[TORCH] = torch_subject(
                tools.theirs, self._config, classes, compiled=tools.compiled
            )
        self._pool: Photos = []
        self._fill_pool(tools.distinct)
        height, width = self._pool[0].shape[:2]
        rows, columns = networks.grid(self._config.affinity)
        self._setting = Setting(
            mode=self._config.solver.mode,
            precision=precision,
            affinity_size=self._config.affinity.size,
            patches=rows * columns,
            classes=len(classes),
            height=height,
            width=width,
        )
        self._expected: dict[str, dict[int, np.ndarray]] = {}
        self._largest: tuple[int, int] | None = None  # a batch, and bytes that it takes
        self._best = (0.0, 1)  # photos in a second, size of the batch

    def measured(self, batches: Sequence[int]) -> Iterator[Measured]:
        """Measure all sizes of a batch, and then from files to files.

        Args:
            batches: The sizes; empty for 1, 2, 4, ... until memory ends.
        """
        common = self._setting._asdict()
        for batch in batches or _doubled():
            self._tools.say(f"measuring {words_of_setting(common)}, batch {batch}")
            rows = self._batch(batch)
            pairs = pairs_of(rows, agreement_of(self._expected))
            yield Measured([common | r for r in rows], [common | p for p in pairs])
            if OURS not in self._subjects:
                return
        if FILES in self._tools.scenarios:
            yield Measured([common | self._from_files(self._best[1])], [])
        if self._tools.trace is not None:
            self._record(self._tools.trace)

    def _batch(self, batch: int) -> list[dict[str, Any]]:
        """All scenarios with one size of a batch."""
        self._fill_pool(batch)
        first = self._first_calls(batch)
        subjects = list(self._subjects.values())
        if not subjects:
            return first.rows
        for subject in subjects:
            if subject.name not in self._expected:
                checked = self._pool[: self._tools.distinct]
                self._expected[subject.name] = expected_labels(subject, checked)
        effort, rows = self._tools.effort, first.rows
        if STAGES in self._tools.scenarios:
            rows += self._stages(batch, first)
        for scenario in (SINGLE, OFFLINE) if batch == 1 else (OFFLINE,):
            if scenario not in self._tools.scenarios:
                continue
            found = end_to_end(
                subjects,
                self._pool,
                self._expected,
                scenario=scenario,
                batch=batch,
                effort=effort,
            )
            for row in found:
                row["first_call_s"] = first.seconds[row["name"]]
                if row["name"] == OURS and first.costs is not None:
                    self._complete(row, first.costs)
            rows += found
        return rows

    def _stages(self, batch: int, first: _First) -> list[dict[str, Any]]:
        """The stages of a batch, with fewer calls than a scenario."""
        effort = self._tools.effort
        fewer = Effort(
            max(1, effort.repeats // 3), effort.seconds / 4, effort.budget / 2
        )
        subjects = list(self._subjects.values())
        rows = stage_times(subjects, self._pool, batch=batch, effort=fewer)
        for row in rows:
            if row["name"] == OURS:
                costs = (first.costs or {}).get(row["stage"], StageCosts())
                row |= costs.plain(self._tools.peaks, row["median_s"])
        return rows

    def _first_calls(self, batch: int) -> _First:
        """Call each pipeline once; those without enough memory are dropped."""
        photos = [self._pool[number % len(self._pool)] for number in range(batch)]
        found = _First({}, None, [])
        for name in list(self._subjects):
            start = time.perf_counter()
            try:
                if name == OURS:
                    found = found._replace(costs=self._first_of_ours(photos))
                else:
                    self._subjects[name].segment(photos, batch)
            except (DeviceError, RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                del self._subjects[name]
                found.rows.append(_no_memory(name, batch, error))
                self._tools.say(f"{name}: out of memory at batch {batch}")
            found.seconds[name] = time.perf_counter() - start
        return found

    def _first_of_ours(self, photos: Photos) -> dict[str, StageCosts]:
        """Compile our programs for a batch; returns the costs of the stages.

        Raises:
            DeviceError: There is too little memory (``D01``).
        """
        self._require_memory(len(photos))
        with watch() as calls:
            staged = run_stages(self._networks, self._config, self._classes, photos)
        costs = costs_of(self._networks, self._config, calls, photos, staged)
        self._largest = len(photos), max(each.other_bytes for each in costs.values())
        return costs

    def _require_memory(self, batch: int) -> None:
        """Refuse a batch that would not fit the memory of the machine.

        On a CPU, the system kills a program that takes too much memory.

        Raises:
            DeviceError: The batch would not fit (``D01``).
        """
        available = available_bytes()
        is_cpu = self._networks.device.platform == "cpu"
        if not is_cpu or self._largest is None or available is None:
            return
        last, taken = self._largest
        needed = taken * batch // last
        if needed > available:
            raise DeviceError(
                "D01",
                f"a batch of {batch} needs about {needed / 2**30:.1f} GiB, and "
                f"{available / 2**30:.1f} GiB are free; use a smaller batch",
            )

    def _complete(self, row: dict[str, Any], costs: Mapping[str, StageCosts]) -> None:
        """Add what is known of one of our rows: compiling, memory, energy."""
        weights = sum(each.weight_bytes for each in costs.values())
        others = max(each.other_bytes for each in costs.values())
        row["compile_s"] = sum(each.compile_s for each in costs.values())
        row["memory"] |= {
            "predicted_bytes": weights + others,
            "device_peak_bytes": device_peak(self._networks.device),
        }
        row["energy"] = None
        if row["scenario"] != OFFLINE:
            return
        batch = row["images"]
        self._best = max(self._best, (row["images_per_s"], batch))
        if self._tools.energy is not None:
            ours, photos = self._subjects[OURS], list(self._pool[:batch]) * BATCHES
            row["energy"] = self._tools.energy.per_photo(
                lambda: ours.segment(photos, batch), len(photos)
            )

    def _from_files(self, batch: int) -> dict[str, Any]:
        """The row of the time from JPEG files to written results."""
        count = batch * BATCHES
        photos = [self._pool[number % len(self._pool)] for number in range(count)]
        with tempfile.TemporaryDirectory() as name:
            paths = save_photos(photos, Path(name))

            def call() -> None:
                stream = self._segmenter.stream(paths, self._classes, batch_size=batch)
                for number, result in enumerate(stream):
                    if isinstance(result, FailedPhoto):
                        raise result.error
                    result.save(Path(name) / f"{number}")

            found = measure({OURS: call}, self._tools.effort)[OURS]
        return {
            "scenario": FILES,
            "stage": END_TO_END,
            "name": OURS,
            "images": batch,
            "photos_per_call": count,
            "distinct_photos": min(count, len(self._pool)),
            **found.row,
            "images_per_s": count * len(found.samples_s) / sum(found.samples_s),
            "oom": False,
        }

    def _record(self, folder: Path) -> None:
        """Record one photo and one batch with the profiler, after all timing."""
        self._tools.say(f"recording a trace into {folder}")
        ours, batch = self._subjects[OURS], self._best[1]
        with jax.profiler.trace(str(folder)):
            ours.segment(self._pool[:1], 1)
            ours.segment(self._pool[:batch], batch)

    def _fill_pool(self, count: int) -> None:
        """Have ``count`` distinct photos, or all that were given."""
        if self._tools.photos:
            self._pool = self._pool or read_photos(self._tools.photos, LARGEST)
        elif len(self._pool) < count:
            self._pool = draw_photos(count, self._tools.photo_size)


def _doubled() -> Iterator[int]:
    batch = 1
    while batch <= LARGEST:
        yield batch
        batch *= 2


def _no_memory(name: str, batch: int, error: BaseException) -> dict[str, Any]:
    """The row of a size of a batch for which there is not enough memory."""
    return {
        "scenario": OFFLINE,
        "stage": END_TO_END,
        "name": name,
        "images": batch,
        "samples_s": [],
        "images_per_s": None,
        "oom": True,
        "reason": str(error).splitlines()[0],
    }
