"""The bucket in this process behaves like the textbook token bucket, for any series of charges."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.web.buckets import LocalBuckets, Policy, client_address

# Powers of two keep the arithmetic of both exact: a difference is a difference of rules, not of rounding.
_POLICIES = st.builds(Policy, st.just("p"), st.sampled_from([1, 2, 4, 16]), st.sampled_from([0.5, 1.0, 4.0]))
_STEPS = st.lists(st.tuples(st.sampled_from([0, 0, 1, 2, 8, 64, 640]).map(lambda eighths: Fraction(eighths, 8)), st.integers(1, 5)), max_size=40)


class _Textbook:
    """`quota` tokens, refilled evenly."""

    def __init__(self, policy: Policy) -> None:
        self.quota, self.rate = policy.quota, Fraction(policy.quota) / Fraction(policy.window_s)
        self.tokens, self.at = Fraction(policy.quota), Fraction(0)

    def offer(self, cost: int, now: Fraction) -> bool:
        self.tokens, self.at = min(Fraction(self.quota), self.tokens + (now - self.at) * self.rate), now
        return self.tokens >= cost


@given(_POLICIES, _STEPS)
def test_both_forms_admit_what_the_textbook_admits(policy: Policy, steps: list[tuple[Fraction, int]]) -> None:
    book, charged, taken, now = _Textbook(policy), LocalBuckets(10), LocalBuckets(10), Fraction(1000)
    book.at = now
    for gap, cost in steps:
        now += gap
        expected = book.offer(cost, now)
        wait_s = Fraction(0) if expected else (cost - book.tokens) / book.rate
        book.tokens -= cost if expected else 0
        allowed, [state] = charged.charge("k", cost, [policy], now_s=float(now))
        assert allowed is expected
        assert state.wait_s == pytest.approx(float(wait_s))
        assert state.left == int(book.tokens)
        assert taken.take("k", cost, policy, now_s=float(now)) == pytest.approx(float(wait_s))


@given(_POLICIES, _STEPS)
def test_no_interval_admits_more_than_quota_and_refill(policy: Policy, steps: list[tuple[Fraction, int]]) -> None:
    buckets, now, admitted = LocalBuckets(10), Fraction(0), []
    for gap, cost in steps:
        now += gap
        if buckets.take("k", cost, policy, now_s=float(now)) == 0:
            admitted.append((now, cost))
    for first in range(len(admitted)):
        for last in range(first, len(admitted)):
            length = float(admitted[last][0] - admitted[first][0])
            assert sum(cost for _, cost in admitted[first : last + 1]) <= policy.quota + policy.quota * length / policy.window_s


def test_the_wait_told_is_the_wait_needed() -> None:
    buckets, policy = LocalBuckets(10), Policy("p", 3, 10.0)
    assert [buckets.take("k", 1, policy, now_s=5.0) for _ in range(3)] == [0.0] * 3
    wait_s = buckets.take("k", 1, policy, now_s=5.0)
    assert buckets.take("k", 1, policy, now_s=5.0 + wait_s - 0.01) > 0
    assert buckets.take("k", 1, policy, now_s=5.0 + wait_s) == 0


def test_all_policies_are_charged_or_none() -> None:
    buckets, burst, sustained = LocalBuckets(10), Policy("burst", 2, 1.0), Policy("sustained", 3, 100.0)
    both = [burst, sustained]
    assert [buckets.charge("k", 1, both, now_s=0.0)[0] for _ in range(3)] == [True, True, False]
    allowed, states = buckets.charge("k", 1, both, now_s=1.0)
    assert (allowed, [state.left for state in states]) == (True, [1, 0]), "the refused charge took nothing from `sustained`"
    allowed, states = buckets.charge("k", 1, both, now_s=1.0)
    assert (allowed, states[0].wait_s, states[1].wait_s > 30) == (False, 0.0, True)
    assert states[0].left == 1, "and nothing from `burst` either"


def test_keys_do_not_share_and_the_least_used_is_forgotten() -> None:
    buckets, policy = LocalBuckets(2), Policy("p", 1, 100.0)
    for key in ("a", "b"):
        assert buckets.take(key, 1, policy, now_s=0.0) == 0
    assert buckets.take("c", 1, policy, now_s=0.0) == 0
    assert buckets.take("b", 1, policy, now_s=0.0) > 0
    assert buckets.take("a", 1, policy, now_s=0.0) == 0, "forgotten is full"
    assert len(buckets._tats) == 2


def test_a_clock_that_steps_back_locks_nobody_out_for_longer_than_a_window() -> None:
    buckets, policy = LocalBuckets(2), Policy("p", 1, 10.0)
    assert buckets.take("k", 1, policy, now_s=1_000_000.0) == 0
    assert 0 < buckets.take("k", 1, policy, now_s=0.0) <= policy.window_s


@pytest.mark.parametrize(
    "text", ["", "burst", "burst=20", "burst=/1", "=20/1", "burst=0/1", "burst=-1/1", "burst=20/0", "burst=20/-1", "burst=1.5/1", "a b=1/1"]
)
def test_a_policy_that_cannot_be_read_says_how_it_should_look(text: str) -> None:
    with pytest.raises(ValueError, match="such as burst=20/1"):
        Policy.parse(text)


def test_policies_are_read() -> None:
    assert Policy.parse("burst=20/1") == Policy("burst", 20, 1.0)
    assert Policy.parse(" sustained =600/0.5") == Policy("sustained", 600, 0.5)


_PROXIES = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),  # not a proxy of ours: its header says nothing
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["6.6.6.6, 198.51.100.1"], "198.51.100.1"),  # the client's own addition stands left
        ("10.0.0.1", ["6.6.6.6", "198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["198.51.100.1, nonsense"], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("fd00::1", ["2001:db8:1:2:3:4:5:6"], "2001:db8:1:2::/64"),
        ("10.0.0.1", ["[2001:db8:1:2::9]"], "2001:db8:1:2::/64"),
        ("2001:db8:1:2:3:4:5:6", [], "2001:db8:1:2::/64"),
    ],
)
def test_the_address_charged_is_the_nearest_nobody_vouches_for(peer: str, forwarded: Sequence[str], expected: str) -> None:
    scope: Any = {"client": (peer, 1), "headers": [(b"x-forwarded-for", value.encode()) for value in forwarded]}
    assert client_address(scope, _PROXIES) == expected


def test_a_unix_socket_has_an_address_too() -> None:
    assert client_address({"client": None, "headers": []}, _PROXIES) == str(ipaddress.IPv4Address(0))
