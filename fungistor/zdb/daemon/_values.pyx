# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""How the compiled lane reads values: copied, or looked at where they lie in the page cache. Each is checked each time.

A read of 64 KiB costs the kernel 12 us, page by page; a look at a file that is mapped costs none of it, and the socket
takes the value from there. Values that are looked at once are not worth a mapping, which is paid for with two faults
and counts as memory of the process: so it is given back beyond a bound, and when nothing is asked for.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint32_t
from libc.string cimport memcmp, memset

from fungistor.zdb.daemon._shared cimport DATA_HEAD, DELETED, iovec, off_t, preadv, u32

cdef extern from "fungistor/zdb/daemon/_record.h" nogil:
    void crc_prepare()
    uint32_t crc_by_table(uint32_t crc, const unsigned char *data, size_t size)
    uint32_t crc_of(const char *data, size_t size)
    int look_prepare()
    int look_is_record(const char *record, const char *key, uint32_t key_bytes, uint32_t value_bytes, uint32_t crc)

cdef extern from "<sys/mman.h>" nogil:
    void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset)
    int munmap(void *at, size_t size)
    int madvise(void *at, size_t size, int advice)
    int PROT_READ
    int MAP_SHARED
    int MADV_DONTNEED
    void *MAP_FAILED

cdef extern from "<sys/stat.h>" nogil:
    struct stat_result "stat":
        off_t st_size
    int fstat(int fd, stat_result *found)

cdef enum:
    GRAIN_SHIFT = 16
    # A file is mapped up to the next multiple: what is appended meanwhile lies there, too.
    STEP = 64 << 20

crc_prepare()


def checksum(bytes data, *, by_table=False):
    """Return the checksum of a record with this value, by the processor's instruction where it has one."""
    if by_table:
        return crc_by_table(0, <const unsigned char *>PyBytes_AS_STRING(data), len(data))
    return crc_of(PyBytes_AS_STRING(data), len(data))


cdef uint32_t crc_of_bytes(const char *data, Py_ssize_t size) noexcept:
    return crc_of(data, size)


cdef class _File:
    """One that is mapped."""

    cdef char *base
    cdef Py_ssize_t size
    cdef bytearray seen

    def __dealloc__(self):
        if self.base:
            munmap(self.base, self.size)


cdef class Mappings:
    """The data files of a daemon that are mapped, by descriptor."""

    def __init__(self, bytes_max):
        """Args: bytes_max: how much of them may have been looked at before all is given back; 0: nothing is mapped."""
        self._files = {}
        self._seen_max = bytes_max >> GRAIN_SHIFT

    def guard(self):
        """Begin: not before who else cares for SIGBUS has said so, or a page that cannot be read ends the process."""
        self._guarded = look_prepare()

    cdef const char *at(self, int fd, Py_ssize_t offset, Py_ssize_t size) except? NULL:
        """Return where these bytes of a file lie, to be looked at with `is_record` alone; NULL: not mapped."""
        if not self._guarded or (size >> GRAIN_SHIFT) + 2 > self._seen_max:
            return NULL
        cdef _File file = self._files.get(fd)
        if file is None or offset + size > file.size:
            file = self._map(fd, offset + size)
            if file is None:
                return NULL
        cdef char *seen = file.seen
        cdef Py_ssize_t grain
        for grain in range(offset >> GRAIN_SHIFT, ((offset + size - 1) >> GRAIN_SHIFT) + 1):
            if not seen[grain]:
                if self._seen >= self._seen_max:
                    self.let_go()
                seen[grain] = 1
                self._seen += 1
        return file.base + offset

    cdef object _map(self, int fd, Py_ssize_t end):
        cdef stat_result found
        cdef _File file
        self.forget(fd)
        if fstat(fd, &found) or found.st_size < end:
            return None
        file = _File.__new__(_File)
        file.size = (found.st_size // STEP + 1) * STEP
        cdef void *base = mmap(NULL, file.size, PROT_READ, MAP_SHARED, fd, 0)
        if base == MAP_FAILED:
            return None
        file.base = <char *>base
        file.seen = bytearray(file.size >> GRAIN_SHIFT)
        self._files[fd] = file
        return file

    cpdef void forget(self, int fd):
        """Unmap a file whose descriptor will be closed."""
        cdef _File file = self._files.pop(fd, None)
        if file is not None:
            self._seen -= file.seen.count(1)

    cpdef void let_go(self):
        """Give back what was looked at; it stays in the page cache, and the mappings where they are."""
        cdef _File file
        if not self._seen:
            return
        for file in self._files.values():
            madvise(file.base, file.size, MADV_DONTNEED)
            memset(<char *>file.seen, 0, len(file.seen))
        self._seen = 0


cdef bint is_record(const char *record, bytes key, uint32_t length, uint32_t crc) noexcept:
    """Whether these mapped bytes are that record, its value of that checksum; not where they cannot be read."""
    return look_is_record(record, PyBytes_AS_STRING(key), len(key), length, crc)


cdef bint read_record(int fd, bytes key, uint32_t offset, uint32_t length, uint32_t crc, char *value) noexcept:
    """Read a value and its record's head; return whether both are those indexed."""
    cdef char head[DATA_HEAD + 256]
    cdef iovec parts[2]
    cdef Py_ssize_t key_bytes = len(key), count
    parts[0].iov_base, parts[0].iov_len = head, DATA_HEAD + key_bytes
    parts[1].iov_base, parts[1].iov_len = value, length
    count = preadv(fd, parts, 2, offset)
    if count != DATA_HEAD + key_bytes + length or <unsigned char>head[0] != key_bytes:
        return False
    if u32(head + 1) != length or u32(head + 9) != crc or head[13] & DELETED:
        return False
    if memcmp(head + DATA_HEAD, PyBytes_AS_STRING(key), key_bytes) != 0:
        return False
    return crc_of(value, length) == crc
