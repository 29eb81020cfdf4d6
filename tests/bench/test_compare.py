"""Ratios and their intervals, on samples whose answer is known."""

import numpy as np
import pytest

from dslo_jax.bench.compare import FEWEST, Ratio, paired_ratio, unpaired_ratio


RATIO = 1.2


def draw(rng, count, *, shared):
    """Times around 1 and ``RATIO``; rounds may slow both alike."""
    rounds = np.exp(rng.normal(0, shared, count))
    noise = np.exp(rng.normal(0, 0.05, (2, count)))
    return (RATIO * rounds * noise[0]).tolist(), (rounds * noise[1]).tolist()


@pytest.mark.parametrize("compare", [paired_ratio, unpaired_ratio])
def test_without_noise_there_is_nothing_to_doubt(compare):
    assert compare([3.0] * 9, [2.0] * 9) == Ratio(1.5, (1.5, 1.5), 9)
    assert compare([2.0] * 9, [2.0] * 9).verdict == "no difference"


@pytest.mark.parametrize("compare", [paired_ratio, unpaired_ratio])
def test_nineteen_of_twenty_intervals_hold_the_ratio(compare):
    rng = np.random.default_rng(0)
    ratios = [compare(*draw(rng, 25, shared=0.0)) for _ in range(200)]
    ends = np.asarray([ratio.interval for ratio in ratios])
    holds = np.mean((ends[:, 0] <= RATIO) & (ends[:, 1] >= RATIO))
    assert 0.91 <= holds <= 0.99  # three standard deviations are 0.046
    assert np.mean((ends[:, 0] <= 1.1) & (ends[:, 1] >= 1.1)) < 0.1
    assert {ratio.verdict for ratio in ratios} == {"slower"}


@pytest.mark.parametrize("compare", [paired_ratio, unpaired_ratio])
def test_equal_things_are_told_apart_once_in_twenty(compare):
    rng = np.random.default_rng(1)
    verdicts = []
    for _ in range(200):
        times, reference = draw(rng, 25, shared=0.0)
        verdicts.append(compare([t / RATIO for t in times], reference).verdict)
    assert 0.01 <= np.mean(np.asarray(verdicts) != "no difference") <= 0.09


def test_rounds_that_slow_both_widen_the_paired_interval_less():
    rng = np.random.default_rng(2)
    samples = [draw(rng, 25, shared=0.4) for _ in range(20)]
    widths = [
        np.mean([np.ptp(compare(*each).interval) for each in samples])
        for compare in (paired_ratio, unpaired_ratio)
    ]
    assert widths[0] < 0.6 * widths[1]


def test_of_few_samples_there_is_no_interval():
    found = paired_ratio([2.0] * (FEWEST - 1), [1.0] * 99)
    assert found == Ratio(2.0, None, FEWEST - 1)
    assert found.verdict == "too few samples"
    assert found.words == "2, too few samples"
    assert unpaired_ratio([2.0] * (FEWEST - 1), [1.0] * 99).interval is None


def test_rounds_that_only_one_took_part_in_are_left_out():
    assert paired_ratio([2.0] * 9 + [50.0] * 99, [1.0] * 9).value == 2.0


def test_numbers_of_samples_may_differ_between_two_runs():
    rng = np.random.default_rng(3)
    one, other = rng.normal(3, 0.01, 2000), rng.normal(2, 0.01, 40)
    found = unpaired_ratio(one.tolist(), other.tolist())
    assert found.interval[0] < 1.5 < found.interval[1]
    assert found.samples == 40
    assert found.verdict == "slower"
    assert found.plain()["interval"] == list(found.interval)


def test_the_same_samples_give_the_same_interval():
    samples = draw(np.random.default_rng(4), 25, shared=0.1)
    assert paired_ratio(*samples) == paired_ratio(*samples)
    assert paired_ratio(*samples) != paired_ratio(*samples, seed=1)
