from __future__ import annotations

from fungistor.cache.memory import ENTRY_BYTES, MemoryCache

BLOCK = 1000
ROOM_FOR_10 = 10 * (BLOCK + ENTRY_BYTES)


def test_it_is_bounded_in_bytes() -> None:
    """Whatever is put in, it never holds more bytes than its bound."""
    cache = MemoryCache(ROOM_FOR_10)
    for number in range(200):
        cache.put(b"%d" % number, bytes(BLOCK - number % 7))
        cache.get(b"%d" % (number // 2))
        assert cache.held_bytes <= ROOM_FOR_10


def test_one_pass_does_not_drive_out_what_is_used() -> None:
    """A block that was asked for twice outlasts a hundred that were asked for once."""
    cache = MemoryCache(ROOM_FOR_10)
    cache.put(b"used", bytes(BLOCK))
    assert cache.get(b"used") is not None
    for number in range(100):
        cache.put(b"%d" % number, bytes(BLOCK))
    assert cache.get(b"used") == bytes(BLOCK)
    assert cache.get(b"0") is None


def test_tiny_blocks_are_not_free() -> None:
    """A million empty blocks count with what their entries cost."""
    cache = MemoryCache(100 * ENTRY_BYTES)
    for number in range(1000):
        cache.put(b"%d" % number, b"")
    assert sum(b"%d" % number in cache for number in range(1000)) <= 100


def test_a_block_too_long_for_it_is_not_taken() -> None:
    """One block may not drive out everything."""
    cache = MemoryCache(1000)
    cache.put(b"long", bytes(900))
    assert cache.get(b"long") is None
    assert (cache.hits, cache.misses) == (0, 1)
