"""Reed-Solomon over GF(256): zfec's matrix is the definition, ISA-L's multiplication the engine.

Both use the field 0x11D, so ISA-L fed with zfec's coefficients gives zfec's bytes, bit for bit; a property test
holds them equal. zfec runs at 0.3-0.4 GB/s and holds the GIL; ISA-L through ctypes runs at 5-7 GB/s and does not.
Where no ISA-L is found, or it fails its self-test, zfec does the work: slower, the same bytes.

Row i of the matrix does not depend on how many rows there are, so extra parities up to index 254 can be minted
long after a stripe was written.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import zfec

from fungistor.coding.buffers import Buffer, Pins
from fungistor.limits import SHARD_INDEX_MAX

SHARDS_MAX = SHARD_INDEX_MAX + 1

# A table of 16 x 4 coefficients is 2 KiB (32 bytes a coefficient): this many patterns stay below 3 MiB.
_PATTERNS_CACHED = 1024
_MATRICES_CACHED = 64


class Engine(Protocol):
    """What multiplies. `rows` are shard indices to produce from the shards `sources`."""

    name: str

    def multiply(
        self, k: int, sources: tuple[int, ...], rows: tuple[int, ...], have: Sequence[Buffer], out: Sequence[memoryview]
    ) -> None:
        """Write shard rows[i] into out[i], from the k shards have[j] of index sources[j]."""


@lru_cache(maxsize=_MATRICES_CACHED)
def _encoder(k: int) -> zfec.Encoder:
    return zfec.Encoder(k, SHARDS_MAX)


@lru_cache(maxsize=_MATRICES_CACHED)
def matrix(k: int) -> tuple[bytes, ...]:
    """The 255 rows of k coefficients that make shard i out of the k data shards, by zfec on unit vectors."""
    units = tuple(bytes(column == row for column in range(k)) for row in range(k))
    return tuple(bytes(row) for row in _encoder(k).encode(units, tuple(range(SHARDS_MAX))))


class ZfecEngine:
    """The definition: zfec itself."""

    name = "zfec"

    def multiply(
        self, k: int, sources: tuple[int, ...], rows: tuple[int, ...], have: Sequence[Buffer], out: Sequence[memoryview]
    ) -> None:
        """See `Engine.multiply`."""
        data: Sequence[Buffer] = have
        if sources != tuple(range(k)):
            # zfec wants each data shard that is there at its own place in the list.
            blocks: list[Buffer | None] = [None] * k
            numbers = [-1] * k
            spare = []
            for index, block in zip(sources, have, strict=True):
                if index < k:
                    blocks[index], numbers[index] = block, index
                else:
                    spare.append((index, block))
            for place in range(k):
                if blocks[place] is None:
                    numbers[place], blocks[place] = spare.pop(0)
            data = zfec.Decoder(k, SHARDS_MAX).decode(tuple(blocks), tuple(numbers))
        for target, block in zip(out, _encoder(k).encode(tuple(data), rows), strict=True):
            target[:] = block


class IsalEngine:
    """ISA-L by ctypes, which releases the GIL for the call."""

    name = "isa-l"

    def __init__(self, library: ctypes.CDLL) -> None:
        """Bind the three functions used. Raises: AttributeError if the library lacks one."""
        self._encode_data = library.ec_encode_data
        self._encode_data.argtypes = (ctypes.c_int,) * 3 + (ctypes.c_void_p,) * 3
        self._encode_data.restype = None
        self._init_tables = library.ec_init_tables
        self._init_tables.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
        self._init_tables.restype = None
        self._invert_matrix = library.gf_invert_matrix
        self._invert_matrix.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
        self._invert_matrix.restype = ctypes.c_int
        # A cache of this engine's own, so that another engine in the process (in tests) shares no tables with it.
        self._tables: Callable[[int, tuple[int, ...], tuple[int, ...]], ctypes.Array[ctypes.c_char]]
        self._tables = lru_cache(maxsize=_PATTERNS_CACHED)(self._make_tables)

    def multiply(
        self, k: int, sources: tuple[int, ...], rows: tuple[int, ...], have: Sequence[Buffer], out: Sequence[memoryview]
    ) -> None:
        """See `Engine.multiply`."""
        length = len(out[0])
        tables = self._tables(k, sources, rows)
        with Pins(have, length, writable=False) as source, Pins(out, length, writable=True) as target:
            self._encode_data(length, k, len(rows), tables, source.pointers, target.pointers)

    def _make_tables(self, k: int, sources: tuple[int, ...], rows: tuple[int, ...]) -> ctypes.Array[ctypes.c_char]:
        coefficients = b"".join(matrix(k)[row] for row in rows)
        if sources != tuple(range(k)):
            coefficients = self._through_inverse(k, sources, rows, coefficients)
        return self._expand(k, len(rows), coefficients)

    def _expand(self, k: int, rows: int, coefficients: bytes) -> ctypes.Array[ctypes.c_char]:
        tables = ctypes.create_string_buffer(32 * k * rows)
        self._init_tables(k, rows, coefficients, tables)
        return tables

    def _through_inverse(self, k: int, sources: tuple[int, ...], rows: tuple[int, ...], coefficients: bytes) -> bytes:
        """Coefficients that make `rows` straight from `sources`: rows x (their part of the matrix)^-1."""
        kept = ctypes.create_string_buffer(b"".join(matrix(k)[index] for index in sources), k * k)
        inverse = bytearray(k * k)
        with Pins([inverse], k * k, writable=True) as pinned:
            if self._invert_matrix(kept, pinned.pointers[0], k) != 0:
                raise ArithmeticError(f"rows {sources} of the matrix for k={k} cannot be inverted")
        # The product of two matrices is itself a coding: the inverse's rows are the data, k bytes each.
        product = bytearray(len(rows) * k)
        source_rows = [memoryview(inverse)[row * k : (row + 1) * k] for row in range(k)]
        out_rows = [memoryview(product)[row * k : (row + 1) * k] for row in range(len(rows))]
        tables = self._expand(k, len(rows), coefficients)
        with Pins(source_rows, k, writable=False) as source, Pins(out_rows, k, writable=True) as target:
            self._encode_data(k, k, len(rows), tables, source.pointers, target.pointers)
        return bytes(product)


def encode(k: int, m: int, data: Sequence[Buffer], parity: Sequence[memoryview]) -> None:
    """Write the parity shards k..k+m-1 of the k data shards into `parity`, all of one length in bytes.

    Threads may call it at once; the buffers of a call must not change or overlap while it runs.
    Raises: ValueError if counts or lengths do not agree, or k + m > 255.
    """
    if len(data) != k or len(parity) != m or not 1 <= k <= k + m <= SHARDS_MAX:
        raise ValueError(f"k={k}, m={m} with {len(data)} data and {len(parity)} parity shards")
    _multiply(k, tuple(range(k)), tuple(range(k, k + m)), data, parity)


def recover(k: int, have: Mapping[int, Buffer], want: Mapping[int, memoryview]) -> None:
    """Write each shard of `want` (index 0..254) from any k or more shards of `have`, all of one length in bytes.

    Data shards are used before parities, as their rows cost nothing to invert. The shards are taken as true:
    check them first where that matters.
    Raises: ValueError with fewer than k shards, an index beyond 254, or lengths that do not agree.
    """
    if len(have) < k or k < 1:
        raise ValueError(f"{len(have)} shards cannot make up k={k}")
    if any(not 0 <= index <= SHARD_INDEX_MAX for index in (*have, *want)):
        raise ValueError(f"shard indices run from 0 to {SHARD_INDEX_MAX}")
    sources = tuple(sorted(have)[:k])
    rows = tuple(sorted(want))
    _multiply(k, sources, rows, [have[index] for index in sources], [want[row] for row in rows])


def engine_name() -> str:
    """Which engine multiplies in this process: ``isa-l`` or ``zfec``."""
    return _engine().name


def _multiply(
    k: int, sources: tuple[int, ...], rows: tuple[int, ...], have: Sequence[Buffer], out: Sequence[memoryview]
) -> None:
    lengths = {memoryview(buffer).nbytes for buffer in (*have, *out)}
    if len(lengths) != 1 and rows:
        raise ValueError(f"shards of different lengths: {sorted(lengths)}")
    if rows and lengths != {0}:
        _engine().multiply(k, sources, rows, have, out)


@lru_cache(maxsize=1)
def _engine() -> Engine:
    for library in _libraries():
        engine = _isal(library)
        if engine is not None:
            return engine
    return ZfecEngine()


def _libraries() -> list[str]:
    """Where ISA-L may be: on the system, else the one inside the pyeclib wheel (found without importing it)."""
    names = ["libisal.so.2", "libisal.2.dylib"]
    spec = find_spec("pyeclib")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent.parent / "pyeclib.libs"
        names += sorted(str(path) for path in bundled.glob("libisal*.so*"))
    return names


def _isal(path: str) -> IsalEngine | None:
    """The library at `path` as an engine, or None if it is not there, lacks a function, or computes other bytes."""
    try:
        engine = IsalEngine(ctypes.CDLL(path))
    except (OSError, AttributeError):
        return None
    return engine if agrees_with_definition(engine) else None


def agrees_with_definition(engine: Engine) -> bool:
    """Whether an engine's bytes equal zfec's on a few codings: wide and narrow, odd lengths, with losses."""
    definition = ZfecEngine()
    for k, sources, rows, length in (
        (16, tuple(range(16)), (16, 17, 18, 19), 331),
        (16, (0, 2, 3, 5, 6, 7, 8, 9, 10, 12, 13, 14, 16, 17, 18, 254), (1, 4, 11, 15, 19), 96),
        (3, (1, 3, 4), (0, 2, 200), 64),
        (1, (4,), (0, 1), 17),
    ):
        shards = [
            bytes((7 * place + 13 * offset + offset * offset) % 256 for offset in range(length)) for place in sources
        ]
        made, expected = (
            [memoryview(bytearray(length)) for _ in rows],
            [memoryview(bytearray(length)) for _ in rows],
        )
        try:
            engine.multiply(k, sources, rows, shards, made)
        except ArithmeticError:
            return False
        definition.multiply(k, sources, rows, shards, expected)
        if made != expected:
            return False
    return True
