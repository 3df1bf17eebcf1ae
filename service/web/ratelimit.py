"""How much one principal may ask for: token buckets in Redis, shared by all processes; local ones while it is away.

The charge and the request's cache peeks travel in one pipeline: one round trip on the hit path.
Losing Redis loosens the limit to quota ÷ replicas a process; it never answers 5xx (docs/adr/0016).
Tests: tests/unit/test_buckets.py, tests/integration/test_redis_wire.py.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import hiredis
from hiredis import ReplyError
from starlette.types import Scope

from service.errors import QuotaExceeded
from service.foundation import metrics
from service.foundation.cache import Cache, Peeks, Ref
from service.foundation.redis import RedisAway, RedisClient
from service.foundation.redis_wire import Command
from service.foundation.sql import load_text
from service.settings import Settings
from service.web.auth import Caller
from service.web.buckets import LocalBuckets, Policy, State, client_address
from service.web.head import head_pairs

_SCRIPT: Final = load_text(__file__, "token_bucket.lua")
_SHA: Final = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()
_TAG: Final = b"<sixteen-digits>"  # where a caller's tag goes
_LOCAL_KEYS: Final = 10_000
_LARGEST_COST: Final = 5
_LIFTED: Final = 1_000_000
_FAILED_TOKEN_COST: Final = 10


class Verdict(NamedTuple):
    """What a charge answered: the head lines every response carries, and what the peeks saw (None: Redis is away)."""

    lines: bytes
    peeks: Peeks | None


class Limiter:
    """Charges principals, and answers what was peeked on the way."""

    def __init__(self, settings: Settings, redis: RedisClient, cache: Cache) -> None:
        limit = settings.limit
        lift = _LIFTED if settings.app.profile == "load" else 1
        self._redis = redis
        self._cache = cache
        self._replicas = settings.app.replicas
        base = [Policy.parse(text) for text in limit.policies]
        factors = {role: int(factor) for role, _, factor in (item.partition("=") for item in limit.role_factors)}
        self._quotas = {role: _Quota(_scaled(base, factor * lift)) for role, factor in factors.items()}
        self._default = _Quota(_scaled(base, lift))
        self._bind_metrics()
        self._local = LocalBuckets(_LOCAL_KEYS)

    async def charge(self, caller: Caller, cost: int, refs: Sequence[Ref]) -> Verdict:
        """Take `cost` tokens and look at `refs` in one round trip. Raises `QuotaExceeded`."""
        quota = self._quotas.get(caller.role, self._default)
        peeks: Peeks | None = None
        try:
            allowed, states, peeks = await self._ask_redis(caller, cost, quota, refs)
        except RedisAway:
            allowed, states = self._ask_locally(caller, cost, quota.policies)
        self._decided[allowed, peeks is None].inc()
        lines = (quota.line if peeks is not None else _policy_line(states)) + _state_line(states, cost, degraded=peeks is None)
        if not allowed:
            raise _denial(states, lines)
        return Verdict(lines, peeks)

    def _bind_metrics(self) -> None:
        outcomes, places = {True: "allowed", False: "denied"}, {True: "degraded", False: "shared"}
        self._decided = {(a, d): metrics.limit_decisions.labels(outcomes[a], places[d]) for a in outcomes for d in places}

    async def _ask_redis(self, caller: Caller, cost: int, quota: _Quota, refs: Sequence[Ref]) -> tuple[bool, list[State], Peeks]:
        charge = quota.charge_command(caller.tag, cost)
        commands: list[Command] = [charge, *self._cache.peek_commands(refs)]
        first, *peeked = await self._redis.pipeline(commands)
        if isinstance(first, ReplyError) and str(first).startswith("NOSCRIPT"):
            _, first = await self._redis.pipeline([("SCRIPT", "LOAD", _SCRIPT), commands[0]])
        if not isinstance(first, list) or len(first) != 1 + 2 * len(quota.policies):  # an error, or nothing that this script says
            raise RedisAway
        states = [
            State(policy, max(0, left), wait_us / 1_000_000) for policy, left, wait_us in zip(quota.policies, first[1::2], first[2::2], strict=True)
        ]
        return bool(first[0]), states, self._cache.read_peeks(refs, peeked)

    def _ask_locally(self, caller: Caller, cost: int, policies: Sequence[Policy]) -> tuple[bool, list[State]]:
        share = [replace(policy, quota=max(policy.quota // self._replicas, _LARGEST_COST)) for policy in policies]
        return self._local.charge(caller.subject, cost, share, now_s=time.monotonic())


class AddressShield:
    """A coarse bucket by client address, in this process, before a token is looked at."""

    def __init__(self, settings: Settings) -> None:
        policy = Policy.parse(settings.limit.address)
        lift = _LIFTED if settings.app.profile == "load" else 1
        quota = max(1, policy.quota * lift // settings.app.replicas)
        self._policies = [replace(policy, quota=quota)]
        self._buckets = LocalBuckets(_LOCAL_KEYS)
        self._trusted = [ipaddress.ip_network(text) for text in settings.http.trusted_proxies]

    def charge(self, scope: Scope, *, failed_token: bool = False) -> None:
        """One token a request, ten more for a token that was not accepted. Raises `QuotaExceeded`."""
        cost = _FAILED_TOKEN_COST if failed_token else 1
        cost = min(cost, self._policies[0].quota)
        wait_s = self._buckets.take(client_address(scope, self._trusted), cost, self._policies[0], now_s=time.monotonic())
        if wait_s > 0 and not failed_token:
            metrics.limit_decisions.labels("denied", "address").inc()
            raise QuotaExceeded("too many requests from this address", headers=_retry_after(wait_s))


def _scaled(policies: Sequence[Policy], factor: int) -> list[Policy]:
    return [replace(policy, quota=policy.quota * factor) for policy in policies]


class _Quota:
    """The policies of a role, with what is the same for each of its requests written out once."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self.policies = policies
        self.line = _policy_line([State(policy, 0, 0.0) for policy in policies])
        self._commands: dict[int, bytes] = {}

    def charge_command(self, tag: str, cost: int) -> bytes:
        """The script's call on the wire: only the caller's tag is new in it, and that is always as long."""
        if cost not in self._commands:
            keys = [b"rl:{%b}:%b" % (_TAG, policy.name.encode()) for policy in self.policies]
            arguments = [number for policy in self.policies for number in (policy.quota, int(policy.window_s * 1_000_000))]
            words = ("EVALSHA", _SHA, len(keys), *keys, cost, *arguments)
            self._commands[cost] = hiredis.pack_command(words)  # type: ignore[arg-type]  # its stub knows one argument
        return self._commands[cost].replace(_TAG, tag.encode())


def _policy_line(states: Sequence[State]) -> bytes:
    policies = [state.policy for state in states]
    shown = ", ".join(f'"{policy.name}";q={policy.quota};w={policy.window_s:g}' for policy in policies)
    return b"ratelimit-policy: %b\r\n" % shown.encode()


def _state_line(states: Sequence[State], cost: int, *, degraded: bool) -> bytes:
    """draft-ietf-httpapi-ratelimit-headers: a client that paces at the smallest r/t is never refused."""
    shown, mark = [], ";degraded" if degraded else ""
    for policy, left, wait_s in states:
        refill_s = left * policy.window_s / policy.quota if left >= cost else max(wait_s, (cost - left) * policy.window_s / policy.quota)
        shown.append(f'"{policy.name}";r={left};t={math.ceil(refill_s) or 1}{mark}')
    return b"ratelimit: %b\r\n" % ", ".join(shown).encode()


def _denial(states: Sequence[State], lines: bytes) -> QuotaExceeded:
    violated = [state.policy.name for state in states if state.wait_s > 0]
    wait_s = max(state.wait_s for state in states)
    shown = {name.decode(): value.decode() for name, value in head_pairs(lines)}
    return QuotaExceeded("slow down", headers=shown | _retry_after(wait_s), extra={"violated-policies": violated})


def _retry_after(wait_s: float) -> dict[str, str]:
    # Up to 10 % later, so that those refused together do not come back together.
    return {"retry-after": str(max(1, math.ceil(wait_s * random.uniform(1.0, 1.1))))}  # noqa: S311 - jitter
