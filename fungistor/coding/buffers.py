"""Addresses of Python buffers for C code, read-only ones too, held in place while the call runs.

`ctypes.c_char.from_buffer` refuses read-only buffers (bytes, read-only mmaps), and copying a shard to get a
writable one costs more than coding it. So the buffer protocol is asked directly: one C call a buffer, no copy.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from types import TracebackType

Buffer = bytes | bytearray | memoryview
"""Contiguous bytes. A memoryview may show any exporter (mmap, array, a slice) as long as it is contiguous."""

_PYBUF_SIMPLE = 0
_PYBUF_WRITABLE = 1


class _PyBuffer(ctypes.Structure):
    """CPython's Py_buffer, part of the stable ABI since 3.11."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_void_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


_PY_BUFFER_BYTES = ctypes.sizeof(_PyBuffer)
# PyDLL holds the GIL and raises the exception that the call has set, as a C extension would.
_get_buffer = ctypes.PyDLL(None).PyObject_GetBuffer
_get_buffer.argtypes = (ctypes.py_object, ctypes.c_void_p, ctypes.c_int)
_get_buffer.restype = ctypes.c_int
_release_buffer = ctypes.PyDLL(None).PyBuffer_Release
_release_buffer.argtypes = (ctypes.c_void_p,)
_release_buffer.restype = None


class Pins:
    """Holds buffers of one length in place; `pointers` is an array of their addresses for a C call.

    Use as a context manager. While it is open the exporters can be neither freed nor resized.
    """

    __slots__ = ("_held", "_views", "pointers")

    def __init__(self, buffers: Sequence[Buffer], length: int, *, writable: bool) -> None:
        """Pin `buffers`, each exactly `length` bytes.

        Raises: ValueError for another length, BufferError for a buffer that is not contiguous, or read-only
        where `writable` is asked.
        """
        count = len(buffers)
        flags = _PYBUF_WRITABLE if writable else _PYBUF_SIMPLE
        self._views = (_PyBuffer * count)()
        self._held = 0
        self.pointers = (ctypes.c_void_p * count)()
        base = ctypes.addressof(self._views)
        try:
            for index, buffer in enumerate(buffers):
                _get_buffer(buffer, base + index * _PY_BUFFER_BYTES, flags)
                self._held = index + 1
                view = self._views[index]
                if view.len != length:
                    raise ValueError(f"buffer {index} has {view.len} bytes, not {length}")
                self.pointers[index] = view.buf
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let the buffers go; a second call does nothing."""
        base = ctypes.addressof(self._views)
        while self._held:
            self._held -= 1
            _release_buffer(base + self._held * _PY_BUFFER_BYTES)

    def __enter__(self) -> Pins:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
