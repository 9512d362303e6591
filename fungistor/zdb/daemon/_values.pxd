# cython: language_level=3
from libc.stdint cimport uint32_t

from fungistor.zdb.daemon._shared cimport off_t


cdef uint32_t crc_of_bytes(const char *data, Py_ssize_t size) noexcept


cdef class Mappings:
    cdef dict _files
    cdef Py_ssize_t _seen, _seen_max
    cdef bint _guarded
    cdef const char *at(self, int fd, Py_ssize_t offset, Py_ssize_t size) except? NULL
    cdef object _map(self, int fd, Py_ssize_t end)
    cpdef void forget(self, int fd)
    cpdef void let_go(self)


cdef bint read_record(int fd, bytes key, uint32_t offset, uint32_t length, uint32_t crc, char *value) noexcept
cdef bint is_record(const char *record, bytes key, uint32_t length, uint32_t crc) noexcept
