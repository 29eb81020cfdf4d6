import threading
import time

import pytest

from dslo_jax.errors import ImageError, attempt
from dslo_jax.threads import batched, map_ahead


def test_order_is_kept_whoever_is_faster():
    def work(index):
        time.sleep(0.002 * (index % 3 == 0))
        return index

    assert list(map_ahead(work, range(20), threads=4, ahead=5)) == list(range(20))


def test_no_more_is_begun_than_was_asked_for():
    begun = []
    found = map_ahead(
        lambda i: begun.append(i) or i, iter(range(100)), threads=4, ahead=3
    )
    assert [next(found) for _ in range(4)] == [0, 1, 2, 3]
    found.close()
    assert len(begun) <= 4 + 3


def test_results_that_wait_stay_within_the_budget():
    waiting, most = [], 0

    def work(weight):
        waiting.append(weight)
        return weight

    for _ in map_ahead(
        work, [5] * 30, threads=2, ahead=10, weigh=lambda weight: weight, budget=20
    ):
        waiting.pop()
        time.sleep(0.002)
        most = max(most, len(waiting))
    assert 1 <= most <= 10
    assert len(waiting) == 0


def test_one_result_is_allowed_whatever_it_weighs():
    found = map_ahead(str, range(4), threads=1, ahead=3, weigh=lambda _: 9, budget=1)
    assert list(found) == ["0", "1", "2", "3"]


def test_no_thread_is_left_when_nobody_wants_more():
    closed = []

    def items():
        try:
            yield from range(50)
        finally:
            closed.append(True)

    before = threading.active_count()
    found = map_ahead(str, items(), threads=4, ahead=4)
    next(found)
    found.close()
    assert threading.active_count() == before
    assert closed == [True]


def test_an_error_comes_in_its_place():
    found = map_ahead(lambda index: 1 // (2 - index), range(4), threads=4, ahead=4)
    assert next(found) == 0
    assert next(found) == 1
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_windows_are_consecutive():
    assert list(batched(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(batched([], 2)) == []
    items = iter(range(9))
    assert next(batched(items, 3)) == [0, 1, 2]
    assert next(items) == 3  # no more is taken than the batch needs


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ImageError("I02", "no image"), "I02"),
        (PermissionError(13, "Permission denied"), "I03"),
        (MemoryError(), "D01"),
    ],
)
def test_errors_of_a_photo_become_values(error, code):
    def fail(_):
        raise error

    assert attempt(fail, 1).code == code


def test_what_is_no_error_of_a_photo_is_raised():
    with pytest.raises(ZeroDivisionError):
        attempt(lambda: 1 // 0)
