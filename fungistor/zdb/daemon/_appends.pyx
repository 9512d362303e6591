# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""How the compiled lane stores the SETs of a round: by one write to each file.

A short value is copied once, to where its record is made; a long one is stored alone, from where it was received.
"""

from cpython.buffer cimport PyBUF_READ
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport uint32_t, int64_t
from libc.string cimport memcmp, memcpy
from libc.time cimport time as unix_time

from fungistor.zdb.daemon._shared cimport DATA_HEAD, DELETED, FLAGS_AT, INDEX_HEAD, find, insert, off_t, put_u32, pwrite
from fungistor.zdb.daemon._values cimport crc_of_bytes, read_record

from fungistor.zdb.daemon.namespace import Put
from fungistor.zdb.daemon.segments import WriteError

cdef enum:
    COPIED_BYTES_MAX = 16 << 10
    # Longer writes get larger pages of the page cache: on a virtual machine its host has to bring those first.
    STORED_BYTES = 64 << 10
    RECORDS_MAX = 4096
    OLD_BYTES = 128 << 10

cdef int64_t OFFSET_MAX = 0xFFFFFFFF


cdef class Appends:
    """One daemon's: SETs that wait to be stored together. Their keys differ, their namespace is the same."""

    def __cinit__(self):
        self._data = <char *>PyMem_Malloc(STORED_BYTES)
        self._old = <char *>PyMem_Malloc(OLD_BYTES)
        self.records = <Record *>PyMem_Malloc(RECORDS_MAX * sizeof(Record))
        if not self._data or not self._old or not self.records:
            raise MemoryError

    def __dealloc__(self):
        PyMem_Free(self._data)
        PyMem_Free(self._old)
        PyMem_Free(self.records)

    def __init__(self):
        self.read_bytes = 0
        self.clear()

    cdef void clear(self):
        self.items, self._keys, self._namespace, self._used = [], set(), None, 0

    cdef bint fits(self, object namespace, bytes key, Py_ssize_t value_bytes):
        """Whether this one may be stored with those that wait."""
        if not self.items:
            return True
        if self._namespace is not namespace or key in self._keys or len(self.items) == RECORDS_MAX:
            return False
        return value_bytes <= COPIED_BYTES_MAX and self._used + DATA_HEAD + len(key) + value_bytes <= STORED_BYTES

    cdef void add(self, object connection, int fd, object namespace, bytes key, const char *value, Py_ssize_t value_bytes):
        """Take one more that fits. Where it is long it has to be stored before its bytes go."""
        cdef Record *record = &self.records[len(self.items)]
        cdef char *to = self._data + self._used
        record.value_bytes = value_bytes
        if value_bytes > COPIED_BYTES_MAX:
            record.value = value
            self._used = STORED_BYTES
        else:
            memcpy(to + DATA_HEAD, PyBytes_AS_STRING(key), len(key))
            record.value = to + DATA_HEAD + len(key)
            memcpy(<char *>record.value, value, value_bytes)
            self._used += DATA_HEAD + len(key) + value_bytes
        self._namespace = namespace
        self._keys.add(key)
        self.items.append((connection, fd, key))

    cdef list by_python(self):
        """Store them the long way, which counts what fails; return the answers."""
        cdef uint32_t now = <uint32_t>unix_time(NULL)
        puts = []
        for position in range(len(self.items)):
            value = PyBytes_FromStringAndSize(self.records[position].value, self.records[position].value_bytes)
            puts.append(Put((<tuple>self.items[position])[2], value, now))
        return self._namespace.put_many(puts)

    cdef bint store(self) except -1:
        """Store them; return False, with nothing done, where the Python code has to."""
        cdef object namespace = self._namespace
        if namespace.broken or namespace.descriptor.worm or namespace.descriptor.maxsize:
            return False
        cdef object segments = namespace.segments, ends = segments.ends
        cdef uint32_t file_id = ends.file_id, now = <uint32_t>unix_time(NULL)
        cdef int64_t data_end = ends.data_end, index_end = ends.index_end
        cdef uint32_t data_last = ends.data_last, index_last = ends.index_last, key_bytes
        cdef Py_ssize_t data_bytes = 0, index_bytes = 0, position, count = len(self.items)
        cdef bytes key
        cdef Record *record
        for position in range(count):
            if not self._look(namespace, position):
                key_bytes = len(<bytes>(<tuple>self.items[position])[2])
                data_bytes += DATA_HEAD + key_bytes + self.records[position].value_bytes
                index_bytes += INDEX_HEAD + key_bytes
        if not data_bytes:
            return True
        if data_end + data_bytes > namespace.datasize or index_end + index_bytes > OFFSET_MAX:
            return False
        cdef bytes index = PyBytes_FromStringAndSize(NULL, index_bytes)
        cdef char *entry = PyBytes_AS_STRING(index)
        cdef char *to
        cdef char *begin = NULL
        cdef char *end = NULL
        data = []
        for position in range(count):
            record = &self.records[position]
            if record.same:
                continue
            key = (<tuple>self.items[position])[2]
            key_bytes = len(key)
            record.data_offset, record.index_offset = data_end, index_end
            to = self._place(record, key_bytes)
            if to != end:
                # Those before it that change nothing are left out.
                if end:
                    data.append(PyMemoryView_FromMemory(begin, end - begin, PyBUF_READ))
                begin = to
            end = to + DATA_HEAD + key_bytes
            memcpy(to + DATA_HEAD, PyBytes_AS_STRING(key), key_bytes)
            to[0] = key_bytes
            put_u32(to + 1, record.value_bytes)
            put_u32(to + 5, data_last)
            put_u32(to + 9, record.crc)
            to[FLAGS_AT] = 0
            put_u32(to + 14, now)
            entry[0] = key_bytes
            put_u32(entry + 1, record.data_offset)
            put_u32(entry + 5, record.value_bytes)
            put_u32(entry + 9, index_last)
            entry[FLAGS_AT] = 0
            put_u32(entry + 14, file_id)
            put_u32(entry + 18, now)
            put_u32(entry + 22, record.crc)
            put_u32(entry + 26, record.old[0] if record.found else 0)
            put_u32(entry + 30, record.old[5] if record.found else 0)
            memcpy(entry + INDEX_HEAD, PyBytes_AS_STRING(key), key_bytes)
            entry += INDEX_HEAD + key_bytes
            data_last, index_last = record.data_offset, record.index_offset
            data_end += DATA_HEAD + key_bytes + record.value_bytes
            index_end += INDEX_HEAD + key_bytes
            if record.value_bytes <= COPIED_BYTES_MAX:
                end += record.value_bytes
        data.append(PyMemoryView_FromMemory(begin, end - begin, PyBUF_READ))
        if self.records[0].value_bytes > COPIED_BYTES_MAX:
            # It is alone.
            data.append(PyMemoryView_FromMemory(<char *>self.records[0].value, self.records[0].value_bytes, PyBUF_READ))
        try:
            segments.append_packed(data, data_last, index, index_last)
        except WriteError:
            # It is undone as a whole; the Python code tries again, one by one, and counts what fails.
            return False
        self._commit(namespace, now)
        namespace.io.data_write_bytes += data_bytes
        namespace.io.index_write_bytes += index_bytes
        return True

    cdef char *_place(self, Record *record, Py_ssize_t key_bytes) noexcept:
        """Return where a record is made: before its value, if that was copied."""
        if record.value_bytes > COPIED_BYTES_MAX:
            return self._data
        return <char *>record.value - DATA_HEAD - key_bytes

    cdef bint _look(self, object namespace, Py_ssize_t position) except -1:
        """Find what a SET supersedes; return whether that is the very value."""
        cdef Record *record = &self.records[position]
        cdef bytes key = (<tuple>self.items[position])[2]
        record.crc = crc_of_bytes(record.value, record.value_bytes)
        record.row = find(namespace.live.keys._groups, key)
        record.found, record.same = record.row != NULL, False
        if record.found:
            memcpy(record.old, record.row, 24)
            if record.old[3] == record.crc and record.old[2] == record.value_bytes:
                record.same = self._same(namespace, key, record)
        return record.same

    cdef bint _same(self, object namespace, bytes key, Record *record) except -1:
        """Whether the stored value is this one; one that cannot be read is not, so that a SET mends it."""
        cdef uint32_t *old = record.old
        cdef int fd
        try:
            fd = namespace.segments.data_fd(old[0])
        except OSError:
            fd = -1
        if fd < 0 or record.value_bytes > OLD_BYTES or not read_record(fd, key, old[1], old[2], old[3], self._old):
            put = Put(key, PyBytes_FromStringAndSize(record.value, record.value_bytes), 0)
            return namespace.same(put, (old[0], old[1], old[2], old[3], old[4], old[5]))
        self.read_bytes += DATA_HEAD + len(key) + record.value_bytes
        return memcmp(self._old, record.value, record.value_bytes) == 0

    cdef void _commit(self, object namespace, uint32_t now) except *:
        """Note what was appended; the old rows first, as a new one may move them."""
        cdef object live = namespace.live, segments = namespace.segments
        cdef int64_t payload = 0, added = 0, key_bytes = 0
        cdef uint32_t file_id = segments.ends.file_id
        cdef int fd = segments.index_fd(file_id)
        cdef char deleted = DELETED
        cdef char entry[24]
        cdef bytes key
        cdef Py_ssize_t position, count = len(self.items)
        cdef Record *record
        for position in range(count):
            record = &self.records[position]
            if record.same or not record.found:
                continue
            put_u32(record.row, file_id)
            put_u32(record.row + 4, record.data_offset)
            put_u32(record.row + 8, record.value_bytes)
            put_u32(record.row + 12, record.crc)
            put_u32(record.row + 16, now)
            put_u32(record.row + 20, record.index_offset)
            payload += <int64_t>record.value_bytes - record.old[2]
            if record.old[0] != file_id:
                namespace.flag_deleted(record.old[0], record.old[5])
            elif pwrite(fd, &deleted, 1, <off_t>record.old[5] + FLAGS_AT) != 1:
                namespace.flag_deleted(record.old[0], record.old[5])
            else:
                segments.patched.add(file_id)
        for position in range(count):
            record = &self.records[position]
            if record.found:
                continue
            key = (<tuple>self.items[position])[2]
            put_u32(entry, file_id)
            put_u32(entry + 4, record.data_offset)
            put_u32(entry + 8, record.value_bytes)
            put_u32(entry + 12, record.crc)
            put_u32(entry + 16, now)
            put_u32(entry + 20, record.index_offset)
            insert(live.keys, key, entry)
            payload += record.value_bytes
            key_bytes += len(key)
            added += 1
        live.payload_bytes += payload
        live.key_bytes += key_bytes
        namespace.next_id += added
