"""Who may take how much of a worker."""

from __future__ import annotations

import random

from gateway.forwarding import TrustedProxies
from gateway.operations import limits as limits_module
from gateway.operations.clients import client_address, client_key
from gateway.operations.limits import Limits, Rates
from gateway.operations.rules_file import HostLimits, OperatorRules


def test_one_client_leaves_room_for_the_next() -> None:
    """A client alone may take most of a worker, not all; another one is then taken in."""
    limits = Limits(80)
    taken = 0
    while limits.enter("greedy", "h", 0.0) is None:
        taken += 1
    assert taken == 70
    assert limits.enter("other", "h", 0.0) is None


def test_shares_are_fair_when_it_is_crowded() -> None:
    """With ten clients there, none gets in more than a tenth once half of the worker is taken."""
    limits = Limits(100)
    for client in range(10):
        for _ in range(5):
            assert limits.enter(str(client), "h", 0.0) is None
    for _ in range(5):
        assert limits.enter("0", "h", 0.0) is None
    refusal = limits.enter("0", "h", 0.0)
    assert refusal is not None
    assert refusal.retry_after_s > 0
    assert limits.enter("1", "h", 0.0) is None


def test_nothing_is_remembered_of_who_has_left() -> None:
    """After any order of comings and goings the table is empty again."""
    seed = 7
    chance = random.Random(seed)
    limits = Limits(50, OperatorRules(hosts={"h1": HostLimits(requests=5)}))
    inside: list[tuple[str, str]] = []
    for _ in range(3000):
        if inside and chance.random() < 0.5:
            limits.leave(*inside.pop(chance.randrange(len(inside))))
        else:
            who = (f"c{chance.randrange(200)}", f"h{chance.randrange(3)}")
            if limits.enter(*who, 0.0) is None:
                inside.append(who)
    for who in inside:
        limits.leave(*who)
    assert (limits.under_way, limits._clients, limits._hosts) == (0, {}, {}), f"seed {seed}"


def test_a_host_has_its_own_limits() -> None:
    """What one host name may take does not touch the others."""
    limits = Limits(100, OperatorRules(hosts={"small": HostLimits(requests=2), "slow": HostLimits(rate=1.0)}))
    assert [limits.enter("c", "small", 0.0) is None for _ in range(3)] == [True, True, False]
    assert [limits.enter("c", "slow", 0.0) is None for _ in range(2)] == [True, False]
    assert limits.enter("c", "slow", 1.0) is None
    assert limits.enter("c", "large", 0.0) is None


def test_a_rate_says_when_to_come_again() -> None:
    """A client over its rate is told the seconds until it has a token, and has one then."""
    limits = Limits(100, OperatorRules(client_rate=0.5, client_burst=2))
    assert [limits.enter("c", "h", 0.0) is None for _ in range(2)] == [True, True]
    refusal = limits.enter("c", "h", 0.0)
    assert refusal is not None
    assert refusal.retry_after_s == 2
    assert limits.enter("d", "h", 0.0) is None
    assert limits.enter("c", "h", 2.0) is None


def test_remembered_rates_are_bounded() -> None:
    """A million clients do not fill the memory."""
    rates = Rates()
    most = limits_module.BUCKETS_MAX
    for number in range(most + 500):
        rates.take(str(number), 1.0, 1.0, 0.0)
    assert len(rates) == most


def test_the_address_that_proxies_tell() -> None:
    """``X-Forwarded-For`` counts from its end as far as proxies are trusted, and not at all from anybody else."""
    trusted = TrustedProxies(["10.0.0.0/8"])
    assert client_address("10.0.0.1", "6.6.6.6, 1.2.3.4, 10.9.9.9", trusted) == "1.2.3.4"
    assert client_address("10.0.0.1", "1.2.3.4, unknown, 10.9.9.9", trusted) == "10.9.9.9"
    assert client_address("8.8.8.8", "1.2.3.4", trusted) == "8.8.8.8"
    assert client_address("10.0.0.1", None, trusted) == "10.0.0.1"


def test_addresses_of_one_subscriber_count_together() -> None:
    """Addresses of IPv6 count by their /64, mapped ones of IPv4 as themselves."""
    assert client_key("2001:db8::1") == client_key("2001:db8::ffff") != client_key("2001:db8:0:1::1")
    assert client_key("1.2.3.4") == "1.2.3.4"
