"""Whether a started daemon is the member that the network knows; and making a fresh one that member."""

from __future__ import annotations

from collections.abc import Callable

from fungistor.errors import UnavailableError
from fungistor.ids import MemberNumber
from fungistor.node.fleet import MemberWipedError
from fungistor.node.pool_file import PoolMember
from fungistor.zdb.client import Client, IdentityError, Login, MemberError

CALL_WAIT_S = 5.0
FLUSH_WAIT_MS = 10_000

Pin = Callable[[PoolMember, MemberNumber], tuple[bytes, bytes]]
"""A member's identity: a key of its namespace, and the value that only this network could have left there."""


class ZdbClaims:
    """Claims over the members' own protocol."""

    def __init__(self, pin: Pin) -> None:
        self._pin = pin

    def claim(self, member: PoolMember, number: MemberNumber, admin: str) -> None:
        """Make a fresh member's namespace, closed by its password, and leave its identity there. Safe to repeat.

        Raises: UnavailableError where the daemon refuses or is silent.
        """
        with Client(member.address, Login(admin_password=admin, tls=member.trust), timeout_s=CALL_WAIT_S) as client:
            try:
                client.call("NSNEW", member.namespace)
            except MemberError:
                client.call("NSINFO", member.namespace)  # left by a start that was cut short; if not, this says why
            client.call("NSSET", member.namespace, "password", member.password)
            client.call("NSSET", member.namespace, "public", "0")
        key, value = self._pin(member, number)
        with Client(member.address, self._login(member), timeout_s=CALL_WAIT_S) as client:
            client.call("SET", key, value)
            flushed = client.call("WAITAOF", 1, 0, FLUSH_WAIT_MS, timeout_s=FLUSH_WAIT_MS / 1000 + CALL_WAIT_S)
            if not isinstance(flushed, list) or not flushed or flushed[0] != 1:
                raise UnavailableError(f"{member.id} did not put its identity on disk: answered {flushed!r}")

    def check(self, member: PoolMember, number: MemberNumber) -> None:
        """See that a member answers, and as itself.

        Raises: MemberWipedError where it does not; UnavailableError where it is silent.
        """
        login = self._login(member, self._pin(member, number))
        try:
            with Client(member.address, login, timeout_s=CALL_WAIT_S) as client:
                client.call("PING")
        except IdentityError as error:
            raise MemberWipedError(f"{member.id} does not hold the identity left there: {error}") from error
        except MemberError as error:
            if error.message.startswith("refused namespace"):
                raise MemberWipedError(f"{member.id} {error.message}") from error
            raise

    def _login(self, member: PoolMember, pin: tuple[bytes, bytes] | None = None) -> Login:
        return Login(namespace=member.namespace, password=member.password, pin=pin, tls=member.trust)
