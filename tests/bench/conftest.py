"""A clock for the tests of times."""

import time

import pytest


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only when somebody works or sleeps."""

    class Clock:
        now = 0.0

        def work(self, seconds):
            self.now += seconds

    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(time, "sleep", clock.work)
    return clock
