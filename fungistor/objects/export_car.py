"""Write a DAG as a CAR file: depth first, every block once, aside until it is whole.

Which blocks were written, and which are to come, is kept on disk where it is much, so that a DAG of millions of blocks
takes no more memory than one of a few.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

from fungistor.dag.car import encode_header, section_head
from fungistor.dag.cid import CID
from fungistor.dag.links import links
from fungistor.dag.source import BlockSource, fetch
from fungistor.errors import FailedError, InvalidError
from fungistor.limits import MIB
from fungistor.objects.car_walk import LINKING
from fungistor.objects.pending import Pending
from fungistor.objects.results import CarFile
from fungistor.objects.seen import SeenCids

WRITE_BYTES = MIB

Written = Callable[[int], None]


def dag_blocks(source: BlockSource, root: CID, *, repeated: bool = False) -> Iterator[tuple[CID, bytes]]:
    """Yield the blocks at and below a root depth first, in link order; those in CIDs are left out.

    None comes twice, unless `repeated`: then each as often as a link leads to it.

    Raises:
        NotFoundError: a block is missing.
        CorruptError: a block is not what its codec says.
        UnavailableError: a block cannot be had now.
    """
    with contextlib.closing(SeenCids()) as seen, contextlib.closing(Pending(tempfile.gettempdir())) as pending:
        pending.push([root.encode()])
        while (item := pending.pop()) is not None:
            cid = CID.decode(item)
            if not repeated and not cid.is_identity and not seen.add(cid):
                continue
            data = fetch(source, cid)
            if not cid.is_identity:
                yield cid, data
            if cid.codec in LINKING:
                below = [child for child in links(cid, data) if not child.is_identity or child.codec in LINKING]
                source.hint([child for child in dict.fromkeys(below) if not child.is_identity and child not in seen])
                pending.push(child.encode() for child in reversed(below))


class CarExporter:
    """Writes one DAG from one source. `written` is told of bytes as they are written."""

    def __init__(self, source: BlockSource, written: Written) -> None:
        self._source = source
        self._written = written

    def export(self, cid: CID, out: str, *, force: bool = False) -> CarFile:
        """Write the file `out`, which is there only when it is whole.

        Raises:
            InvalidError: `out` exists and `force` was not given, or is no regular file.
            FailedError: it cannot be written here.
            NotFoundError, CorruptError, UnavailableError: a block cannot be had.
        """
        started = time.monotonic()
        target = os.path.abspath(out)
        check_out(out, force=force)
        aside = os.path.join(os.path.dirname(target), f".fungistor-{secrets.token_hex(6)}")
        try:
            try:
                with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), "wb", 0) as file:
                    blocks, length = self.write(cid, file)
                os.replace(aside, target)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(aside)
        except OSError as error:
            raise FailedError(
                f"{error.filename or out}: cannot be written: {error.strerror or error}",
                hint="nothing was left behind; free space or choose another -o",
            ) from error
        return CarFile(str(cid), out, blocks, length, time.monotonic() - started)

    def write(self, cid: CID, file: BinaryIO) -> tuple[int, int]:
        """Write a CAR to an open file; return its blocks and bytes. Raises as `export`, and OSError."""
        blocks = length = 0
        for parts in _gathered(self._sections(cid)):
            blocks += len(parts) // 2
            data = b"".join(parts)
            _write_all(file, data)
            length += len(data)
            self._written(len(data))
        return blocks, length

    def _sections(self, cid: CID) -> Iterator[tuple[bytes, ...]]:
        header = False
        for block_cid, data in dag_blocks(self._source, cid):
            if not header:
                # Not before the first block is there: what cannot be read at all leaves not even a header.
                yield (encode_header([cid]),)
                header = True
            yield section_head(block_cid, len(data)), data
        if not header:
            yield (encode_header([cid]),)


def check_out(out: str, *, force: bool) -> None:
    """Refuse a place that a file cannot be written to.

    Raises:
        InvalidError: it exists and `force` was not given, or it is no regular file.
    """
    if not os.path.lexists(out):
        return
    if not stat.S_ISREG(os.lstat(out).st_mode):
        raise InvalidError(f"{out}: exists and is no file", hint="choose another -o; `-o -` writes to stdout")
    if not force:
        raise InvalidError(f"{out}: exists already", hint="choose another -o, or add --force to replace it")


def _gathered(sections: Iterable[tuple[bytes, ...]]) -> Iterator[list[bytes]]:
    """Small sections together: a write for each costs more than the block."""
    parts: list[bytes] = []
    size = 0
    for section in sections:
        parts.extend(section)
        size += sum(map(len, section))
        if size >= WRITE_BYTES:
            yield parts
            parts, size = [], 0
    if parts:
        yield parts


def _write_all(file: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) or 0 :]
