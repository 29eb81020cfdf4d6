"""How many devices and hours a number of photos takes, from measured or compiled costs.

Every figure of a plan has its origin: a row of a file, an option, or a product of
others.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dslo_jax.bench.compile.measure import SCHEMA as COMPILE
from dslo_jax.bench.compile.report import whole_image
from dslo_jax.bench.compile.stages import SOLVER, Size
from dslo_jax.bench.pipeline.result import SCHEMA as PIPELINE, words_of_setting
from dslo_jax.bench.pipeline.scenarios import OFFLINE, SINGLE
from dslo_jax.bench.pipeline.subjects import OURS
from dslo_jax.errors import OptionError
from dslo_jax.files import parse_json


# What reading values raises where they are others than those of --save.
_DAMAGE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


class Cost(NamedTuple):
    """The time that one device takes for one photo.

    Attributes:
        device: Kind of the device, as the file names it.
        seconds: Seconds for a photo.
        is_measured: Whether it was measured; else it was estimated by a compiler.
        origin: File and row, in words.
    """

    device: str
    seconds: float
    is_measured: bool
    origin: str


class Figure(NamedTuple):
    """A figure of a plan.

    Attributes:
        name: What it is.
        value: The number.
        unit: Its unit.
        origin: Where it comes from, in words.
    """

    name: str
    value: float
    unit: str
    origin: str


class Assumptions(NamedTuple):
    """What a plan assumes; all of it is printed.

    Attributes:
        utilisation: Share of the time in which devices work, in (0, 1].
        input_bytes: Bytes of a photo as it is stored.
        output_bytes: Bytes of the results of a photo.
        input_remote: Share of the photos that come over the network, in [0, 1].
        output_remote: Share of the results that leave over the network, in [0, 1].
    """

    utilisation: float
    input_bytes: float
    output_bytes: float
    input_remote: float
    output_remote: float


def read_costs(path: Path, mode: str) -> list[Cost]:
    """Read the costs of a photo from a result file.

    Args:
        path: A file of ``dslo bench pipeline --save`` or ``dslo bench compile --save``.
        mode: Name of the discrepancy.

    Returns:
        The best size of a batch of every device and setting in the file.

    Raises:
        OptionError: The file cannot be read, or has another schema (``O04``).
    """
    try:
        content = parse_json(path.read_bytes())
        schema = content.get("schema") if isinstance(content, dict) else None
        if schema == PIPELINE:
            return list(_measured(path, content, mode))
        if schema == COMPILE:
            return list(_compiled(path, content, mode))
    except (OSError, *_DAMAGE) as error:
        raise OptionError(
            "O04", f"{str(path)!r} cannot be read or is damaged: {error!r}"
        ) from error
    raise OptionError(
        "O04",
        f"{str(path)!r} is of schema {schema!r}; expected a file of `dslo bench "
        "pipeline --save` or `dslo bench compile --save`",
    )


def choose_cost(costs: Sequence[Cost], device: str) -> Cost:
    """Choose the cost for a device: a measured one before an estimated one, the least.

    Args:
        costs: From ``read_costs``.
        device: A part of the name of the device, in any case.

    Raises:
        OptionError: There is no such device in the files (``O05``).
    """
    fitting = [cost for cost in costs if device.lower() in cost.device.lower()]
    if not fitting:
        known = ", ".join(dict.fromkeys(cost.device for cost in costs)) or "none"
        raise OptionError(
            "O05",
            f"no cost of a photo on {device!r}; the files have: {known}. Pass a file "
            "that was measured or compiled for it with --result",
        )
    return min(fitting, key=lambda cost: (not cost.is_measured, cost.seconds))


def make_plan(
    images: float,
    cost: Cost,
    assumed: Assumptions,
    *,
    devices: int | None = None,
    hours: float | None = None,
) -> list[Figure]:
    """The figures of a plan, each with its origin.

    Args:
        images: Number of photos.
        cost: The cost of a photo.
        assumed: The assumptions.
        devices: Number of devices; the hours follow.
        hours: Hours until the end; the devices follow, rounded up.

    Raises:
        ValueError: Neither or both of ``devices`` and ``hours`` are given.
    """
    if (devices is None) == (hours is None):
        raise ValueError("give `devices` or `hours`")
    device_hours = images * cost.seconds / assumed.utilisation / 3600
    if devices is None:
        # Rounded first: 5.000000001 devices are five.
        count = max(1, math.ceil(round(device_hours / (hours or 1), 6)))
        count_origin = "device-hours / hours asked for, rounded up"
    else:
        count, count_origin = devices, "asked for"
    lasting = device_hours / count
    incoming = images * assumed.input_bytes
    outgoing = images * assumed.output_bytes
    remote_in = incoming * assumed.input_remote
    remote_out = outgoing * assumed.output_remote
    rate = images / (lasting * 3600)
    return [
        Figure("photos", images, "", "asked for"),
        Figure("time of a photo on one device", 1e3 * cost.seconds, "ms", cost.origin),
        Figure("utilisation", assumed.utilisation, "", "assumed: --utilisation"),
        Figure(
            "device-hours",
            device_hours,
            "h",
            "photos x time of a photo / utilisation / 3600",
        ),
        Figure("devices", count, "", count_origin),
        Figure("hours", lasting, "h", "device-hours / devices"),
        Figure("rate of all devices", rate, "photos/s", "photos / hours / 3600"),
        Figure("stored photo", assumed.input_bytes, "B", "assumed: --input-bytes"),
        Figure("stored result", assumed.output_bytes, "B", "assumed: --output-bytes"),
        Figure("input", incoming, "B", "photos x stored photo"),
        Figure("output", outgoing, "B", "photos x stored result"),
        Figure(
            "input over the network",
            remote_in,
            "B",
            f"input x {assumed.input_remote:g}, assumed: --input-remote",
        ),
        Figure(
            "output over the network (egress)",
            remote_out,
            "B",
            f"output x {assumed.output_remote:g}, assumed: --output-remote",
        ),
        Figure(
            "network",
            (remote_in + remote_out) / (lasting * 3600),
            "B/s",
            "both over the network / hours / 3600",
        ),
    ]


def _measured(path: Path, content: Mapping[str, Any], mode: str) -> Iterator[Cost]:
    """The best rate of each setting in a file of ``dslo bench pipeline``."""
    device = content["machine"]["device"]
    kind = device["kind"]
    name = (
        kind if device["platform"] in kind.lower() else f"{device['platform']} {kind}"
    )
    best: dict[str, Mapping[str, Any]] = {}
    for row in content["rows"]:
        is_ours = row["scenario"] in (OFFLINE, SINGLE) and row["name"] == OURS
        if not is_ours or row["oom"] or row["mode"] != mode:
            continue
        setting = words_of_setting(row)
        known = best.get(setting)
        if known is None or row["images_per_s"] > known["images_per_s"]:
            best[setting] = row
    for setting, row in best.items():
        quick = ", quick" if content.get("quick") else ""
        yield Cost(
            name,
            _seconds(1 / row["images_per_s"]),
            True,
            f"measured: {path.name}, {row['scenario']}, {setting}, "
            f"batch {row['images']}, {row['images_per_s']:.4g} photos/s{quick}",
        )


def _compiled(path: Path, content: Mapping[str, Any], mode: str) -> Iterator[Cost]:
    """Every size of a file of ``dslo bench compile`` that has all stages."""
    rows = [row for row in content["rows"] if not row["failed"]]
    dtypes = {row["dtype"] for row in rows if row["stage"] == "unet"}
    sizes = {
        (row["target"], row["devices"], row["patches"], row["classes"], row["batch"])
        for row in rows
        if row["stage"] == SOLVER + mode
    }
    for place, dtype in itertools.product(sorted(sizes), sorted(dtypes)):
        target, devices, patches, classes, batch = place
        size = Size(patches, classes, batch, dtype)
        found = whole_image(rows, target, size, mode, devices)
        if found is not None:
            yield Cost(
                target,
                _seconds(found / 1e3 * devices),
                False,
                f"estimated by the compiler: {path.name}, sum of all stages, {mode}, "
                f"{dtype}, {size.patches} patches, {size.classes} classes, "
                f"batch {size.batch}",
            )


def _seconds(value: float) -> float:
    if not 0 < value < math.inf:
        raise ValueError(f"a photo takes {value} s")
    return value
