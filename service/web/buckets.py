"""The token bucket in this process: the coarse per-address shield, and the stand-in while Redis is away. Pure.

GCRA: a key's theoretical arrival time moves by window·cost/quota for each charge and may be at most one window
ahead. Admitted in any interval D: at most quota + quota·D/window (ITU-T I.371, Annex A).
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from starlette.types import Scope

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Policy:
    """`quota` tokens, refilled over `window_s`."""

    name: str
    quota: int
    window_s: float

    @classmethod
    def parse(cls, text: str) -> Policy:
        """`burst=20/1`: 20 tokens a second. Raises `ValueError` saying what it should look like."""
        name, _, rate = text.partition("=")
        quota, _, window = rate.partition("/")
        try:
            policy = cls(name.strip(), int(quota), float(window))
        except ValueError:
            policy = cls("", 0, 0)
        if not policy.name.isidentifier() or policy.quota < 1 or policy.window_s <= 0:
            raise ValueError(f"{text!r} is not name=quota/window-in-seconds, such as burst=20/1")
        return policy


class State(NamedTuple):  # made for every request: a frozen dataclass takes three times as long
    """One policy after a charge: whole tokens left, and seconds until the cost asked for is there (0 if it was)."""

    policy: Policy
    left: int
    wait_s: float


class LocalBuckets:
    """Buckets by key; the least recently used are forgotten beyond `max_keys` (a forgotten bucket is a full one)."""

    def __init__(self, max_keys: int) -> None:
        self._max_keys = max_keys
        self._tats: OrderedDict[tuple[str, str], float] = OrderedDict()

    def charge(self, key: str, cost: int, policies: Sequence[Policy], *, now_s: float) -> tuple[bool, list[State]]:
        """Charge all policies or none; (allowed, state of each)."""
        moves = []
        for policy in policies:
            tat = min(max(self._tats.get((key, policy.name), now_s), now_s), now_s + policy.window_s)
            moves.append((policy, tat, tat + policy.window_s * cost / policy.quota))
        waits = [max(0.0, charged - now_s - policy.window_s) for policy, _, charged in moves]
        allowed = not any(wait > 1e-9 for wait in waits)
        states = []
        for (policy, tat, charged), wait in zip(moves, waits, strict=True):
            if allowed:
                self._remember((key, policy.name), charged)
            left = int((now_s + policy.window_s - (charged if allowed else tat)) * policy.quota / policy.window_s + 1e-9)
            states.append(State(policy, max(0, left), wait))
        return allowed, states

    def take(self, key: str, cost: int, policy: Policy, *, now_s: float) -> float:
        """Charge one policy; 0 if it was allowed, else the seconds to wait. The form every request pays for."""
        name, window_s = (key, policy.name), policy.window_s
        tat = max(self._tats.get(name, now_s), now_s)
        charged = min(tat, now_s + window_s) + window_s * cost / policy.quota
        wait_s = charged - now_s - window_s
        if wait_s > 1e-9:
            return wait_s
        self._remember(name, charged)
        return 0.0

    def _remember(self, key: tuple[str, str], tat: float) -> None:
        self._tats[key] = tat
        self._tats.move_to_end(key)
        while len(self._tats) > self._max_keys:
            self._tats.popitem(last=False)


def client_address(scope: Scope, trusted: Sequence[Network]) -> str:
    """The right-most address that is not a trusted proxy; IPv6 by its /64, since one host owns all of it."""
    peer = (scope.get("client") or ("0.0.0.0", 0))[0]  # noqa: S104 - a unix socket has no address
    if not trusted and "." in peer:
        return str(peer)
    chain = [part.strip() for name, value in scope["headers"] if name == b"x-forwarded-for" for part in value.decode("latin-1").split(",")]
    address = _parse(peer)
    while address is not None and chain and any(address in network for network in trusted):
        nearer = _parse(chain.pop())
        if nearer is None:
            break
        address = nearer
    if address is None:
        return peer
    return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else str(address)


def _parse(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None
