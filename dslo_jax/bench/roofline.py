"""How near a solver comes to what the device can do: its work over the peaks."""

from typing import Literal, NamedTuple

from dslo_jax.bench.peaks import Peaks
from dslo_jax.cost import Work


Bound = Literal["compute", "transcendentals", "memory"]


class Roofline(NamedTuple):
    """A time against the least that the peaks allow.

    Attributes:
        seconds_at_peak: Of the resource that takes longest.
        fraction: Of the peak that was reached: 1 would be perfect.
        bound: That resource.
        bandwidth_of_bytes: The working set whose bandwidth was used.
    """

    seconds_at_peak: float
    fraction: float
    bound: Bound
    bandwidth_of_bytes: int


def roofline(work: Work, peaks: Peaks, seconds: float) -> Roofline:
    """Compare a time with the peaks.

    Args:
        work: Done in this time.
        peaks: Of the same device, measured in the same run.
        seconds: That it took.
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
    """At the peak of each resource, if nothing else took time."""
    bandwidth = peaks.bandwidth(work.working_set_bytes).bytes_per_s
    return {
        "compute": work.flops / peaks.flops_per_s,
        "transcendentals": work.transcendentals / peaks.transcendentals_per_s,
        "memory": work.bytes / bandwidth,
    }
