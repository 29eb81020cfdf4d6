"""The ratio of two times, and its confidence interval.

The interval is a percentile bootstrap: samples are drawn again with replacement, and
the ratio of medians is computed for each draw. It contains only the noise within the
samples, not noise that lasts longer than a few samples, and not the difference between
two days.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float


CONFIDENCE = 0.95
FEWEST = 6  # samples; five are on one side of the true median with 6 % probability
_RESAMPLES = 2000
_AT_ONCE = 1_000_000  # samples drawn at a time

Verdict = Literal["slower", "faster", "no difference", "too few samples"]


class Ratio(NamedTuple):
    """The median of times, divided by the median of a reference.

    Attributes:
        value: The ratio; above 1 if the times are longer.
        interval: Ends of the interval; ``None`` for fewer than ``FEWEST`` samples.
        samples: Number of samples of each; the smaller one if they differ.
    """

    value: float
    interval: tuple[float, float] | None
    samples: int

    @property
    def verdict(self) -> Verdict:
        """Comparison of the times with the reference, in words."""
        if self.interval is None:
            return "too few samples"
        low, high = self.interval
        if low > 1:
            return "slower"
        return "faster" if high < 1 else "no difference"

    @property
    def ends(self) -> str:
        """The interval in words; empty if there is none."""
        return (
            "" if self.interval is None else "{:.3g} to {:.3g}".format(*self.interval)
        )

    @property
    def words(self) -> str:
        """The ratio in words, such as ``2.1 (2 to 2.3), slower``."""
        ends = self.ends and f" ({self.ends})"
        return f"{self.value:.3g}{ends}, {self.verdict}"

    def plain(self) -> dict[str, Any]:
        """The ratio as plain values, for result files."""
        return {
            "ratio": self.value,
            "interval": None if self.interval is None else list(self.interval),
            "samples": self.samples,
            "verdict": self.verdict,
        }


def paired_ratio(
    times: Sequence[float], reference: Sequence[float], *, seed: int = 0
) -> Ratio:
    """Compare calls that were timed in turn.

    The bootstrap draws rounds with both times, so that noise that slowed both cancels.
    Rounds with only one of the times are left out.

    Args:
        times: Time in each round, in order; at least one, positive.
        reference: Times of the reference in the same rounds.
        seed: Seed of the draws.
    """
    rounds = min(len(times), len(reference))
    pairs = np.asarray([times[:rounds], reference[:rounds]], np.float64)
    drawn = _medians(np.random.default_rng(seed), pairs)
    return _ratio(np.median(pairs, axis=1), drawn, rounds)


def unpaired_ratio(
    times: Sequence[float], reference: Sequence[float], *, seed: int = 0
) -> Ratio:
    """Compare samples that were not taken in turn: two runs, or two machines.

    Args:
        times: At least one time, positive.
        reference: Times of the reference, of any number.
        seed: Seed of the draws.
    """
    rng = np.random.default_rng(seed)
    both = [np.asarray([samples], np.float64) for samples in (times, reference)]
    drawn = np.concatenate([_medians(rng, samples) for samples in both])
    medians = np.asarray([np.median(samples) for samples in both])
    return _ratio(medians, drawn, min(len(times), len(reference)))


def _medians(
    rng: np.random.Generator, samples: Float[np.ndarray, "kinds samples"]
) -> Float[np.ndarray, "kinds resamples"]:
    """Medians of samples that are drawn again, the same draws for all kinds."""
    count = samples.shape[1]
    at_once = max(1, _AT_ONCE // count)
    parts = [
        np.median(samples[:, rng.integers(0, count, (size, count))], axis=2)
        for size in _sizes(_RESAMPLES, at_once)
    ]
    return np.concatenate(parts, axis=1)


def _sizes(total: int, at_once: int) -> list[int]:
    """Divide ``total`` into parts of ``at_once`` and a rest."""
    full, rest = divmod(total, at_once)
    return [at_once] * full + [rest] * (rest > 0)


def _ratio(
    medians: Float[np.ndarray, " 2"],
    drawn: Float[np.ndarray, "2 resamples"],
    samples: int,
) -> Ratio:
    value = float(medians[0] / medians[1])
    if samples < FEWEST:
        return Ratio(value, None, samples)
    outside = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn[0] / drawn[1], (outside, 1 - outside))
    return Ratio(value, (float(low), float(high)), samples)
