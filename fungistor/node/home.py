"""The folder that holds everything of one node: where each thing lies, and whether a network runs on it."""

from __future__ import annotations

import fcntl
import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from fungistor.errors import DeniedError, FailedError, InvalidError, UnavailableError
from fungistor.node.files import make_durable_folder, read_bounded, write_atomic

HOME_VERSION = 1
"""Of the folder's arrangement. An older home is upgraded by `up`; a newer one is refused, never guessed at."""

VERSION_FILE_BYTES_MAX = 64
RUNNING_FILE_BYTES_MAX = 1 << 20

FLOCK = "hhqqi4x"
"""`struct flock` of Linux with 64-bit offsets: type, whence, start, length, process."""

NOT_RUNNING_HINT = "start it with `fungistor up` and leave that running"


@dataclass(frozen=True, slots=True)
class Running:
    """What a running `up` says of itself. `sync` False: nothing waits for the disk."""

    pid: int
    gateway: str
    sync: bool


@dataclass(frozen=True, slots=True)
class Home:
    """Paths of one home. Nothing is read or made until a method is called."""

    root: str

    @classmethod
    def resolve(cls, given: str | None, environment: Mapping[str, str] | None = None) -> Home:
        """Find the home: `given`, else FUNGISTOR_HOME, else XDG_DATA_HOME/fungistor. The path becomes absolute.

        Raises: InvalidError where none of them can be told.
        """
        env = os.environ if environment is None else environment
        if given == "":
            raise InvalidError("--home is empty", hint="name a folder, as in `fungistor --home ~/fungi status`")
        chosen = given or env.get("FUNGISTOR_HOME")
        if not chosen:
            data = env.get("XDG_DATA_HOME", "")
            if not os.path.isabs(data):  # the XDG rule: a relative path is to be ignored
                user = env.get("HOME") or os.path.expanduser("~")
                if not os.path.isabs(user):
                    raise InvalidError("no home folder is known", hint="set FUNGISTOR_HOME or give --home DIR")
                data = os.path.join(user, ".local", "share")
            chosen = os.path.join(data, "fungistor")
        if "\0" in chosen:
            raise InvalidError("the home's path holds a zero byte", hint="name another folder")
        return cls(os.path.abspath(os.path.expanduser(chosen)))

    def path(self, *parts: str) -> str:
        return os.path.join(self.root, *parts)

    @property
    def version_file(self) -> str:
        return self.path("VERSION")

    @property
    def config_file(self) -> str:
        return self.path("config.toml")

    @property
    def pool_file(self) -> str:
        return self.path("pool.toml")

    @property
    def keys(self) -> str:
        return self.path("keys")

    @property
    def catalog(self) -> str:
        return self.path("catalog")

    @property
    def catalog_log(self) -> str:
        return self.path("catalog", "log.sqlite")

    @property
    def appends(self) -> str:
        """Where publishers of this home that commit at the same moment meet."""
        return self.path("run", "appends")

    @property
    def unsettled(self) -> str:
        """Where processes note what they put into the pool before its claim stands in the log."""
        return self.path("catalog", "unsettled")

    @property
    def catalog_state(self) -> str:
        return self.path("catalog", "state.sqlite")

    @property
    def snapshot(self) -> str:
        return self.path("catalog", "snapshot")

    @property
    def snapshot_notes(self) -> str:
        return self.path("catalog", "snapshots.json")

    @property
    def key_table(self) -> str:
        return self.path("catalog", "keys.sqlite")

    @property
    def name_table(self) -> str:
        return self.path("catalog", "names.sqlite")

    @property
    def block_index(self) -> str:
        return self.path("index", "runs.sqlite")

    @property
    def members(self) -> str:
        return self.path("members")

    @property
    def index(self) -> str:
        return self.path("index")

    @property
    def cache(self) -> str:
        return self.path("cache")

    @property
    def cache_spans(self) -> str:
        return self.path("cache", "spans")

    @property
    def cache_lock(self) -> str:
        return self.path("cache", "flight.lock")

    @property
    def gateway_numbers(self) -> str:
        return self.path("run", "gateway")

    @property
    def journal(self) -> str:
        return self.path("journal")

    @property
    def run(self) -> str:
        return self.path("run")

    @property
    def lock_file(self) -> str:
        return self.path("run", "up.lock")

    @property
    def running_file(self) -> str:
        return self.path("run", "up.json")

    @property
    def states_file(self) -> str:
        return self.path("run", "states.json")

    def member_folder(self, member: str) -> str:
        return self.path("members", member)

    def member_log(self, member: str) -> str:
        return self.path("run", "members", f"{member}.log")

    @property
    def has_catalog(self) -> bool:
        """Whether a catalog was begun here: its log, or what was applied of a log elsewhere."""
        return os.path.exists(self.catalog_log) or os.path.exists(self.catalog_state)

    def exists(self) -> bool:
        """Tell whether a network was ever started here."""
        return os.path.exists(self.version_file)

    def prepare(self) -> bool:
        """Make the home and its folders, each closed to others from its first moment. True if it is a new home.

        Raises: DeniedError, FailedError, InvalidError (a newer VERSION).
        """
        try:
            make_durable_folder(os.path.dirname(self.root))
            _private_folder(self.root)
            new = self.check_version()
            for folder in (
                self.keys,
                self.catalog,
                self.members,
                self.index,
                self.cache,
                self.journal,
                self.run,
                self.path("run", "members"),
            ):
                _private_folder(folder)
            if new:
                write_atomic(self.version_file, f"{HOME_VERSION}\n".encode())
        except PermissionError as error:
            raise DeniedError(
                f"the home {self.root} cannot be written: {error.strerror}",
                hint="choose a folder of yours with --home DIR, or change its owner",
            ) from error
        except (FileExistsError, NotADirectoryError) as error:
            raise InvalidError(
                f"the home {self.root} cannot be a folder: {error.filename} is a file", hint="choose another --home"
            ) from error
        except OSError as error:
            raise FailedError(f"the home {self.root} cannot be made: {error.strerror}") from error
        return new

    def version(self) -> int:
        """The version that VERSION states, after `check_version` took it. Raises: FileNotFoundError."""
        return int((read_bounded(self.version_file, VERSION_FILE_BYTES_MAX) or b"0").decode("ascii", "replace").strip())

    def check_version(self) -> bool:
        """Tell whether VERSION is yet to be written.

        Raises: InvalidError where it is of a newer program or no version at all.
        """
        try:
            content = read_bounded(self.version_file, VERSION_FILE_BYTES_MAX)
        except FileNotFoundError:
            return True
        text = (content or b"").decode("ascii", "replace").strip()
        if not text.isascii() or not text.isdigit():
            raise InvalidError(
                f"{self.version_file} holds no version number", hint="this may not be a FungiStor home: choose another"
            )
        if int(text) > HOME_VERSION:
            raise InvalidError(
                f"the home {self.root} is of version {text}, this program knows versions up to {HOME_VERSION}",
                hint="use the newer fungistor that made it",
            )
        return False

    def lock(self) -> int:
        """Become the one `up` of this home. The descriptor given back holds the lock until it is closed.

        Raises: FailedError naming the process that has it.
        """
        descriptor = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _write_lock())
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise FailedError(
                f"a network already runs on {self.root}, as process {holder}",
                hint=f"use it, or stop it first with `kill {holder}`; another --home is another network",
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return descriptor

    def is_running(self) -> bool:
        """Tell whether an `up` holds this home now. The lock is the truth: unlike a file it ends with its process.

        It is asked about and never taken (as `flock` would need), so that asking cannot refuse a starting `up`.
        """
        try:
            descriptor = os.open(self.lock_file, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:
            answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _write_lock())
        finally:
            os.close(descriptor)
        return bool(struct.unpack(FLOCK, answer)[0] != fcntl.F_UNLCK)

    def running(self) -> Running | None:
        """Tell what the running `up` says of itself; None where none runs or it is not serving yet."""
        if not self.is_running():
            return None
        try:
            content = read_bounded(self.running_file, RUNNING_FILE_BYTES_MAX)
            said = json.loads(content or b"")
            return Running(pid=int(said["pid"]), gateway=str(said["gateway"]), sync=bool(said["sync"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def require_running(self) -> None:
        """Raises: UnavailableError where no network runs on this home, InvalidError where it is of a newer version."""
        if not self.exists():
            raise UnavailableError(f"network not running: there is none in {self.root} yet", hint=NOT_RUNNING_HINT)
        self.check_version()
        if not self.is_running():
            raise UnavailableError(f"network not running: none is up on {self.root}", hint=NOT_RUNNING_HINT)


def _write_lock() -> bytes:
    """`struct flock` for the whole file, as an open file description's own (process 0)."""
    return struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


def _private_folder(path: str) -> None:
    make_durable_folder(path, 0o700)
    if os.stat(path).st_mode & 0o077:
        os.chmod(path, 0o700)
