"""The table of live keys against a dict, and what it costs."""

from __future__ import annotations

import random
import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st

from fungistor.zdb.daemon.keytable import Entry, KeyTable

_ENTRIES = st.tuples(*[st.integers(0, (1 << 32) - 1)] * 6)


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.binary(min_size=1, max_size=2), st.none() | _ENTRIES), max_size=200))
def test_the_table_is_a_dict(steps: list[tuple[bytes, Entry | None]]) -> None:
    """Whatever is put, replaced and removed, the table holds what a dict would hold."""
    table = KeyTable()
    model: dict[bytes, Entry] = {}
    for key, entry in steps:
        if entry is None:
            assert table.pop(key) == model.pop(key, None)
        else:
            table.put(key, entry)
            model[key] = entry
        assert table.get(key) == model.get(key)
        assert len(table) == len(model)
    assert dict(table.items()) == model
    assert set(table) == set(model)


def test_a_table_that_grew_and_split_forgets_nothing() -> None:
    """Through doublings and splits, with a third of all keys removed again, every key has its last entry."""
    rng = random.Random(5)
    table = KeyTable()
    model: dict[bytes, Entry] = {}
    for number in range(30_000):
        key = rng.randbytes(20)
        table.put(key, (number, 1, 2, 3, 4, 5))
        model[key] = (number, 1, 2, 3, 4, 5)
        if number % 3 == 0:
            gone = rng.choice((key, next(iter(model))))
            assert table.pop(gone) == model.pop(gone)
    assert dict(table.items()) == model
    for key in list(model):
        assert table.pop(key) == model.pop(key)
    assert (len(table), table.get(b"k" * 20)) == (0, None)


def test_a_key_costs_at_most_64_bytes() -> None:
    """Keys of 20 bytes cost at most 64 bytes each, key, entry and slots included, at any count."""
    rng = random.Random(7)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        table, worst = KeyTable(), 0.0
        for number in range(1, 40_001):
            table.put(rng.randbytes(20), (number,) * 6)
            if number > 10_000 and number % 500 == 0:
                worst = max(worst, (tracemalloc.get_traced_memory()[0] - before) / number)
    finally:
        tracemalloc.stop()
    assert worst <= 64
