"""Members that run by themselves, as on other machines, for tests in which homes and members are lost."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import tomli_w

from tests.unit.zdb_daemon.harness import Daemon

PASSWORD = "none of anybody's business"


@dataclass
class Members:
    """Daemons by their ids, and the pool file that names them all."""

    folder: Path
    daemons: dict[str, Daemon] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)

    @property
    def pool(self) -> Path:
        return self.folder / "pool.toml"

    def start(self, name: str, *, new: bool = False) -> None:
        """Run a member on its folder; a new one gets its namespace."""
        running = Daemon(self.folder / name, "--admin", "admin")
        self.daemons[name], self.addresses[name] = running, running.address
        if new:
            client = running.client()
            assert client.call("AUTH", "admin") == b"OK"
            assert client.call("NSNEW", "pool") == b"OK"
            assert client.call("NSSET", "pool", "password", PASSWORD) == b"OK"
            assert client.call("NSSET", "pool", "public", "0") == b"OK"

    def kill(self, name: str) -> None:
        """End a member as a crash does; what it acknowledged is on its disk."""
        self.daemons.pop(name).kill()

    def copy_of(self, name: str) -> Path:
        """A member's folder as it is now, which `put_back` may bring back another day."""
        self.kill(name)
        aside = self.folder / f"{name}.old"
        shutil.copytree(self.folder / name, aside)
        self.start(name)
        self.write_pool()
        return aside

    def put_back(self, name: str, aside: Path) -> None:
        """Bring an old copy of a member's folder back in place of the one it has."""
        self.kill(name)
        shutil.rmtree(self.folder / name)
        shutil.copytree(aside, self.folder / name)
        self.start(name)
        self.write_pool()

    def write_pool(self) -> None:
        """The pool file as the members are now; one that is gone keeps its last address."""
        tables = [
            {"id": name, "address": address, "namespace": "pool", "password": PASSWORD, "zone": f"nl/{name}"}
            for name, address in sorted(self.addresses.items())
        ]
        self.pool.write_text(tomli_w.dumps({"member": tables}))
        self.pool.chmod(0o600)

    def end(self) -> None:
        for name in list(self.daemons):
            with contextlib.suppress(ProcessLookupError):
                self.kill(name)


@contextlib.contextmanager
def members(folder: Path, count: int) -> Iterator[Members]:
    """So many new members and their pool file, for the time of a test."""
    folder.mkdir()
    made = Members(folder)
    try:
        for number in range(1, count + 1):
            made.start(f"s{number:02d}", new=True)
        made.write_pool()
        yield made
    finally:
        made.end()
