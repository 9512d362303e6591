"""The collector of cycles while entries are read and applied."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from fungistor.catalog.collector import at_rest


@pytest.fixture(autouse=True)
def awake() -> Iterator[None]:
    gc.enable()
    yield
    gc.enable()


def test_it_rests_within_and_is_woken_however_that_ends() -> None:
    """It is awake again after the outermost of several, and after an error."""
    with at_rest():
        with at_rest():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ValueError, match="amid"), at_rest():
        raise ValueError("amid")
    assert gc.isenabled()


def test_a_process_that_has_it_at_rest_keeps_it_so() -> None:
    """Who disabled it for the whole process finds it disabled."""
    gc.disable()
    with at_rest():
        pass
    assert not gc.isenabled()


def test_those_that_overlap_leave_it_awake() -> None:
    """Whichever of two threads ends first, the collector is awake when both have ended."""
    for first, second in ((0, 1), (1, 0)):
        both = [at_rest(), at_rest()]
        for each in both:
            each.__enter__()
        both[first].__exit__(None, None, None)
        both[second].__exit__(None, None, None)
        assert gc.isenabled()
