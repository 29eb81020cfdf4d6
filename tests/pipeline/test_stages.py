"""Stages announce when they begin, and whether they compile first."""

import jax.numpy as jnp
import pytest

from dslo_jax.errors import DeviceError
from dslo_jax.pipeline.stages import Clock, Stage, listen


def test_a_listener_hears_the_stages_of_every_clock():
    double = Stage("double", lambda array: array * 2)
    one, two = jnp.ones(1), jnp.ones(2)
    told, heard = [], []
    double(Clock(lambda *each: told.append(each)), one)
    with listen(lambda *each: heard.append(each)):
        double(Clock(lambda *each: told.append(each)), one)
        double(Clock(), two)
        double(Clock(), two)
    double(Clock(), jnp.ones(3))
    assert heard == [("double", False), ("double", True), ("double", False)]
    assert told == [("double", True), ("double", False)]


def test_a_listener_is_gone_after_a_failure():
    double, heard = Stage("double", lambda array: array * 2), []

    def fail():
        with listen(lambda *each: heard.append(each)):
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    double(Clock(), jnp.ones(1))
    assert not heard


def test_too_little_memory_is_told_with_the_amount_and_a_remedy():
    def grow(x):
        return jnp.cumsum(jnp.broadcast_to(x, (2**43,)))

    with pytest.raises(DeviceError, match=r"D01.*'labels' needs about \d+") as caught:
        Stage("labels", grow)(Clock(), jnp.float32(1))
    assert "a smaller photo" in str(caught.value)
