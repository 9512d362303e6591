"""One answer on its way to a client, gathered so that it can be hot for the next one who asks."""

from __future__ import annotations

from gateway.hot import SMALL_BODY_BYTES, HotAnswers, RawFields, is_lasting


class Gathering:
    """Holds on to the pieces of one body. Used on the loop's thread only; `close` it whatever comes."""

    def __init__(self, hot: HotAnswers, host: bytes, target: bytes) -> None:
        self._hot = hot
        self._host = host
        self._target = target
        self._generation = hot.generation
        self._fields: RawFields = ()
        self._pieces: list[bytes] | None = None
        self._room = 0
        self._left = 0

    def start(self, status: int, raw: list[tuple[bytes, bytes]]) -> None:
        """Look at the answer's head, and decide whether its body is wanted."""
        fields = dict(raw)
        if status != 200 or not is_lasting(self._target, fields):
            return
        text = fields.get(b"content-length")
        # A length that is known only at the end is gathered as far as a small body goes.
        length = SMALL_BODY_BYTES if text is None else int(text)
        if self._hot.wants(self._host, self._target, length):
            self._fields, self._pieces = list(raw), []
            self._room = self._left = length
            self._hot.gathered += length
        elif text is not None:
            self._hot.keep(self._host, self._target, raw, None, self._generation)

    def add(self, piece: bytes | memoryview) -> None:
        """Take what is being sent."""
        self._left -= len(piece)
        if self._left < 0:
            self.close()
        elif self._pieces is not None and piece:
            self._pieces.append(bytes(piece))

    def end(self) -> None:
        """The body was sent to its end."""
        if self._pieces is not None:
            self._hot.keep(self._host, self._target, self._fields, b"".join(self._pieces), self._generation)
        self.close()

    def close(self) -> None:
        """Let go of what was gathered."""
        self._hot.gathered -= self._room
        self._room, self._pieces = 0, None
