import jax
import jax.numpy as jnp
import pytest

from dslo_jax.bench import timing


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only when somebody works."""

    class Clock:
        now = 0.0

        def work(self, seconds):
            self.now += seconds

    clock = Clock()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock.now)
    return clock


def test_calls_take_turns_after_a_first_call_and_a_warm_up(clock):
    order = []

    def call(name):
        order.append(name)
        clock.work({"a": 1.0, "b": 2.0}[name])
        return name

    calls = {"a": lambda: call("a"), "b": lambda: call("b")}
    found = timing.measure(calls, repeats=3)
    assert "".join(order) == "aabb" + "ab" * 3
    assert found["b"].result == "b"
    assert found["b"].samples_s == [2.0, 2.0, 2.0]
    assert found["b"].spread == 0


def test_what_exceeds_the_budget_is_called_once_and_others_stop_in_time(clock):
    calls = {"slow": lambda: clock.work(11.0), "fast": lambda: clock.work(4.0)}
    found = timing.measure(calls, repeats=9, budget=10.0)
    assert found["slow"].samples_s == [11.0]
    assert found["fast"].samples_s == [4.0, 4.0, 4.0]  # 12 s; after 8 one more began


def test_spread_is_the_median_distance_from_the_median():
    found = timing.Measurement(None, 9.0, [1.0, 2.0, 4.0])
    assert found.median_s == 2.0
    assert found.spread == 0.5
    assert found.row["first_call_s"] == 9.0


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


def test_shapes_are_enough_to_compile():
    shape = jax.ShapeDtypeStruct((1000, 1000), jnp.float32)
    program = timing.compile_ahead(lambda x: (x @ x) @ x, shape)
    assert program.temporary_bytes == pytest.approx(4e6, rel=0.1)
