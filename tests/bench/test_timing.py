import itertools

import jax
import jax.numpy as jnp
import pytest

from dslo_jax.bench import Effort, timing


def test_calls_take_turns_after_a_first_call_and_those_that_warm_up(clock):
    order = []

    def call(name):
        order.append(name)
        clock.work({"a": 1 / 64, "b": 3.0}[name])
        return name

    calls = {"a": lambda: call("a"), "b": lambda: call("b")}
    found = timing.measure(calls, Effort(repeats=3, seconds=0))
    rounds = "ab" + 2 * ("aa" + "ab")  # 30 ms after a rest do not count
    assert "".join(order) == "a" + 5 * "a" + "b" + "b" + rounds
    assert found["b"].result == "b"
    assert found["b"].samples_s == [3.0, 3.0, 3.0]
    assert found["b"].spread == 0
    assert [found[name].warm_ups for name in "ab"] == [5, 1]
    assert [found[name].is_settled for name in "ab"] == [True, False]


def test_results_are_kept_after_the_time_was_taken(clock):
    kept = []

    def keep(name, result):
        kept.append((name, result))
        clock.work(100.0)

    numbers = itertools.count()

    def call():
        clock.work(1.0)
        return next(numbers)

    found = timing.measure({"a": call}, Effort(repeats=2, seconds=0), keep)["a"]
    assert found.samples_s == [1.0, 1.0]
    first, *warm = range(1 + found.warm_ups)
    assert kept == [("a", first), ("a", warm[-1] + 1), ("a", warm[-1] + 2)]


def test_warming_up_ends_when_five_in_a_row_take_the_same(clock):
    seconds = iter([0.9, 0.1, 0.5, 0.1, 0.1, 0.1, 0.102, 0.103, 0.1])
    assert timing.warm_up(lambda: clock.work(next(seconds))) == (8, True)


def test_warming_up_of_what_never_settles_ends_too(clock):
    seconds = itertools.cycle([0.1, 0.104])
    count, is_settled = timing.warm_up(lambda: clock.work(next(seconds)))
    assert not is_settled
    assert count == 20  # 2 s


def test_what_exceeds_the_budget_is_called_once_and_others_stop_in_time(clock):
    calls = {"slow": lambda: clock.work(11.0), "fast": lambda: clock.work(4.0)}
    found = timing.measure(calls, Effort(repeats=9, seconds=0, budget=10.0))
    assert found["slow"].samples_s == [11.0]
    assert found["slow"].warm_ups == 0
    assert found["fast"].samples_s == [4.0, 4.0, 4.0]  # 12 s; after 8 one more began


def test_rounds_go_on_for_a_while(clock):
    calls = {"a": lambda: clock.work(0.5), "b": lambda: clock.work(1.5)}
    found = timing.interleave(calls, Effort(repeats=2, seconds=9.0))
    assert [len(samples) for samples in found.values()] == [5, 5]
    found = timing.interleave(calls, Effort(repeats=2, seconds=9.0, budget=1.0))
    assert [len(samples) for samples in found.values()] == [3, 1]


def test_spread_is_the_median_distance_from_the_median():
    found = timing.Measurement(None, 9.0, 5, True, [1.0, 2.0, 4.0])
    assert found.median_s == 2.0
    assert found.spread == 0.5
    assert found.row["first_call_s"] == 9.0
    assert found.row["statistics"]["mad"] == 1.0


def test_a_summary_of_samples():
    found = timing.summary([float(number) for number in range(1, 12)])
    assert found == {
        **{"n": 11, "min": 1.0, "p50": 6.0, "p90": 10.0, "p99": None},
        **{"mad": 3.0, "max": 11.0},
    }
    assert timing.summary([1.0] * 499)["p99"] is None
    assert timing.summary([1.0] * 490 + [2.0] * 10)["p99"] == 2.0


def test_a_program_is_compiled_before_it_is_called():
    traced = []

    def function(x):
        traced.append(x.shape)
        return x @ x

    program = timing.compile_ahead(function, jnp.eye(8))
    assert traced == [(8, 8)]
    assert program.call().shape == (8, 8)
    assert len(traced) == 1
    assert program.compile_s > 0
    assert program.temporary_bytes is not None
    assert program.counts is not None
    assert program.counts.flops == 2 * 8**3


def test_shapes_are_enough_to_compile():
    shape = jax.ShapeDtypeStruct((1000, 1000), jnp.float32)
    program = timing.compile_ahead(lambda x: (x @ x) @ x, shape)
    assert program.temporary_bytes == pytest.approx(4e6, rel=0.1)
