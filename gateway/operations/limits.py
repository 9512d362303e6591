"""How much of a worker one client, or one host name, may take. Pure: the time is an argument."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

from gateway.operations.rules_file import HostLimits, OperatorRules

BUCKETS_MAX = 65_536
"""Clients whose rate is remembered, those seen last; some 100 bytes each. A client that was forgotten starts afresh."""

ALONE_SHARE = 7 / 8
"""What one client may take of a worker when it is crowded and nobody else is there: the next one must find room."""

BUSY_RETRY_S = 5


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not taken now, and when to come again."""

    why: str
    retry_after_s: int


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Rates:
    """Token buckets, as many as are remembered."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: str, rate: float, burst: float, now: float) -> float:
        """Take a token; 0 where there was one, else the seconds until there is."""
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(burst, now)
            if len(self._buckets) > BUCKETS_MAX:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
            bucket.tokens = min(burst, bucket.tokens + (now - bucket.at) * rate)
            bucket.at = now
        if bucket.tokens >= 1:
            bucket.tokens -= 1
            return 0.0
        return (1 - bucket.tokens) / rate


class Limits:
    """Requests under way in a worker, by client and host. What it remembers is bounded by how many are under way."""

    def __init__(self, requests_max: int, rules: OperatorRules | None = None) -> None:
        self._requests_max = requests_max
        self.rules = rules or OperatorRules()
        self.under_way = 0
        self._clients: dict[str, int] = {}
        self._hosts: dict[str, int] = {}
        self._rates = Rates()

    @property
    def has_rates(self) -> bool:
        """Tell whether every single request must be counted."""
        return self.rules.client_rate is not None or any(host.rate for host in self.rules.hosts.values())

    def enter(self, client: str, host: str, now: float) -> Refusal | None:
        """Take a request in, to be followed by `leave`; or say why not."""
        refusal = self._crowded(client) or self._over_host(host, now) or self._over_rate(client, now)
        if refusal is None:
            self.under_way += 1
            self._clients[client] = self._clients.get(client, 0) + 1
            if host in self.rules.hosts:
                self._hosts[host] = self._hosts.get(host, 0) + 1
        return refusal

    def leave(self, client: str, host: str) -> None:
        """A request that was taken in has ended."""
        self.under_way -= 1
        for counts, key in ((self._clients, client), (self._hosts, host)):
            if key in counts:
                counts[key] -= 1
                if counts[key] <= 0:
                    del counts[key]

    def _crowded(self, client: str) -> Refusal | None:
        most = self.rules.requests or self._requests_max
        if self.under_way >= most:
            return Refusal(f"{self.under_way} requests are under way", BUSY_RETRY_S)
        own = self._clients.get(client, 0)
        if self.rules.client_requests is not None and own >= self.rules.client_requests:
            return Refusal(f"{own} requests of this client are under way", BUSY_RETRY_S)
        if self.under_way >= most // 2:
            others = len(self._clients) - (client in self._clients)
            share = max(1, most // (others + 1) if others else math.ceil(most * ALONE_SHARE))
            if own >= share:
                return Refusal(f"it is crowded, and {own} requests of this client are under way", BUSY_RETRY_S)
        return None

    def _over_host(self, host: str, now: float) -> Refusal | None:
        limits: HostLimits | None = self.rules.hosts.get(host)
        if limits is None:
            return None
        own = self._hosts.get(host, 0)
        if limits.requests is not None and own >= limits.requests:
            return Refusal(f"{own} requests for {host} are under way", BUSY_RETRY_S)
        if limits.rate is not None:
            wait_s = self._rates.take(f"host {host}", limits.rate, max(1.0, limits.rate), now)
            if wait_s:
                return Refusal(f"{host} has more than {limits.rate:g} requests a second", math.ceil(wait_s))
        return None

    def _over_rate(self, client: str, now: float) -> Refusal | None:
        rate = self.rules.client_rate
        if rate is None:
            return None
        wait_s = self._rates.take(client, rate, self.rules.client_burst, now)
        return Refusal(f"this client sends more than {rate:g} requests a second", math.ceil(wait_s)) if wait_s else None
