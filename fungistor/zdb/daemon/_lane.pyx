# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The plain GETs and small SETs of a round, compiled: as `Connection` does them by itself where this is not there.

Only what every client sends and nothing unusual is done here. All else, each refusal and each fault are left to the
Python code, which begins again from the same bytes; so this knows no reply but a value, a key and nil.
"""

from cpython cimport array
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint32_t, int64_t
from libc.stdio cimport sprintf
from libc.string cimport memcmp, memcpy
from libc.time cimport time as unix_time

from google_crc32c._crc32c import extend as crc32c_extend

from fungistor.zdb.daemon.namespace import Put
from fungistor.zdb.daemon.segments import WriteError

cdef extern from "<sys/types.h>" nogil:
    ctypedef long off_t

cdef extern from "<sys/socket.h>" nogil:
    ssize_t recv(int fd, void *buffer, size_t size, int flags)
    ssize_t send(int fd, const void *buffer, size_t size, int flags)
    int MSG_DONTWAIT
    int MSG_NOSIGNAL

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len
    ssize_t writev(int fd, const iovec *parts, int count)
    ssize_t preadv(int fd, const iovec *parts, int count, off_t offset)

cdef extern from "<unistd.h>" nogil:
    ssize_t pwrite(int fd, const void *buffer, size_t size, off_t offset)

cdef enum:
    READ_BYTES = 80 << 10
    VALUE_BYTES_MAX = 16 << 10
    LARGE_BYTES_MAX = 1 << 20
    BATCH_BYTES = 64 << 10
    # Longer writes get larger pages of the page cache: on a virtual machine its host has to bring those first.
    STORED_BYTES = 64 << 10
    LARGE = -2
    DATA_HEAD = 18
    INDEX_HEAD = 34
    FLAGS_AT = 13
    DELETED = 1
    CHUNK_SHIFT = 10
    PLACE_SHIFT = 24

cdef int64_t OFFSET_MAX = 0xFFFFFFFF

cdef struct Record:
    # One key in the batch: what is there, and what is to be.
    uint32_t old[6]
    char *row
    uint32_t crc
    bint found
    bint same
    uint32_t data_offset
    uint32_t index_offset


cdef inline void put_u32(char *at, uint32_t number) noexcept:
    memcpy(at, &number, 4)


cdef inline uint32_t u32(const char *at) noexcept:
    cdef uint32_t number
    memcpy(&number, at, 4)
    return number


cdef inline uint32_t checksum(bytes value) except? 0:
    return (<uint32_t>crc32c_extend(0xFFFFFFFF, value)) ^ 0xFFFFFFFFU


cdef Py_ssize_t number_line(const char *data, Py_ssize_t pos, Py_ssize_t end, Py_ssize_t *number) noexcept:
    """Read up to five digits and a line break; return what follows, or -1."""
    cdef Py_ssize_t start = pos
    number[0] = 0
    while pos < end and pos - start <= 5 and 48 <= data[pos] <= 57:
        number[0] = number[0] * 10 + data[pos] - 48
        pos += 1
    if pos == start or pos - start > 5 or pos + 2 > end or data[pos] != 13 or data[pos + 1] != 10:
        return -1
    return pos + 2


cdef char *find(object groups, bytes key) except? NULL:
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


cdef int insert(object keys, bytes key, const char *entry) except -1:
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


cdef class Lane:
    """One daemon's."""

    cdef object _hub
    cdef object _stats
    cdef char *_in
    cdef char *_out
    cdef char *_old
    cdef bint _sync
    cdef list _batch
    cdef set _keys
    cdef object _namespace
    cdef Py_ssize_t _waiting, _gets, _sets, _received, _sent, _data_read

    def __cinit__(self):
        self._in = <char *>PyMem_Malloc(READ_BYTES)
        self._out = <char *>PyMem_Malloc(BATCH_BYTES + VALUE_BYTES_MAX + 512)
        self._old = <char *>PyMem_Malloc(READ_BYTES)
        if not self._in or not self._out or not self._old:
            raise MemoryError

    def __dealloc__(self):
        PyMem_Free(self._in)
        PyMem_Free(self._out)
        PyMem_Free(self._old)

    def __init__(self, hub):
        self._hub = hub
        self._stats = hub.context.stats
        self._sync = hub.sync
        self._batch = []
        self._keys = set()

    def serve(self, connection, int fd):
        """Read once and do what is plain; what is not is given to the connection, as bytes."""
        cdef object namespace = connection.plain_namespace()
        if namespace is None:
            return False
        cdef Py_ssize_t count = recv(fd, self._in, connection.read_bytes, MSG_DONTWAIT)
        if count <= 0:
            if count == 0:
                connection.ended()
            elif errno != EAGAIN and errno != EINTR:
                connection.abort()
            return True
        connection.heard = True
        self._received += count
        cdef Py_ssize_t done = self._work(connection, namespace, fd, count)
        if done < count:
            rest = PyBytes_FromStringAndSize(self._in + done, count - done)
            self.store()
            self.count()
            connection.unusual(rest)
        return True

    cdef Py_ssize_t _work(self, object connection, object namespace, int fd, Py_ssize_t count) except -1:
        cdef char *data = self._in
        cdef Py_ssize_t pos = 0, out = 0, at, key_at, key_bytes, value_bytes
        cdef bint writing = connection.plain_writing(namespace), own = False
        cdef bytes key
        while out < BATCH_BYTES and count - pos > 18:
            if memcmp(data + pos, b"*2\r\n$3\r\nGET\r\n$", 14) == 0:
                key_at = number_line(data, pos + 14, count, &key_bytes)
                if key_at < 0 or not 0 < key_bytes < 256 or key_at + key_bytes + 2 > count:
                    break
                at = key_at + key_bytes
                if data[at] != 13 or data[at + 1] != 10:
                    break
                if own:
                    # Its own SETs come before it; those of others may as well come after it.
                    self.store()
                    own = False
                key = PyBytes_FromStringAndSize(data + key_at, key_bytes)
                at = self._get(namespace, key, self._out + out)
                if at == LARGE:
                    if out:
                        self._send(connection, fd, out)
                        out = 0
                    if not connection.send_now or not self._get_large(connection, namespace, key, fd):
                        break
                    at = 0
                if at < 0:
                    break
                out += at
                self._gets += 1
                pos = key_at + key_bytes + 2
            elif writing and memcmp(data + pos, b"*3\r\n$3\r\nSET\r\n$", 14) == 0:
                key_at = number_line(data, pos + 14, count, &key_bytes)
                if key_at < 0 or not 0 < key_bytes < 256:
                    break
                at = key_at + key_bytes
                if at + 3 > count or data[at] != 13 or data[at + 1] != 10 or data[at + 2] != 36:
                    break
                at = number_line(data, at + 3, count, &value_bytes)
                if at < 0 or at + value_bytes + 2 > count:
                    break
                if data[at + value_bytes] != 13 or data[at + value_bytes + 1] != 10:
                    break
                key = PyBytes_FromStringAndSize(data + key_at, key_bytes)
                if out:
                    self._send(connection, fd, out)
                    out = 0
                if key in self._keys or (self._namespace is not namespace and self._batch):
                    self.store()
                if self._batch and self._waiting + value_bytes > STORED_BYTES:
                    self.store()
                if self._sync and connection.held:
                    # Its answer would leave with the flush that it waits for, which does not cover it.
                    break
                self._namespace = namespace
                self._keys.add(key)
                self._batch.append((connection, fd, key, PyBytes_FromStringAndSize(data + at, value_bytes)))
                self._sets += 1
                self._waiting += value_bytes
                own = True
                pos = at + value_bytes + 2
            else:
                break
        if out:
            self._send(connection, fd, out)
        return pos

    cdef _send(self, object connection, int fd, Py_ssize_t count):
        """Send the first bytes of `_out` to a connection, behind all that waits there."""
        cdef Py_ssize_t sent
        if not connection.send_now:
            connection.answer(PyBytes_FromStringAndSize(self._out, count))
            return
        sent = send(fd, self._out, count, MSG_DONTWAIT | MSG_NOSIGNAL)
        if sent < 0:
            # Not now, or never again: the transport finds out which.
            sent = 0
        self._sent += sent
        if sent < count:
            connection.answer(PyBytes_FromStringAndSize(self._out + sent, count - sent))

    cdef int _fd(self, object segments, uint32_t file_id) except -2:
        """Return the descriptor of a data file, or -1 where the Python code has to find out why not."""
        try:
            return segments.data_fd(file_id)
        except OSError:
            return -1

    cdef Py_ssize_t _get(self, object namespace, bytes key, char *out) except -3:
        """Put the reply to a GET at `out`; return its length, LARGE, or -1 where this is not the place for it."""
        cdef char *row = find(namespace.live.keys._groups, key)
        if row == NULL:
            memcpy(out, b"$-1\r\n", 5)
            return 5
        cdef uint32_t length = u32(row + 8), crc = u32(row + 12)
        if length > VALUE_BYTES_MAX:
            return LARGE if length <= LARGE_BYTES_MAX else -1
        cdef int fd = self._fd(namespace.segments, u32(row))
        cdef int head = sprintf(out, "$%u\r\n", length)
        if fd < 0 or not self._read(fd, key, u32(row + 4), length, crc, out + head):
            return -1
        if checksum(PyBytes_FromStringAndSize(out + head, length)) != crc:
            return -1
        self._data_read += DATA_HEAD + len(key) + length
        memcpy(out + head + length, b"\r\n", 2)
        return head + length + 2

    cdef bint _get_large(self, object connection, object namespace, bytes key, int fd) except -1:
        """Send a value from where it was read to; return False, with nothing sent, where the Python code has to."""
        cdef char *row = find(namespace.live.keys._groups, key)
        cdef uint32_t length = u32(row + 8), crc = u32(row + 12)
        cdef int file = self._fd(namespace.segments, u32(row))
        cdef bytes value = PyBytes_FromStringAndSize(NULL, length)
        cdef char head[16]
        cdef iovec parts[3]
        cdef Py_ssize_t head_bytes = sprintf(head, "$%u\r\n", length), sent
        if file < 0 or not self._read(file, key, u32(row + 4), length, crc, PyBytes_AS_STRING(value)):
            return False
        if checksum(value) != crc:
            return False
        self._data_read += DATA_HEAD + len(key) + length
        parts[0].iov_base, parts[0].iov_len = head, head_bytes
        parts[1].iov_base, parts[1].iov_len = PyBytes_AS_STRING(value), length
        parts[2].iov_base, parts[2].iov_len = <char *>b"\r\n", 2
        sent = writev(fd, parts, 3)
        if sent < 0:
            # Not now, or never again: the transport finds out which.
            sent = 0
        self._sent += sent
        if sent == head_bytes + length + 2:
            return True
        # What is left of the value is not copied.
        left = []
        for piece in (head[:head_bytes], memoryview(value), b"\r\n"):
            if sent < len(piece):
                left.append(piece[sent:])
            sent = max(sent - len(piece), 0)
        connection.answer(*left)
        return True

    cdef bint _read(self, int fd, bytes key, uint32_t offset, uint32_t length, uint32_t crc, char *value) noexcept:
        """Read a value and its record's head; return whether the head is the one indexed. The value is unchecked."""
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
        return memcmp(head + DATA_HEAD, PyBytes_AS_STRING(key), key_bytes) == 0

    # storing

    def store(self):
        """Store the SETs of this round by one write, then answer them."""
        if not self._batch:
            return
        cdef list batch = self._batch
        cdef object namespace = self._namespace
        self._batch, self._keys, self._namespace, self._waiting = [], set(), None, 0
        cdef Py_ssize_t count = len(batch)
        cdef Record *records = <Record *>PyMem_Malloc(count * sizeof(Record))
        if not records:
            raise MemoryError
        try:
            if self._append(batch, namespace, records):
                self._answer(batch, records)
                return
        finally:
            PyMem_Free(records)
        now = unix_time(NULL) & 0xFFFFFFFF
        answers = namespace.put_many([Put(item[2], item[3], now) for item in batch])
        connections = {}
        for item, answer in zip(batch, answers):
            item[0].answered(answer)
            connections[item[0]] = None
        for connection in connections:
            connection.stored()

    cdef bint _append(self, list batch, object namespace, Record *records) except -1:
        """Store values under distinct keys; return False, with nothing done, where the Python code has to."""
        if namespace.broken or namespace.descriptor.worm or namespace.descriptor.maxsize:
            return False
        cdef object segments = namespace.segments, ends = segments.ends
        cdef uint32_t file_id = ends.file_id, now = <uint32_t>unix_time(NULL)
        cdef int64_t data_end = ends.data_end, index_end = ends.index_end
        cdef uint32_t data_last = ends.data_last, index_last = ends.index_last
        cdef Py_ssize_t data_bytes = 0, index_bytes = 0, position
        cdef bytes key, value
        cdef Record *record
        for position in range(len(batch)):
            record = &records[position]
            key, value = (<tuple>batch[position])[2], (<tuple>batch[position])[3]
            record.crc = checksum(value)
            record.row = find(namespace.live.keys._groups, key)
            record.found, record.same = record.row != NULL, False
            if record.found:
                memcpy(record.old, record.row, 24)
                if record.old[3] == record.crc and record.old[2] == <uint32_t>len(value):
                    record.same = self._same(namespace, key, value, record)
            if not record.same:
                data_bytes += DATA_HEAD + len(key) + len(value)
                index_bytes += INDEX_HEAD + len(key)
        if not data_bytes:
            return True
        if data_end + data_bytes > namespace.datasize or index_end + index_bytes > OFFSET_MAX:
            return False
        cdef bytes data = PyBytes_FromStringAndSize(NULL, data_bytes)
        cdef bytes index = PyBytes_FromStringAndSize(NULL, index_bytes)
        cdef char *to = PyBytes_AS_STRING(data)
        cdef char *entry = PyBytes_AS_STRING(index)
        cdef uint32_t key_bytes, value_bytes
        for position in range(len(batch)):
            record = &records[position]
            if record.same:
                continue
            key, value = (<tuple>batch[position])[2], (<tuple>batch[position])[3]
            key_bytes, value_bytes = len(key), len(value)
            record.data_offset = data_end + (to - PyBytes_AS_STRING(data))
            record.index_offset = index_end + (entry - PyBytes_AS_STRING(index))
            to[0] = key_bytes
            put_u32(to + 1, value_bytes)
            put_u32(to + 5, data_last)
            put_u32(to + 9, record.crc)
            to[13] = 0
            put_u32(to + 14, now)
            memcpy(to + DATA_HEAD, PyBytes_AS_STRING(key), key_bytes)
            memcpy(to + DATA_HEAD + key_bytes, PyBytes_AS_STRING(value), value_bytes)
            to += DATA_HEAD + key_bytes + value_bytes
            entry[0] = key_bytes
            put_u32(entry + 1, record.data_offset)
            put_u32(entry + 5, value_bytes)
            put_u32(entry + 9, index_last)
            entry[13] = 0
            put_u32(entry + 14, file_id)
            put_u32(entry + 18, now)
            put_u32(entry + 22, record.crc)
            put_u32(entry + 26, record.old[0] if record.found else 0)
            put_u32(entry + 30, record.old[5] if record.found else 0)
            memcpy(entry + INDEX_HEAD, PyBytes_AS_STRING(key), key_bytes)
            entry += INDEX_HEAD + key_bytes
            data_last, index_last = record.data_offset, record.index_offset
        try:
            segments.append_packed([data], data_last, index, index_last)
        except WriteError:
            # It is undone as a whole; the Python code tries again, one by one, and counts what fails.
            return False
        self._commit(batch, namespace, records, now)
        namespace.io.data_write_bytes += data_bytes
        namespace.io.index_write_bytes += index_bytes
        return True

    cdef bint _same(self, object namespace, bytes key, bytes value, Record *record) except -1:
        """Whether the stored value is this one; one that cannot be read is not, so that a SET mends it."""
        cdef uint32_t *old = record.old
        cdef int fd = self._fd(namespace.segments, old[0])
        if fd < 0 or not self._read(fd, key, old[1], old[2], old[3], self._old):
            return namespace.same(Put(key, value, 0), (old[0], old[1], old[2], old[3], old[4], old[5]))
        self._data_read += DATA_HEAD + len(key) + len(value)
        return memcmp(self._old, PyBytes_AS_STRING(value), len(value)) == 0

    cdef _commit(self, list batch, object namespace, Record *records, uint32_t now):
        """Note what was appended; the old rows first, as a new one may move them."""
        cdef object live = namespace.live, segments = namespace.segments
        cdef int64_t payload = 0, added = 0, key_bytes = 0
        cdef uint32_t file_id = segments.ends.file_id, last = file_id
        cdef int fd = segments.index_fd(file_id), current = fd
        cdef char deleted = DELETED
        cdef char entry[24]
        cdef bytes key, value
        cdef Py_ssize_t position
        cdef Record *record
        for position in range(len(batch)):
            record = &records[position]
            if record.same or not record.found:
                continue
            value = (<tuple>batch[position])[3]
            put_u32(record.row, file_id)
            put_u32(record.row + 4, record.data_offset)
            put_u32(record.row + 8, len(value))
            put_u32(record.row + 12, record.crc)
            put_u32(record.row + 16, now)
            put_u32(record.row + 20, record.index_offset)
            payload += len(value) - <int64_t>record.old[2]
            if record.old[0] != file_id:
                namespace.flag_deleted(record.old[0], record.old[5])
            elif pwrite(fd, &deleted, 1, <off_t>record.old[5] + FLAGS_AT) != 1:
                namespace.flag_deleted(record.old[0], record.old[5])
            else:
                segments.patched.add(file_id)
        for position in range(len(batch)):
            record = &records[position]
            if record.found:
                continue
            key, value = (<tuple>batch[position])[2], (<tuple>batch[position])[3]
            put_u32(entry, file_id)
            put_u32(entry + 4, record.data_offset)
            put_u32(entry + 8, len(value))
            put_u32(entry + 12, record.crc)
            put_u32(entry + 16, now)
            put_u32(entry + 20, record.index_offset)
            insert(live.keys, key, entry)
            payload += len(value)
            key_bytes += len(key)
            added += 1
        live.payload_bytes += payload
        live.key_bytes += key_bytes
        namespace.next_id += added

    cdef _answer(self, list batch, Record *records):
        """Answer each with its key, or nil where that very value was there; a connection's lie side by side."""
        cdef Py_ssize_t position, out = 0, count = len(batch)
        cdef object connection = None
        cdef tuple item
        cdef int fd = -1
        cdef bytes key
        for position in range(count):
            item = <tuple>batch[position]
            if item[0] is not connection or out > BATCH_BYTES:
                if out:
                    self._send(connection, fd, out)
                out = 0
                connection, fd = item[0], item[1]
                connection.wrote()
            if records[position].same:
                memcpy(self._out + out, b"$-1\r\n", 5)
                out += 5
                continue
            key = item[2]
            out += sprintf(self._out + out, "$%u\r\n", <unsigned int>len(key))
            memcpy(self._out + out, PyBytes_AS_STRING(key), len(key))
            out += len(key)
            memcpy(self._out + out, b"\r\n", 2)
            out += 2
        self._send(connection, fd, out)

    def count(self):
        """Bring the counters up to date: at the end of a round, and before anybody may look."""
        if not self._received:
            return
        stats = self._stats
        if self._gets:
            stats.operations["GET"] = stats.operations.get("GET", 0) + self._gets
        if self._sets:
            stats.operations["SET"] = stats.operations.get("SET", 0) + self._sets
        stats.commands += self._gets + self._sets
        stats.rx_bytes += self._received
        stats.tx_bytes += self._sent
        self._hub.context.store.io.data_read_bytes += self._data_read
        self._gets = self._sets = self._received = self._sent = self._data_read = 0
