"""How much one principal may ask for: token buckets in Redis, shared by all processes; local ones while it is away.

The charge and the request's cache peeks travel in one pipeline: one round trip on the hit path.
Losing Redis loosens the limit to quota ÷ replicas a process; it never answers 5xx (docs/adr/0016).
Tests: tests/unit/test_buckets.py, tests/integration/test_redis_wire.py.
"""

from __future__ import annotations

import ipaddress
import math
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple, TypeAlias

import hiredis
from hiredis import ReplyError
from starlette.types import Scope

from service.errors import QuotaExceeded
from service.foundation import metrics
from service.foundation.cache import Cache, Peeks, Ref
from service.foundation.redis import RedisAway, RedisClient, Script
from service.foundation.sql import load_text
from service.settings import Settings
from service.web.auth import Caller
from service.web.buckets import LocalBuckets, Policy, client_address
from service.web.head import head_pairs

_SCRIPT: Final = Script(load_text(__file__, "token_bucket.lua"))
# A policy after a charge: tokens left, and microseconds until the cost asked for is there.
_State: TypeAlias = tuple[Policy, int, float]
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
        command = quota.charge_command(caller.tag, cost)
        try:
            first, *peeked = await self._redis.pipeline([command, *self._cache.peek_commands(refs)])
            if type(first) is not list:
                first = await self._teach(first, command)
            if len(first) != 1 + 2 * len(quota.policies):  # nothing that this script says
                raise RedisAway
        except RedisAway:
            return self._charge_locally(caller, cost, quota.policies)
        states = list(zip(quota.policies, first[1::2], first[2::2], strict=True))
        lines = quota.lines % _numbers(states, cost)
        self._decided[first[0] == 1, False].inc()
        if not first[0]:
            raise _denial(states, lines)
        return Verdict(lines, self._cache.read_peeks(refs, peeked))

    def _bind_metrics(self) -> None:
        outcomes, places = {True: "allowed", False: "denied"}, {True: "degraded", False: "shared"}
        self._decided = {(a, d): metrics.limit_decisions.labels(outcomes[a], places[d]) for a in outcomes for d in places}

    async def _teach(self, reply: Any, command: bytes) -> list[Any]:
        """A Redis that was restarted has forgotten the script. Raises `RedisAway` for any other error."""
        if isinstance(reply, ReplyError) and str(reply).startswith("NOSCRIPT"):
            _, reply = await self._redis.pipeline([("SCRIPT", "LOAD", _SCRIPT.text), command])
        if not isinstance(reply, list):
            raise RedisAway
        return reply

    def _charge_locally(self, caller: Caller, cost: int, policies: Sequence[Policy]) -> Verdict:
        share = [replace(policy, quota=max(policy.quota // self._replicas, _LARGEST_COST)) for policy in policies]
        allowed, held = self._local.charge(caller.subject, cost, share, now_s=time.monotonic())
        states = [(policy, left, wait_s * 1_000_000) for policy, left, wait_s in held]
        lines = _lines_of(share, mark=";degraded") % _numbers(states, cost)
        self._decided[allowed, True].inc()
        if not allowed:
            raise _denial(states, lines)
        return Verdict(lines, None)


class AddressShield:
    """A coarse bucket by client address, in this process, before a token is looked at."""

    def __init__(self, settings: Settings) -> None:
        policy = Policy.parse(settings.limit.address)
        lift = _LIFTED if settings.app.profile == "load" else 1
        self._policy = replace(policy, quota=max(1, policy.quota * lift // settings.app.replicas))
        self._buckets = LocalBuckets(_LOCAL_KEYS)
        self._trusted = [ipaddress.ip_network(text) for text in settings.http.trusted_proxies]

    def charge(self, scope: Scope, *, failed_token: bool = False) -> None:
        """One token a request, ten more for a token that was not accepted. Raises `QuotaExceeded`."""
        cost = min(_FAILED_TOKEN_COST, self._policy.quota) if failed_token else 1
        wait_s = self._buckets.take(client_address(scope, self._trusted), cost, self._policy, now_s=time.monotonic())
        if wait_s > 0 and not failed_token:
            metrics.limit_decisions.labels("denied", "address").inc()
            raise QuotaExceeded("too many requests from this address", headers=_retry_after(wait_s))


def _scaled(policies: Sequence[Policy], factor: int) -> list[Policy]:
    return [replace(policy, quota=policy.quota * factor) for policy in policies]


class _Quota:
    """The policies of a role, with what is the same for each of its requests written out once."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self.policies = policies
        self.lines = _lines_of(policies)
        self._commands: dict[int, list[bytes]] = {}

    def charge_command(self, tag: str, cost: int) -> bytes:
        """The script's call on the wire: only the caller's tag is new in it, and that is always as long."""
        if cost not in self._commands:
            keys = [b"rl:{%b}:%b" % (_TAG, policy.name.encode()) for policy in self.policies]
            arguments = [number for policy in self.policies for number in (policy.quota, int(policy.window_s * 1_000_000))]
            words = ("EVALSHA", _SCRIPT.sha, len(keys), *keys, cost, *arguments)
            self._commands[cost] = hiredis.pack_command(words).split(_TAG)  # type: ignore[arg-type]  # its stub knows one argument
        return tag.encode().join(self._commands[cost])


def _lines_of(policies: Sequence[Policy], mark: str = "") -> bytes:
    """The header lines about these policies, with what `_numbers` says left open."""
    quotas = ", ".join(f'"{policy.name}";q={policy.quota};w={policy.window_s:g}' for policy in policies)
    states = ", ".join(f'"{policy.name}";r=%d;t=%d{mark}' for policy in policies)
    return f"ratelimit-policy: {quotas}\r\nratelimit: {states}\r\n".encode()


def _numbers(states: Sequence[_State], cost: int) -> tuple[int, ...]:
    """draft-ietf-httpapi-ratelimit-headers: r and t of each policy; a client that paces at the smallest r/t is never refused."""
    numbers: list[int] = []
    for policy, left, wait_us in states:
        refill_s = (left if left >= cost else cost - left) * policy.window_s / policy.quota
        if left < cost:
            refill_s = max(wait_us / 1_000_000, refill_s)
        numbers += (left, math.ceil(refill_s) or 1)
    return tuple(numbers)


def _denial(states: Sequence[_State], lines: bytes) -> QuotaExceeded:
    violated = [policy.name for policy, _, wait_us in states if wait_us > 0]
    wait_s = max(wait_us for _, _, wait_us in states) / 1_000_000
    shown = {name.decode(): value.decode() for name, value in head_pairs(lines)}
    return QuotaExceeded("slow down", headers=shown | _retry_after(wait_s), extra={"violated-policies": violated})


def _retry_after(wait_s: float) -> dict[str, str]:
    # Up to 10 % later, so that those refused together do not come back together.
    return {"retry-after": str(max(1, math.ceil(wait_s * random.uniform(1.0, 1.1))))}  # noqa: S311 - jitter
