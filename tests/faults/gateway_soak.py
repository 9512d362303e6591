"""Mixed traffic against a gateway while members die, hang and return: what is seen is judged, and nothing is forgiven.

One seed decides what every client asks and what is done to which member; timing decides the rest.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import signal
import statistics
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from tests.e2e.running import Up

CLIENTS = 6
LOSSES_MAX = 4
HARSH_LOSSES = 5
ANSWERS_MIN = 100
ANSWERS_WITHIN_S = 120.0
GRACE_S = 15.0
"""After more members than objects survive were away: until the last of them is found to be back."""

DESCRIPTORS_OF_THREADS_MAX = 48
"""Databases that a worker thread opens when it is first used, and connections to members of one more reader at once.
Both come late now and then, and are bounded by the threads and the pool."""

ABSENT = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"
EXPLAINED = (503, 504)
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class File:
    """A published file and its bytes."""

    cid: str
    data: bytes


@dataclass(slots=True)
class Tally:
    """What was seen. Locked by its owner."""

    answers: Counter[str] = field(default_factory=Counter)
    unexplained: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)
    descriptors: list[tuple[float, int]] = field(default_factory=list)
    descriptors_after: int = 0
    removed_kept: int = 0
    """Files that were removed and are still open at the end: what they hold, the disk lacks."""
    clients_left: int = 0
    harm: Counter[str] = field(default_factory=Counter)

    def descriptors_warm(self, until_s: float) -> int:
        """The most descriptors while the workers warmed up: threads, databases, connections, clients."""
        return max(count for at, count in self.descriptors if at <= until_s)

    def slope_mib_per_minute(self, after_s: float) -> float:
        """How fast the workers' memory grew after that time."""
        points = [(at / 60, held / MIB) for at, held in self.memory if at >= after_s]
        return statistics.linear_regression(*zip(*points, strict=True)).slope if len(points) > 2 else 0.0


class Soak:
    """One run against one network."""

    def __init__(self, up: Up, folder: Path, seed: int, seconds: float) -> None:
        self._up = up
        self._seed = seed
        self._chance = random.Random(seed)
        self._folder = folder
        self.tally = Tally()
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._seconds = seconds
        self._stop = threading.Event()
        self._harsh_until = 0.0
        self._files = [self._publish(size) for size in (0, 900, 70_000, 1_500_000, 9 * MIB, 20 * MIB)]
        tree = folder / "tree"
        tree.mkdir()
        for number in range(300):
            (tree / f"file-{number}.txt").write_text(f"{seed} {number}")
        self._tree = str(up.lines("publish", str(tree))[0]["cid"])

    def run(self) -> Tally:
        """Run to the end, then let everything return and look at what is left."""
        self._started = time.monotonic()
        with ThreadPoolExecutor(CLIENTS + 3) as pool:
            works = [pool.submit(self._client, number) for number in range(CLIENTS)]
            works += [pool.submit(self._slow_reader), pool.submit(self._harm), pool.submit(self._watch)]
            self._stop.wait(self._seconds)
            # A machine that is busy with other things asks as much as a quiet one, only later.
            deadline = time.monotonic() + ANSWERS_WITHIN_S
            while sum(self.tally.answers.values()) < ANSWERS_MIN and time.monotonic() < deadline:
                self._stop.wait(0.1)
            self._stop.set()
            for work in works:
                work.result()
        deadline = time.monotonic() + 90
        while self._clients() and time.monotonic() < deadline:
            threading.Event().wait(0.5)
        self.tally.clients_left = self._clients()
        self._up.lines("cache", "purge")
        deadline = time.monotonic() + 10
        while self._removed_kept() and time.monotonic() < deadline:
            threading.Event().wait(0.2)
        self.tally.removed_kept = self._removed_kept()
        self.tally.descriptors_after = self._descriptors()
        return self.tally

    # -- traffic ------------------------------------------------------------------------------------------------

    def _client(self, number: int) -> None:
        chance = random.Random(self._seed * 1000 + number)
        asks = [self._whole, self._range, self._range, self._tag, self._head, self._folder_page, self._raw]
        asks += [self._absent, self._in_folder, self._leave]
        with httpx.Client(base_url=self._up.gateway, timeout=40) as client:
            while not self._stop.is_set():
                ask = chance.choice(asks)
                try:
                    ask(client, chance)
                except httpx.HTTPError as error:
                    self._failed(f"{ask.__name__}: {error!r}")

    def _whole(self, client: httpx.Client, chance: random.Random) -> None:
        file = chance.choice(self._files)
        answer = client.get(f"/ipfs/{file.cid}")
        self._judge(answer, 200, file.data)

    def _range(self, client: httpx.Client, chance: random.Random) -> None:
        file = chance.choice(self._files[1:])
        start = chance.randrange(len(file.data))
        stop = min(len(file.data), start + chance.choice((1, 1000, 300_000)))
        answer = client.get(f"/ipfs/{file.cid}", headers={"Range": f"bytes={start}-{stop - 1}"})
        self._judge(answer, 206, file.data[start:stop])

    def _tag(self, client: httpx.Client, chance: random.Random) -> None:
        file = chance.choice(self._files)
        self._judge(client.get(f"/ipfs/{file.cid}", headers={"If-None-Match": f'"{file.cid}"'}), 304, b"")

    def _head(self, client: httpx.Client, chance: random.Random) -> None:
        file = chance.choice(self._files)
        answer = client.head(f"/ipfs/{file.cid}")
        self._judge(answer, 200, b"")
        if answer.status_code == 200 and answer.headers["content-length"] != str(len(file.data)):
            self._wrong(f"HEAD of {file.cid} says {answer.headers['content-length']}")

    def _folder_page(self, client: httpx.Client, chance: random.Random) -> None:
        answer = client.get(f"/ipfs/{self._tree}/", headers={"Accept": chance.choice(("*/*", "text/html"))})
        self._judge(answer, 200, None)
        if answer.status_code == 200 and "file-299.txt" not in answer.text:
            self._wrong("a folder's page lacks a name")

    def _in_folder(self, client: httpx.Client, chance: random.Random) -> None:
        number = chance.randrange(300)
        self._judge(client.get(f"/ipfs/{self._tree}/file-{number}.txt"), 200, f"{self._seed} {number}".encode())

    def _raw(self, client: httpx.Client, chance: random.Random) -> None:
        kind = chance.choice(("raw", "car"))
        answer = client.get(f"/ipfs/{self._files[1].cid}?format={kind}")
        if kind == "raw":
            self._judge(answer, 200, self._files[1].data)
        else:
            self._judge(answer, 200, None)
            if answer.status_code == 200 and self._files[1].data not in answer.content:
                self._wrong("a CAR lacks its block")

    def _absent(self, client: httpx.Client, chance: random.Random) -> None:
        self._judge(client.get(f"/ipfs/{ABSENT}?n={chance.random()}"), 404, None)

    def _leave(self, client: httpx.Client, chance: random.Random) -> None:
        """Go away in the middle of a body."""
        del client
        file = self._files[-1]
        with httpx.Client(timeout=40) as other, other.stream("GET", f"{self._up.gateway}/ipfs/{file.cid}") as answer:
            if answer.status_code == 200:
                part = next(answer.iter_raw(4096))
                if part != file.data[: len(part)]:
                    self._wrong("the first bytes of a long body")
                self._count("left")
            else:
                answer.read()
                self._judge(answer, 200, None)

    def _slow_reader(self) -> None:
        file = self._files[-1]
        while not self._stop.is_set():
            digest, read = hashlib.sha256(), 0
            try:
                with httpx.stream("GET", f"{self._up.gateway}/ipfs/{file.cid}", timeout=40) as answer:
                    if answer.status_code != 200:
                        answer.read()
                        self._judge(answer, 200, None)
                        continue
                    for part in answer.iter_raw(256 << 10):
                        digest.update(part)
                        read += len(part)
                        if self._stop.wait(0.05):
                            break
            except httpx.HTTPError as error:
                self._failed(f"slow reader after {read}: {error!r}")
                continue
            if digest.digest() != hashlib.sha256(file.data[:read]).digest():
                self._wrong("a slow reader's bytes")
            self._count("slow")

    # -- harm ---------------------------------------------------------------------------------------------------

    def _harm(self) -> None:
        """Stop and kill members, four at most; now and then five for a moment; and empty the cache."""
        chance = random.Random(self._seed + 1)
        members = [str(member["id"]) for member in self._up.ready["members"]]  # type: ignore[attr-defined]
        while not self._stop.wait(chance.uniform(1.0, 4.0)):
            what = chance.choices(("pause", "kill", "harsh", "purge", "publish"), (5, 4, 1, 3, 2))[0]
            self.tally.harm[what] += 1
            if what == "purge":
                self._up.lines("cache", "purge")
            elif what == "publish":
                self._files[3] = self._publish(1_500_000)
            else:
                count = HARSH_LOSSES if what == "harsh" else chance.randint(1, LOSSES_MAX)
                self._away(chance.sample(members, count), what, chance.uniform(1.0, 5.0))

    def _away(self, ids: list[str], what: str, seconds: float) -> None:
        if what == "harsh":
            self._harsh_until = time.monotonic() + seconds + GRACE_S
        by_name = {process.name(): process for process in self._up.processes()}
        processes = [by_name[f"fungistor-{name}"] for name in ids if f"fungistor-{name}" in by_name]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL if what == "kill" else signal.SIGSTOP)
        self._stop.wait(seconds)
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
        # Those that were killed are started again by `up`; the next harm must not meet more than four away.
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if all(line["state"] in ("up", "slow") for line in self._up.lines("member", "list")):
                return
        self._unexplained("members did not return within 30 s")

    # -- judging ------------------------------------------------------------------------------------------------

    def _judge(self, answer: httpx.Response, status: int, body: bytes | None) -> None:
        self._count(str(answer.status_code))
        if answer.status_code == status:
            if body is not None and answer.content != body:
                self._wrong(f"{answer.url}: {len(answer.content)} bytes, not those asked for")
        elif not (answer.status_code in EXPLAINED and self._is_harsh() and "m" in answer.text):
            self._unexplained(f"{answer.status_code} for {answer.url}: {answer.text[:300]}")

    def _failed(self, why: str) -> None:
        self._count("broken off")
        if not self._is_harsh():
            self._unexplained(why)

    def _is_harsh(self) -> bool:
        return time.monotonic() < self._harsh_until

    def _count(self, what: str) -> None:
        with self._lock:
            self.tally.answers[what] += 1

    def _wrong(self, what: str) -> None:
        with self._lock:
            self.tally.wrong.append(what)

    def _unexplained(self, what: str) -> None:
        with self._lock:
            self.tally.unexplained.append(f"{time.monotonic() - self._started:.0f} s: {what}")

    # -- what is held -------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        while True:
            with contextlib.suppress(psutil.NoSuchProcess):
                held = sum(process.memory_info().rss for process in self._workers())
                at = time.monotonic() - self._started
                self.tally.memory.append((at, held))
                self.tally.descriptors.append((at, self._descriptors()))
            if self._stop.wait(2.0):
                return

    def _workers(self) -> list[psutil.Process]:
        return [process for process in self._up.processes() if "gateway" in process.cmdline()]

    def _descriptors(self) -> int:
        return sum(process.num_fds() for process in self._workers())

    def _removed_kept(self) -> int:
        kept = 0
        for process in self._workers():
            folder = Path(f"/proc/{process.pid}/fd")
            for descriptor in folder.iterdir():
                with contextlib.suppress(OSError):  # closed meanwhile
                    kept += str(descriptor.readlink()).endswith(".segment (deleted)")
        return kept

    def _clients(self) -> int:
        """Connections of clients that a worker still holds, the kept ones of this process included."""
        port = int(self._up.gateway.rsplit(":", 1)[1])
        return sum(
            peer.laddr[1] == port and peer.status != psutil.CONN_LISTEN
            for process in self._workers()
            for peer in process.net_connections("tcp")
        )

    def _publish(self, size: int) -> File:
        data = self._chance.randbytes(size)
        path = self._folder / f"file-{size}"
        path.write_bytes(data)
        return File(str(self._up.lines("publish", str(path))[0]["cid"]), data)
