"""The time of a solver compared with the time at the peak rates of the device."""

from typing import Literal, NamedTuple

from dslo_jax.bench.peaks import Peaks
from dslo_jax.cost import Work


Bound = Literal["compute", "transcendentals", "memory"]


class Roofline(NamedTuple):
    """A time compared with the least time that the peaks allow.

    Attributes:
        seconds_at_peak: Least time of the resource that takes longest.
        fraction: Share of the peak that was reached; 1 is perfect.
        bound: The resource that takes longest.
        bandwidth_of_bytes: Working set whose bandwidth was used, in bytes.
    """

    seconds_at_peak: float
    fraction: float
    bound: Bound
    bandwidth_of_bytes: int


def roofline(work: Work, peaks: Peaks, seconds: float) -> Roofline:
    """Compare a time with the peaks.

    Args:
        work: Computation that was timed.
        peaks: Peaks of the same device, measured in the same run.
        seconds: Measured time.
    """
    times = _seconds(work, peaks)
    bound = max(times, key=times.__getitem__)
    return Roofline(
        times[bound],
        times[bound] / seconds,
        bound,
        peaks.bandwidth(work.working_set_bytes).working_set_bytes,
    )


def _seconds(work: Work, peaks: Peaks) -> dict[Bound, float]:
    """Time of each resource at its peak."""
    bandwidth = peaks.bandwidth(work.working_set_bytes).bytes_per_s
    return {
        "compute": work.flops / peaks.flops_per_s,
        "transcendentals": work.transcendentals / peaks.transcendentals_per_s,
        "memory": work.bytes / bandwidth,
    }
