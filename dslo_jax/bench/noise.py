"""Reasons to doubt the figures of a run."""

from collections.abc import Mapping, Sequence
from typing import Any

from dslo_jax.bench.timing import ENOUGH


QUIET = 0.5  # mean number of other runnable processes above which times are noisy
_STOLEN = 0.01
_SPREAD = 0.05


def noise_of(
    machine: Mapping[str, Any],
    times: Mapping[str, Mapping[str, Any]],
    stolen: float | None = None,
) -> dict[str, str]:
    """List the reasons why these figures should not be published.

    Args:
        machine: From ``describe_machine``.
        times: ``Measurement.row`` of everything that was measured, by name.
        stolen: From ``stolen_since``.

    Returns:
        Reasons in words, by stable names: ``load``, ``stolen``, ``governor``,
        ``spread``, ``warm-up`` and ``quick``. An empty result proves nothing: other
        work on an accelerator, and its clocks, can be noticed by the spread only.
    """
    found = {}
    load = machine["load"] or 0
    if load > QUIET:
        found["load"] = f"load {load:.1f} at the start: other work makes times noisy"
    if stolen is not None and stolen > _STOLEN:
        found["stolen"] = f"the host gave {stolen:.0%} of the cores' time to others"
    governor = machine.get("governor")
    if governor not in (None, "performance"):
        found["governor"] = f"the clock of the processor is set to {governor!r}"
    wide = {name: row["spread"] for name, row in times.items()}
    wide = {name: spread for name, spread in wide.items() if spread > _SPREAD}
    if wide:
        worst = max(wide, key=wide.__getitem__)
        found["spread"] = (
            f"times spread by more than {_SPREAD:.0%} in {len(wide)} of {len(times)}, "
            f"up to {wide[worst]:.0%}: {worst}"
        )
    unsettled = [name for name, row in times.items() if not row["is_settled"]]
    if unsettled:
        found["warm-up"] = f"did not settle: {_some(unsettled, len(times))}"
    few = [name for name, row in times.items() if len(row["samples_s"]) < ENOUGH]
    if few:
        found["quick"] = (
            f"fewer than {ENOUGH} samples, not for publication: "
            f"{_some(few, len(times))}"
        )
    return found


def _some(names: Sequence[str], total: int) -> str:
    """The number of names, and the first of them."""
    if len(names) == total > 1:
        return f"all {total}"
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more}, of {total}"
