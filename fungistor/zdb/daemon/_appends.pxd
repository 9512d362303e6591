# cython: language_level=3
from libc.stdint cimport uint32_t

cdef struct Record:
    # One SET: what is there, and what is to be.
    uint32_t old[6]
    char *row
    const char *value
    uint32_t value_bytes
    uint32_t crc
    bint found
    bint same
    uint32_t data_offset
    uint32_t index_offset


cdef class Appends:
    cdef readonly list items
    cdef Record *records
    cdef Py_ssize_t read_bytes
    cdef set _keys
    cdef object _namespace
    cdef char *_data
    cdef char *_old
    cdef Py_ssize_t _used
    cdef bint fits(self, object namespace, bytes key, Py_ssize_t value_bytes)
    cdef void add(self, object connection, int fd, object namespace, bytes key, const char *value, Py_ssize_t value_bytes)
    cdef bint store(self) except -1
    cdef list by_python(self)
    cdef void clear(self)
    cdef char *_place(self, Record *record, Py_ssize_t key_bytes) noexcept
    cdef bint _look(self, object namespace, Py_ssize_t position) except -1
    cdef bint _same(self, object namespace, bytes key, Record *record) except -1
    cdef void _commit(self, object namespace, uint32_t now) except *
