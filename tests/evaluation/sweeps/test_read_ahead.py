import threading
import time

import pytest

from dslo_jax.errors import ImageError
from dslo_jax.evaluation.sweeps.read_ahead import read_ahead


def test_order_is_kept_whoever_is_faster():
    def read(index):
        time.sleep(0.002 * (index % 3 == 0))
        return index

    assert list(read_ahead(read, range(20), ahead=5)) == list(range(20))


def test_no_more_is_read_than_was_asked_for():
    begun = []
    found = read_ahead(lambda i: begun.append(i) or i, iter(range(100)), ahead=3)
    assert [next(found) for _ in range(4)] == [0, 1, 2, 3]
    found.close()
    assert len(begun) <= 4 + 3


def test_errors_come_in_their_place():
    def read(index):
        if index == 1:
            raise ImageError("I03", "damaged")
        if index == 2:
            raise PermissionError(13, "Permission denied")
        return index

    first, second, third, fourth = read_ahead(read, range(4), ahead=2)
    assert (first, fourth) == (0, 3)
    assert (second.code, third.code) == ("I03", "I03")
    assert "Permission denied" in str(third)


def test_no_thread_is_left_when_nobody_wants_more():
    before = threading.active_count()
    found = read_ahead(lambda index: index, range(50), ahead=4)
    next(found)
    found.close()
    assert threading.active_count() == before


def test_what_is_no_error_of_a_photo_is_raised():
    with pytest.raises(ZeroDivisionError):
        list(read_ahead(lambda index: 1 // index, range(3), ahead=2))
