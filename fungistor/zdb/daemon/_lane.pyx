# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The plain GETs and SETs of a round, compiled: as `Connection` does them by itself where this is not there.

Only what every client sends and nothing unusual is done here. All else, each refusal and each fault are left to the
Python code, which begins again from the same bytes; so this knows no reply but a value, a key and nil.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.errno cimport EAGAIN, EFAULT, EINTR, errno
from libc.stdint cimport uint32_t
from libc.stdio cimport sprintf
from libc.string cimport memcmp, memcpy, memmove

from fungistor.zdb.daemon._appends cimport Appends
from fungistor.zdb.daemon._shared cimport DATA_HEAD, find, iovec, u32, writev
from fungistor.zdb.daemon._values cimport Mappings, is_record, read_record

cdef extern from "<sys/socket.h>" nogil:
    ssize_t recv(int fd, void *buffer, size_t size, int flags)
    ssize_t send(int fd, const void *buffer, size_t size, int flags)
    int MSG_DONTWAIT
    int MSG_NOSIGNAL

EDITION = 3
"""What it goes with: `rounds.py` takes no other."""

cdef enum:
    READ_BYTES = 80 << 10
    VALUE_BYTES_MAX = 16 << 10
    LARGE_BYTES_MAX = 1 << 20
    BATCH_BYTES = 64 << 10
    LARGE = -2


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


cdef class Lane:
    """One daemon's."""

    cdef object _hub
    cdef object _stats
    cdef char *_in
    cdef char *_out
    cdef bint _sync
    cdef Appends _appends
    cdef readonly Mappings mappings
    cdef Py_ssize_t _gets, _sets, _received, _sent, _data_read
    # How long what was read must become before its first SET is whole; 0 where that is not known.
    cdef Py_ssize_t _wanted
    # Whether the connection that is served has nothing waiting for its socket.
    cdef bint _free

    def __cinit__(self):
        self._in = <char *>PyMem_Malloc(READ_BYTES)
        self._out = <char *>PyMem_Malloc(BATCH_BYTES + VALUE_BYTES_MAX + 512)
        if not self._in or not self._out:
            raise MemoryError

    def __dealloc__(self):
        PyMem_Free(self._in)
        PyMem_Free(self._out)

    def __init__(self, hub, mapped_bytes_max):
        self._hub = hub
        self._stats = hub.context.stats
        self._sync = hub.sync
        self._appends = Appends()
        self.mappings = Mappings(mapped_bytes_max)

    def serve(self, connection, int fd):
        """Read once and do what is plain; what is not is given to the connection, as bytes."""
        cdef object namespace = connection.plain_namespace()
        if namespace is None:
            return False
        cdef Py_ssize_t count = recv(fd, self._in, len(connection.lead), MSG_DONTWAIT)
        if count <= 0:
            if count == 0:
                connection.ended()
            elif errno != EAGAIN and errno != EINTR:
                connection.abort()
            return True
        connection.heard = True
        self._received += count
        cdef Py_ssize_t done = self._work(connection, namespace, fd, 0, count), more
        while self._wanted and self._wanted <= READ_BYTES and connection.plain_namespace() is namespace:
            # A long value comes in pieces; mostly its last one is there by now.
            if done + self._wanted > READ_BYTES:
                memmove(self._in, self._in + done, count - done)
                count, done = count - done, 0
            more = recv(fd, self._in + count, READ_BYTES - count, MSG_DONTWAIT)
            if more <= 0:
                break
            self._received += more
            count += more
            done = self._work(connection, namespace, fd, done, count)
        if done < count:
            rest = PyBytes_FromStringAndSize(self._in + done, count - done)
            self.store()
            self.count()
            connection.unusual(rest)
        return True

    def go_on(self, connection, int fd, bytes data):
        """Do what is plain of what was read before; return where the rest begins."""
        cdef object namespace = connection.plain_namespace()
        cdef Py_ssize_t done
        if namespace is None or len(data) > READ_BYTES:
            return 0
        memcpy(self._in, PyBytes_AS_STRING(data), len(data))
        done = self._work(connection, namespace, fd, 0, len(data))
        self.store()
        self.count()
        return done

    cdef Py_ssize_t _work(self, object connection, object namespace, int fd, Py_ssize_t pos, Py_ssize_t count) except -1:
        """Do what is plain of what lies in `_in`; return where the rest begins."""
        cdef char *data = self._in
        cdef Py_ssize_t out = 0, at, key_at, key_bytes, value_bytes
        cdef bint asked = False, writing = False, own = False
        cdef bytes key
        self._wanted = 0
        # Nothing waits at a connection that is plain; whether its own writes do under --sync is for it to say.
        self._free = not self._sync
        while count - pos > 18:
            if out >= BATCH_BYTES:
                self._send(connection, fd, out)
                out = 0
                if not self._free and not connection.send_now:
                    break
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
                    if not (self._free or connection.send_now) or not self._get_large(connection, namespace, key, fd):
                        break
                    at = 0
                if at < 0:
                    break
                out += at
                self._gets += 1
                pos = key_at + key_bytes + 2
            elif memcmp(data + pos, b"*3\r\n$3\r\nSET\r\n$", 14) == 0:
                if not asked:
                    asked, writing = True, connection.plain_writing(namespace)
                if not writing:
                    break
                key_at = number_line(data, pos + 14, count, &key_bytes)
                if key_at < 0 or not 0 < key_bytes < 256:
                    break
                at = key_at + key_bytes
                if at + 3 > count or data[at] != 13 or data[at + 1] != 10 or data[at + 2] != 36:
                    break
                at = number_line(data, at + 3, count, &value_bytes)
                if at < 0:
                    break
                if at + value_bytes + 2 > count:
                    self._wanted = at + value_bytes + 2 - pos
                    break
                if data[at + value_bytes] != 13 or data[at + value_bytes + 1] != 10:
                    break
                key = PyBytes_FromStringAndSize(data + key_at, key_bytes)
                if out:
                    self._send(connection, fd, out)
                    out = 0
                if not self._appends.fits(namespace, key, value_bytes):
                    self.store()
                if self._sync and connection.held:
                    # Its answer would leave with the flush that it waits for, which does not cover it.
                    break
                self._appends.add(connection, fd, namespace, key, data + at, value_bytes)
                self._sets += 1
                own = True
                if value_bytes > VALUE_BYTES_MAX:
                    # It is stored from where it lies.
                    self.store()
                pos = at + value_bytes + 2
            else:
                break
        if out:
            self._send(connection, fd, out)
        return pos

    cdef _send(self, object connection, int fd, Py_ssize_t count):
        """Send the first bytes of `_out` to a connection, behind all that waits there."""
        cdef Py_ssize_t sent
        if not self._free and not connection.send_now:
            connection.answer(PyBytes_FromStringAndSize(self._out, count))
            return
        sent = send(fd, self._out, count, MSG_DONTWAIT | MSG_NOSIGNAL)
        if sent < 0:
            # Not now, or never again: the transport finds out which.
            sent = 0
        self._sent += sent
        if sent < count:
            self._free = False
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
        cdef uint32_t length = u32(row + 8)
        if length > VALUE_BYTES_MAX:
            return LARGE if length <= LARGE_BYTES_MAX else -1
        cdef int fd = self._fd(namespace.segments, u32(row))
        cdef int head = sprintf(out, "$%u\r\n", length)
        if fd < 0 or not read_record(fd, key, u32(row + 4), length, u32(row + 12), out + head):
            return -1
        self._data_read += DATA_HEAD + len(key) + length
        memcpy(out + head + length, b"\r\n", 2)
        return head + length + 2

    cdef bint _get_large(self, object connection, object namespace, bytes key, int fd) except -1:
        """Send a value from where it lies; return False, with nothing sent, where the Python code has to."""
        cdef char *row = find(namespace.live.keys._groups, key)
        cdef uint32_t offset = u32(row + 4), length = u32(row + 8), crc = u32(row + 12)
        cdef int file = self._fd(namespace.segments, u32(row))
        if file < 0:
            return False
        cdef const char *record = self.mappings.at(file, offset, DATA_HEAD + len(key) + length)
        cdef const char *value
        cdef bytes held = None
        cdef char head[16]
        cdef iovec parts[3]
        cdef Py_ssize_t head_bytes = sprintf(head, "$%u\r\n", length), sent
        if record != NULL:
            if not is_record(record, key, length, crc):
                return False
            value = record + DATA_HEAD + len(key)
        else:
            held = PyBytes_FromStringAndSize(NULL, length)
            if not read_record(file, key, offset, length, crc, PyBytes_AS_STRING(held)):
                return False
            value = PyBytes_AS_STRING(held)
        parts[0].iov_base, parts[0].iov_len = head, head_bytes
        parts[1].iov_base, parts[1].iov_len = <char *>value, length
        parts[2].iov_base, parts[2].iov_len = <char *>b"\r\n", 2
        sent = writev(fd, parts, 3)
        if sent < 0:
            if errno == EFAULT:
                return False
            # Not now, or never again: the transport finds out which.
            sent = 0
        self._data_read += DATA_HEAD + len(key) + length
        self._sent += sent
        if sent == head_bytes + length + 2:
            return True
        if held is None:
            # What waits for the socket must not lie in a file that may go.
            held = PyBytes_FromStringAndSize(NULL, length)
            if not read_record(file, key, offset, length, crc, PyBytes_AS_STRING(held)):
                connection.abort()
                return True
        self._free = False
        # What is left of the value is not copied.
        left = []
        for piece in (head[:head_bytes], memoryview(held), b"\r\n"):
            if sent < len(piece):
                left.append(piece[sent:])
            sent = max(sent - len(piece), 0)
        connection.answer(*left)
        return True

    def store(self):
        """Store the SETs of this round by one write, then answer them."""
        cdef Appends appends = self._appends
        cdef list items = appends.items
        if not items:
            return
        # Others are answered, too.
        self._free = False
        answers = None
        try:
            if not appends.store():
                answers = appends.by_python()
        finally:
            appends.clear()
        if answers is None:
            self._answer(items)
            return
        connections = {}
        for item, answer in zip(items, answers):
            item[0].answered(answer)
            connections[item[0]] = None
        for connection in connections:
            connection.stored()

    cdef _answer(self, list items):
        """Answer each with its key, or nil where that very value was there; a connection's lie side by side."""
        cdef Py_ssize_t position, out = 0
        cdef object connection = None
        cdef tuple item
        cdef int fd = -1
        cdef bytes key
        for position in range(len(items)):
            item = <tuple>items[position]
            if item[0] is not connection or out > BATCH_BYTES:
                if out:
                    self._send(connection, fd, out)
                out = 0
                connection, fd = item[0], item[1]
                connection.wrote()
            if self._appends.records[position].same:
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
        if not (self._received or self._gets or self._sets):
            return
        stats = self._stats
        if self._gets:
            stats.operations["GET"] = stats.operations.get("GET", 0) + self._gets
        if self._sets:
            stats.operations["SET"] = stats.operations.get("SET", 0) + self._sets
        stats.commands += self._gets + self._sets
        stats.rx_bytes += self._received
        stats.tx_bytes += self._sent
        self._hub.context.store.io.data_read_bytes += self._data_read + self._appends.read_bytes
        self._gets = self._sets = self._received = self._sent = self._data_read = self._appends.read_bytes = 0
