# cython: language_level=3
"""What the modules of the compiled lane have in common: the kernel's calls, fields of records, rows of the key table."""

from cpython cimport array
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint32_t, int64_t
from libc.string cimport memcmp, memcpy

cdef extern from "<sys/types.h>" nogil:
    ctypedef long off_t

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len
    ssize_t writev(int fd, const iovec *parts, int count)
    ssize_t preadv(int fd, const iovec *parts, int count, off_t offset)
    ssize_t pwritev(int fd, const iovec *parts, int count, off_t offset)

cdef extern from "<unistd.h>" nogil:
    ssize_t pread(int fd, void *buffer, size_t size, off_t offset)
    ssize_t pwrite(int fd, const void *buffer, size_t size, off_t offset)

cdef enum:
    DATA_HEAD = 18
    INDEX_HEAD = 34
    FLAGS_AT = 13
    DELETED = 1
    CHUNK_SHIFT = 10
    PLACE_SHIFT = 24


cdef inline void put_u32(char *at, uint32_t number) noexcept:
    memcpy(at, &number, 4)


cdef inline uint32_t u32(const char *at) noexcept:
    cdef uint32_t number
    memcpy(&number, at, 4)
    return number


cdef inline char *find(object groups, bytes key) except? NULL:
    """Return where the packed entry of a key stands in the table of live keys, or NULL."""
    cdef object group = groups.get(len(key))
    if group is None:
        return NULL
    cdef list directory = group._directory
    cdef list chunks = group._chunks
    cdef int64_t number = hash(key)
    cdef object table = directory[number & (<int64_t>len(directory) - 1)]
    cdef array.array slots = table.slots
    cdef Py_ssize_t mask = table.mask
    cdef Py_ssize_t stride = group._stride
    cdef Py_ssize_t key_bytes = len(key)
    cdef Py_ssize_t place = (number >> PLACE_SHIFT) & mask
    cdef uint32_t row
    cdef char *at
    while True:
        row = slots.data.as_uints[place]
        if row == 0:
            return NULL
        row -= 1
        at = PyByteArray_AS_STRING(chunks[row >> CHUNK_SHIFT]) + (row & ((1 << CHUNK_SHIFT) - 1)) * stride
        if memcmp(at, PyBytes_AS_STRING(key), key_bytes) == 0:
            return at + key_bytes
        place = (place + 1) & mask


cdef inline int insert(object keys, bytes key, const char *entry) except -1:
    """Add a key that is not in the table of live keys; what seldom happens there is left to it."""
    cdef object group = keys._groups.get(len(key))
    if group is None:
        group = keys.group(len(key))
    cdef list directory = group._directory
    cdef list chunks = group._chunks
    cdef int64_t number = hash(key)
    cdef object table = directory[number & (<int64_t>len(directory) - 1)]
    cdef array.array slots = table.slots
    cdef Py_ssize_t mask = table.mask, used = table.used, row = group.rows, stride = group._stride
    cdef Py_ssize_t at = (row & ((1 << CHUNK_SHIFT) - 1)) * stride
    cdef Py_ssize_t place = (number >> PLACE_SHIFT) & mask
    if at == 0:
        group._make_room(row)
    chunk = chunks[row >> CHUNK_SHIFT]
    if len(chunk) < at + stride:
        # The first chunk grows with what is in it.
        chunk[at : at + stride] = key + entry[:24]
    else:
        memcpy(PyByteArray_AS_STRING(chunk) + at, PyBytes_AS_STRING(key), len(key))
        memcpy(PyByteArray_AS_STRING(chunk) + at + len(key), entry, 24)
    while slots.data.as_uints[place]:
        place = (place + 1) & mask
    group.rows = row + 1
    slots.data.as_uints[place] = row + 1
    table.used = used + 1
    if 4 * (used + 1) > 3 * mask:
        group._enlarge(table, number)
    return 0
