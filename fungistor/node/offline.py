"""What needs no home: content is read and hashed, and nothing is stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO

from fungistor.objects.publish import hash_only
from fungistor.objects.results import Progress, PublishFailure, PublishOptions, PublishOutcome, no_progress


class OfflineNetwork:
    """What can be done with no network at all."""

    def __init__(self, stdin: BinaryIO) -> None:
        self._stdin = stdin

    def publish(
        self, paths: Sequence[str], options: PublishOptions, progress: Progress = no_progress
    ) -> Iterator[PublishOutcome | PublishFailure]:
        """Give the CIDs and store nothing."""
        return hash_only(paths, options, self._stdin, progress)

    def close(self) -> None:
        """Nothing is open."""
