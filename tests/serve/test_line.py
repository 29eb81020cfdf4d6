"""The line, the store, and the texts that are made safe."""

import threading
import time
from pathlib import Path

import pytest

from dslo_jax.errors import ImageError, RequestError
from dslo_jax.serve.line import Done, Failed, Line, Running, Waiting
from dslo_jax.serve.secrecy import redacted
from dslo_jax.serve.store import Store


@pytest.fixture
def line():
    line = Line("test", most=3)
    yield line
    line.close()


class Gate:
    """A task that runs until it may end."""

    def __init__(self):
        self.began, self.may_end = threading.Event(), threading.Event()

    def __call__(self, announce):
        self.began.set()
        assert self.may_end.wait(10)
        announce("second", False)
        return "gate"


def wait_until(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_tasks_wait_for_their_turn_and_are_told_their_place(line):
    gate, told = Gate(), {name: [] for name in "abcd"}
    line.join(gate, told["a"].append)
    assert gate.began.wait(10)
    tasks = [line.join(lambda _: 1, told[name].append) for name in "bcd"]
    assert [told[name][-1] for name in "bcd"] == [Waiting(1), Waiting(2), Waiting(3)]
    with pytest.raises(RequestError, match=r"V05.*3 tasks wait.*try again in 1 s"):
        line.join(lambda _: 1, print)
    line.cancel(tasks[1])
    assert told["d"][-1] == Waiting(2)
    gate.may_end.set()
    wait_until(lambda: told["d"][-1] == Done(1))
    assert told["a"] == [Running("second", False), Done("gate")]
    assert told["b"][-1] == Done(1)
    assert told["c"] == [Waiting(2)]  # it was cancelled


def test_a_cancelled_task_ends_before_its_next_stage(line):
    gate, told = Gate(), []
    task = line.join(gate, told.append)
    assert gate.began.wait(10)
    line.cancel(task)
    gate.may_end.set()
    wait_until(lambda: line.is_idle)
    assert told == []


def test_errors_are_told_and_the_line_goes_on(line, caplog):
    def refuse(_):
        raise ImageError("I02", "no image")

    def break_down(_):
        raise KeyError(str(Path.home() / "secret"))

    def overflow(_):
        raise MemoryError

    told = []
    for work in (refuse, break_down, overflow):
        line.join(work, told.append)
        wait_until(lambda: line.is_idle)
    assert [type(each) for each in told] == [Failed] * 3
    assert [each.error.code for each in told] == ["I02", "V08", "D01"]
    assert "KeyError" in caplog.text
    assert str(Path.home()) not in caplog.text


def test_spare_work_is_done_when_nobody_waits(line):
    done, gate = [], Gate()
    line.join(gate, lambda event: None)
    assert gate.began.wait(10)
    line.when_idle(lambda _: done.append("spare"))
    line.join(lambda _: done.append("asked"), lambda event: None)
    gate.may_end.set()
    wait_until(lambda: len(done) == 2)
    assert done == ["asked", "spare"]


def test_a_store_forgets_what_was_used_longest_ago():
    store = Store(most=3, most_bytes=10)
    names = [store.add(each, 3) for each in "abc"]
    assert store.find(names[0]) == "a"
    last = store.add("d", 3)
    assert [store.find(name) for name in (*names, last)] == ["a", None, "c", "d"]
    store.add("large", 9)
    assert store.things() == ["large"]
    assert store.num_bytes == 9
    assert len({store.add(0, 0) for _ in range(100)}) == 100
    assert {len(name) for name in names} == {16}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{Path.home()}/models/x", "~/models/x"),
        ("token hf_AbCdEfGhIjKlMnOpQrStUv is bad", "token hf_... is bad"),
        ("ghp_0123456789abcdefABCDEF", "ghp_..."),
        ("a sheep in the sk_y", "a sheep in the sk_y"),
    ],
)
def test_texts_hold_no_tokens_and_no_folders_of_this_machine(text, expected):
    assert redacted(text) == expected
