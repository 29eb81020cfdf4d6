"""What makes the figures of a run doubtful, told with the figures."""

from collections.abc import Mapping, Sequence
from typing import Any

from dslo_jax.bench.timing import ENOUGH


QUIET = 0.5  # a mean of more processes that want to run makes times noisy
_STOLEN = 0.01
_SPREAD = 0.05


def noise_of(
    machine: Mapping[str, Any],
    times: Mapping[str, Mapping[str, Any]],
    stolen: float | None = None,
) -> dict[str, str]:
    """Why these figures are not for publication, as far as a run can tell.

    Args:
        machine: From ``describe_machine``.
        times: ``Measurement.row`` of whatever was measured, by what to call it.
        stolen: From ``stolen_since``.

    Returns:
        Reasons in words, by a name that stays: ``load``, ``stolen``, ``governor``,
        ``spread``, ``warm-up`` and ``quick``. Empty if nothing was noticed, which
        proves nothing: of other work on an accelerator and of its clocks a run knows
        only what the spread shows.
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
    """How many, and the first of them."""
    if len(names) == total > 1:
        return f"all {total}"
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more}, of {total}"
