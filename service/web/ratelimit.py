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
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

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

_SCRIPT: Final = load_text(__file__, "token_bucket.lua")
_SHA: Final = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()
_LOCAL_KEYS: Final = 10_000
_LARGEST_COST: Final = 5
_LIFTED: Final = 1_000_000
_FAILED_TOKEN_COST: Final = 10


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a charge answered: the headers every response carries, and what the peeks saw (None: Redis is away)."""

    headers: list[tuple[bytes, bytes]]
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
        self._policies = {role: _scaled(base, factor * lift) for role, factor in factors.items()}
        self._default = _scaled(base, lift)
        self._bind_metrics()
        self._local = LocalBuckets(_LOCAL_KEYS)

    async def charge(self, caller: Caller, cost: int, refs: Sequence[Ref]) -> Verdict:
        """Take `cost` tokens and look at `refs` in one round trip. Raises `QuotaExceeded`."""
        policies = self._policies.get(caller.role, self._default)
        try:
            allowed, states, peeks = await self._ask_redis(caller, cost, policies, refs)
        except RedisAway:
            allowed, states = self._ask_locally(caller, cost, policies)
            peeks = None
        self._decided[allowed, peeks is None].inc()
        headers = _headers(states, cost, degraded=peeks is None)
        if not allowed:
            raise _denial(states, headers)
        return Verdict(headers, peeks)

    def _bind_metrics(self) -> None:
        outcomes, places = {True: "allowed", False: "denied"}, {True: "degraded", False: "shared"}
        self._decided = {(a, d): metrics.limit_decisions.labels(outcomes[a], places[d]) for a in outcomes for d in places}

    async def _ask_redis(self, caller: Caller, cost: int, policies: Sequence[Policy], refs: Sequence[Ref]) -> tuple[bool, list[State], Peeks]:
        keys = [f"rl:{{{caller.tag}}}:{policy.name}" for policy in policies]
        arguments = [number for policy in policies for number in (policy.quota, int(policy.window_s * 1_000_000))]
        commands: list[Command] = [("EVALSHA", _SHA, len(keys), *keys, cost, *arguments), *self._cache.peek_commands(refs)]
        first, *peeked = await self._redis.pipeline(commands)
        if isinstance(first, ReplyError) and str(first).startswith("NOSCRIPT"):
            _, first = await self._redis.pipeline([("SCRIPT", "LOAD", _SCRIPT), commands[0]])
        if isinstance(first, ReplyError):
            raise RedisAway from first
        states = [State(policy, max(0, first[2 * i + 1]), first[2 * i + 2] / 1_000_000) for i, policy in enumerate(policies)]
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


@cache
def _policy_header(policies: tuple[Policy, ...]) -> bytes:
    return ", ".join(f'"{policy.name}";q={policy.quota};w={policy.window_s:g}' for policy in policies).encode()


def _headers(states: Sequence[State], cost: int, *, degraded: bool) -> list[tuple[bytes, bytes]]:
    """draft-ietf-httpapi-ratelimit-headers: a client that paces at the smallest r/t is never refused."""
    shown = []
    for state in states:
        policy, left = state.policy, state.left
        refill_s = left * policy.window_s / policy.quota
        if left < cost:
            refill_s = max(state.wait_s, (cost - left) * policy.window_s / policy.quota)
        shown.append(f'"{policy.name}";r={left};t={max(1, math.ceil(refill_s))}{";degraded" if degraded else ""}')
    return [(b"ratelimit-policy", _policy_header(tuple(state.policy for state in states))), (b"ratelimit", ", ".join(shown).encode())]


def _denial(states: Sequence[State], headers: list[tuple[bytes, bytes]]) -> QuotaExceeded:
    violated = [state.policy.name for state in states if state.wait_s > 0]
    wait_s = max(state.wait_s for state in states)
    shown = {name.decode(): value.decode() for name, value in headers}
    return QuotaExceeded("slow down", headers=shown | _retry_after(wait_s), extra={"violated-policies": violated})


def _retry_after(wait_s: float) -> dict[str, str]:
    # Up to 10 % later, so that those refused together do not come back together.
    return {"retry-after": str(max(1, math.ceil(wait_s * random.uniform(1.0, 1.1))))}  # noqa: S311 - jitter
