"""One pipeline in a process of its own: its start, its memory, its speed.

``python -m dslo_jax.bench.pipeline.child JOB`` runs a ``Job`` that is given as JSON,
and prints the outcome as JSON on the last line. In a process of its own, the peak of
the memory is that of this pipeline alone, loading and compiling begin from nothing, and
the number of devices can be chosen.
"""

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dslo_jax.bench.memory import device_peak, host_bytes, host_peak, reset_host_peak
from dslo_jax.bench.pipeline.photos import choose_classes, draw_photos, read_photos
from dslo_jax.bench.pipeline.subjects import (
    OURS,
    Photos,
    Subject,
    load_torch,
    our_subject,
    run_stages,
    torch_subject,
)
from dslo_jax.bench.timing import Effort, interleave
from dslo_jax.errors import DeviceError, DsloError
from dslo_jax.pairs import find_pair
from dslo_jax.prompts import ClassList
from dslo_jax.segmenter import Segmenter


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a child does.

    Args:
        name: ``OURS`` or ``TORCH``.
        model: As for ``dslo segment``.
        device: As for ``dslo segment``.
        precision: Precision of the networks.
        options: Options of the method by their flat names.
        classes: Number of classes.
        photos: Photos, folders or patterns; empty to draw some.
        size: Height and width of drawn photos.
        batch: Photos at once on the device.
        calls: Batches of a timed call.
        repeats: Number of timed calls.
        seconds: Least time of the timed calls.
        devices: Number of devices; ``None`` for the one of ``device``.
        compiled: Whether PyTorch compiles its networks.
    """

    name: str = OURS
    model: str
    device: str = "auto"
    precision: str
    options: dict[str, Any] = field(default_factory=dict)
    classes: int = 8
    photos: tuple[str, ...] = ()
    size: tuple[int, int] = (512, 512)
    batch: int = 1
    calls: int = 1
    repeats: int = 2
    seconds: float = 0.0
    devices: int | None = None
    compiled: bool = False


def run_child(job: Job, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run a job in a process of its own.

    Args:
        job: What to do.
        environment: Variables that differ from those of this process.

    Returns:
        The outcome as plain values; see ``_outcome``.

    Raises:
        DsloError: The child ended with an error that has a code.
        DeviceError: The child was killed, for which there is usually too little memory
            (``D01``).
        RuntimeError: The child ended with another error.
    """
    command = [sys.executable, "-m", __name__, json.dumps(dataclasses.asdict(job))]
    done = subprocess.run(
        command,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
    )
    lines = done.stdout.splitlines()
    if done.returncode < 0:
        raise DeviceError(
            "D01",
            f"a process that measured {job.name} was killed (signal "
            f"{-done.returncode}), probably because memory ended; use a smaller batch "
            "or half precision",
        )
    if done.returncode or not lines:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
    found = json.loads(lines[-1])
    if "error" in found:
        kinds = {kind.__name__: kind for kind in DsloError.__subclasses__()}
        raise kinds[found["kind"]](found["code"], found["error"])
    return found


def _outcome(job: Job) -> dict[str, Any]:
    """Run a job in this process.

    Returns:
        ``load_s``, ``first_call_s`` (with compilation), ``compile_s`` by stage,
        ``samples_s`` of the further calls, ``photos_per_call``, and ``memory`` in
        bytes: ``loaded_bytes`` after loading, ``load_peak_bytes``, ``run_peak_bytes``
        from the first call on, ``device_peak_bytes``.
    """
    classes = choose_classes(job.classes)
    count = max(job.batch, 2)
    photos = (
        read_photos(job.photos, count) if job.photos else draw_photos(count, job.size)
    )
    given = [photos[number % len(photos)] for number in range(job.batch * job.calls)]
    reset_host_peak()
    subject, first, load_s, device = _load(job, classes)
    memory = {"loaded_bytes": host_bytes(), "load_peak_bytes": host_peak()}
    reset_host_peak()
    start = time.perf_counter()
    compiling = first(given[: job.batch])
    first_call_s = time.perf_counter() - start
    samples = interleave(
        {job.name: lambda: subject.segment(given, job.batch)},
        Effort(job.repeats, job.seconds, float("inf")),
    )[job.name]
    return {
        "name": job.name,
        "images": job.batch,
        "devices": job.devices or 1,
        "load_s": load_s,
        "first_call_s": first_call_s,
        "compile_s": compiling,
        "samples_s": samples,
        "photos_per_call": len(given),
        "images_per_s": len(given) * len(samples) / sum(samples),
        "memory": {
            **memory,
            "run_peak_bytes": host_peak(),
            "device_peak_bytes": None if device is None else device_peak(device),
        },
    }


def _load(
    job: Job, classes: ClassList
) -> tuple[Subject, Callable[[Photos], dict[str, float] | None], float, Any]:
    """Load a pipeline.

    Returns:
        The subject; a function that segments a batch for the first time and returns the
        seconds of compilation by stage; the seconds of loading; a device of JAX.
    """
    start = time.perf_counter()
    config = find_pair(job.model).config.with_options(**_options_of(job.options))
    if job.name == OURS:
        more: dict[str, Any] = {}
        if job.devices is not None:
            more["devices"] = job.devices
        segmenter = Segmenter.from_pretrained(
            job.model, config=config, dtype=job.precision, device=job.device, **more
        )
        networks, config = segmenter.networks, segmenter.config
        subject = our_subject(networks, config, classes)
        return (
            subject,
            lambda photos: (
                run_stages(networks, config, classes, photos).compile_seconds
            ),
            time.perf_counter() - start,
            networks.device,
        )
    place = job.device.partition(":")[0]
    loaded = load_torch(job.model, precision=job.precision, device=place)
    load_s = time.perf_counter() - start
    subject = torch_subject(loaded, config, classes, compiled=job.compiled)

    def first(photos: Photos) -> None:
        subject.segment(photos, job.batch)

    return subject, first, load_s, None


def _options_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options after JSON, which knows lists but no tuples."""

    def tuples(value: Any) -> Any:
        return tuple(map(tuples, value)) if isinstance(value, list) else value

    return {name: tuples(value) for name, value in options.items()}


def main() -> None:
    """Run the job of the command line, and print its outcome."""
    given = json.loads(sys.argv[1])
    for name in ("photos", "size"):
        given[name] = tuple(given[name])
    try:
        outcome = _outcome(Job(**given))
    except DsloError as error:
        outcome = {
            "kind": type(error).__name__,
            "code": error.code,
            "error": str(error).removeprefix(f"[{error.code}] "),
        }
    sys.stdout.write("\n" + json.dumps(outcome) + "\n")


if __name__ == "__main__":
    main()
