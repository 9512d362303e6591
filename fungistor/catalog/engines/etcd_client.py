"""etcd's v3 API through its HTTP/JSON gateway: endpoints that fail over, a token that is renewed, errors of ours.

etcd: https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/. Keys and values travel as base64, 64-bit numbers as text.
"""

from __future__ import annotations

import contextlib
import json
import logging
import ssl
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from fungistor.errors import DeniedError, FailedError, InvalidError, UnavailableError

CONNECT_S: Final = 1.0
ANSWER_S: Final = 5.0
"""etcd gives up on a proposal after five seconds plus two elections."""

ASK_S: Final = 2.5
"""What may be sent twice is sent elsewhere sooner: a member that hangs should not hold everybody up."""

ASK_ALL_S: Final = 7.0
"""No further endpoint is tried after this: a command does several requests and must end within 20 s."""

EVERYWHERE_S: Final = 60.0
"""A member that writes its file anew answers when that is done."""

DEFAULT_PREFIX: Final = "fungistor"
PREFIX_CHARS_MAX: Final = 128
ENDPOINTS_MAX: Final = 16

_UNAVAILABLE: Final = 14
_UNAUTHENTICATED: Final = 16
_DENIED: Final = 7
_NOT_DONE: Final = ("no leader", "server stopped", "raft: stopped", "too many requests", "not ready")
"""What etcd says of a request that it did not begin."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class EtcdAddress:
    """Where a network's catalog lies: base URLs of the members, and the prefix of its keys."""

    endpoints: tuple[str, ...]
    prefix: str = DEFAULT_PREFIX


@dataclass(frozen=True, slots=True)
class EtcdLogin:
    """How to be let in. `ca`: a file of certificates to trust besides none other."""

    user: str = ""
    password: str = field(default="", repr=False)
    ca: str = ""


def parse_etcd_url(url: str) -> EtcdAddress:
    """Read ``etcd://HOST:PORT,HOST:PORT[/PREFIX]``, with ``etcds`` for TLS.

    Raises:
        InvalidError: anything else, a user or password in it among them.
    """
    scheme, found, rest = url.partition("://")
    if scheme not in ("etcd", "etcds") or not found:
        raise InvalidError(f"{scheme[:20]!r} is no catalog engine", hint="write etcd://HOST:PORT,HOST:PORT[/PREFIX]")
    if "@" in rest:
        raise InvalidError(
            "a catalog URL holds no user or password", hint="use --catalog-user and --catalog-password-file"
        )
    hosts, _, prefix = rest.partition("/")
    prefix = prefix.strip("/") or DEFAULT_PREFIX
    if len(prefix) > PREFIX_CHARS_MAX or not prefix.isprintable():
        raise InvalidError(f"a catalog's prefix has at most {PREFIX_CHARS_MAX} printable characters")
    names = hosts.split(",")
    if len(names) > ENDPOINTS_MAX:
        raise InvalidError(f"{len(names)} etcd endpoints are given, at most {ENDPOINTS_MAX} are used")
    for name in names:
        host, _, port = name.rpartition(":")
        if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 1 << 16:
            raise InvalidError(f"etcd endpoint {name!r} is not HOST:PORT", hint="etcd's clients use port 2379")
    web = "https" if scheme == "etcds" else "http"
    return EtcdAddress(tuple(f"{web}://{name}" for name in names), prefix)


def packed(data: bytes) -> str:
    """Bytes as the gateway takes them."""
    return b64encode(data).decode()


def unpacked(text: str) -> bytes:
    """Bytes as the gateway gives them."""
    return b64decode(text)


class EtcdClient:
    """Thread-safe. Requests go to the endpoint that answered last; another is tried where that did not begin them."""

    def __init__(self, address: EtcdAddress, login: EtcdLogin | None = None) -> None:
        """Raises: InvalidError: the file of certificates cannot be used."""
        self._login = login or EtcdLogin()
        self._endpoints = list(address.endpoints)
        self._lock = threading.Lock()
        logging.getLogger("httpx").setLevel(logging.WARNING)  # it tells of every request
        self._token = ""
        timeout = httpx.Timeout(ANSWER_S, connect=CONNECT_S)
        # No proxy of the environment: a catalog is reached as it is named.
        self._http = httpx.Client(timeout=timeout, verify=_trusted(self._login.ca), trust_env=False)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def ask(self, method: str, body: Json) -> Json:
        """A request that may be sent twice: it reads, or says itself what it relies on.

        Raises:
            UnavailableError: no endpoint answered it.
            DeniedError, InvalidError, FailedError: etcd refused it.
        """
        return self._send(method, body, is_repeatable=True)

    def change(self, method: str, body: Json) -> Json:
        """A request that is sent once: where it is unknown whether it happened, the error says so. Raises as `ask`."""
        return self._send(method, body, is_repeatable=False)

    def forget_history(self, key: bytes, *, free_bytes: int = 0) -> bool:
        """Compact etcd's history up to now, and have every member write its file anew without it; `key` is one that may
        be read. `free_bytes`: a member does so only where so much of its file is free, as it answers nobody meanwhile
        and has all of it in memory. False: not all of them have, or this user may not tell them to. Raises as `ask`.

        A member's write-ahead log keeps what it was told until etcd drops it, which no call can hasten.
        """
        revision = self.ask("kv/range", {"key": packed(key)})["header"]["revision"]
        try:
            with contextlib.suppress(InvalidError):  # compacted so far already
                self.ask("kv/compaction", {"revision": revision, "physical": True})
            return False not in {self._write_anew(endpoint, free_bytes) for endpoint in self._order()}
        except DeniedError:
            return False  # needs etcd's root user

    def _write_anew(self, endpoint: str, free_bytes: int) -> bool:
        try:
            if free_bytes:
                status = self._post(endpoint, "maintenance/status", {})
                if int(status.get("dbSize", 0)) - int(status.get("dbSizeInUse", 0)) < free_bytes:
                    return True
            self._post(endpoint, "maintenance/defragment", {}, EVERYWHERE_S)
        except (httpx.HTTPError, _NotBegunError, _DoubtfulError):
            return False
        return True

    @contextlib.contextmanager
    def stream(self, method: str, body: Json, timeout_s: float) -> Iterator[Iterator[Json]]:
        """Answers as they come, until none came for `timeout_s`. Raises: UnavailableError."""
        endpoint = self._order()[0]
        timeout = httpx.Timeout(timeout_s, connect=CONNECT_S)
        begun = False
        try:
            with self._http.stream(
                "POST", f"{endpoint}/v3/{method}", json=body, headers=self._headers(), timeout=timeout
            ) as answer:
                begun = True
                yield (json.loads(line) for line in answer.iter_lines() if line)
        except httpx.ReadTimeout:
            if not begun:  # a busy etcd has not even begun to answer
                yield iter(())
        except (httpx.HTTPError, RuntimeError, ValueError) as error:  # RuntimeError: closed by another thread
            self._rotate(endpoint)
            raise UnavailableError(f"etcd at {endpoint}: {_words(error)}") from error

    def _send(self, method: str, body: Json, *, is_repeatable: bool) -> Json:
        reasons: dict[str, str] = {}
        deadline = time.monotonic() + ASK_ALL_S
        for endpoint in self._order():
            if reasons and time.monotonic() > deadline:
                break
            try:
                return self._post(endpoint, method, body, ASK_S if is_repeatable else ANSWER_S)
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, _NotBegunError) as error:
                reasons[endpoint] = _words(error)
            except (httpx.HTTPError, _DoubtfulError) as error:
                if not is_repeatable:
                    raise UnavailableError(
                        f"the catalog's etcd at {endpoint} did not say whether a change happened: {_words(error)}",
                        hint="repeat it: what is committed already is not committed twice",
                        retry_after_s=2,
                    ) from error
                reasons[endpoint] = _words(error)
            except RuntimeError as error:
                raise UnavailableError("the catalog was closed") from error
            self._rotate(endpoint)
        told = "; ".join(f"{endpoint}: {reason}" for endpoint, reason in reasons.items())
        raise UnavailableError(
            f"the catalog's etcd cannot be reached or has no quorum ({told})",
            hint="what is published stays readable; start a majority of etcd's members to publish again",
            retry_after_s=5,
        )

    def _post(self, endpoint: str, method: str, body: Json, answer_s: float = ANSWER_S) -> Json:
        timeout = httpx.Timeout(answer_s, connect=CONNECT_S)
        for attempt in (1, 2):
            token = self._token
            answer = self._http.post(f"{endpoint}/v3/{method}", json=body, headers=self._headers(), timeout=timeout)
            problem = _problem(answer)
            if problem is None:
                return dict(answer.json())
            code, message = problem
            renewable = self._login.user and _wants_token(code, message)
            if attempt == 1 and renewable:
                self._authenticate(endpoint, token)
                continue
            raise _error(code, message)
        raise AssertionError("two attempts were made")

    def _authenticate(self, endpoint: str, old: str) -> None:
        with self._lock:
            if self._token != old:
                return
            body = {"name": self._login.user, "password": self._login.password}
            answer = self._http.post(f"{endpoint}/v3/auth/authenticate", json=body)
            problem = _problem(answer)
            if problem is not None:
                if problem[0] == _UNAVAILABLE:
                    raise _NotBegunError(problem[1])
                raise DeniedError(
                    f"etcd does not let user {self._login.user!r} in: {problem[1]}",
                    hint="check --catalog-user and --catalog-password-file",
                )
            self._token = str(answer.json()["token"])

    def _headers(self) -> Mapping[str, str]:
        return {"Authorization": self._token} if self._token else {}

    def _order(self) -> Sequence[str]:
        with self._lock:
            return tuple(self._endpoints)

    def _rotate(self, bad: str) -> None:
        """Begin with another endpoint from now on."""
        with self._lock:
            if self._endpoints[0] == bad:
                self._endpoints.append(self._endpoints.pop(0))


class _NotBegunError(Exception):
    """etcd did not begin the request."""


class _DoubtfulError(Exception):
    """etcd does not know whether it will happen."""


def _problem(answer: httpx.Response) -> tuple[int, str] | None:
    if answer.status_code == httpx.codes.OK:
        return None
    try:
        told = answer.json()
        return int(told.get("code", 0)), str(told.get("message") or told.get("error") or answer.status_code)
    except (ValueError, AttributeError, TypeError):
        return 0, f"HTTP status {answer.status_code}"


def _wants_token(code: int, message: str) -> bool:
    return code == _UNAUTHENTICATED or "auth token" in message or "user name is empty" in message


def _error(code: int, message: str) -> Exception:
    if any(words in message for words in _NOT_DONE):
        return _NotBegunError(message)
    if code == _DENIED or _wants_token(code, message):
        return DeniedError(
            f"etcd refuses: {message}",
            hint="give --catalog-user and --catalog-password-file of a user who may",
        )
    if "space exceeded" in message:
        return UnavailableError(
            f"etcd refuses to write: {message}", hint="compact and defragment etcd, then disarm its alarm"
        )
    if code in (_UNAVAILABLE, 4):
        return _DoubtfulError(message)
    if "compacted" in message:
        return InvalidError(f"etcd refuses: {message}")
    if "too large" in message or "too many operations" in message:
        return InvalidError(f"etcd refuses: {message}")
    return FailedError(f"etcd answered: {message}")


def _trusted(ca: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca or None)
    except (OSError, ssl.SSLError) as error:
        raise InvalidError(f"{ca}: holds no certificates to trust: {error}", hint="give a PEM file") from error


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
