"""Cache-aside without stale values: every entry carries its row's version, and Redis compares them.

peek → fresh: serve · soft-expired (60 s): serve, one caller refreshes · miss: one load a process, filled by the
holder of a lease. Fill and invalidate are version-guarded, so they commute; Redis away means no cache, never a
wrong answer. Why not delete: docs/adr/0008. Tests: tests/integration/test_cache_races.py.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import orjson

from service.errors import ServiceError
from service.foundation import metrics
from service.foundation.log import get_logger
from service.foundation.redis import RedisAway, RedisClient, Script
from service.foundation.redis_wire import Command
from service.foundation.sql import load_text

log = get_logger(__name__)

_SCRIPT: Final = Script(load_text(__file__, "cache.lua"))
_PREFIX: Final = "c1"  # raised when the stored form changes
_PEEK: Final = b"*5\r\n$5\r\nHMGET\r\n$%d\r\n%b\r\n$1\r\nv\r\n$1\r\nd\r\n$1\r\nf\r\n"
_SOFT_S: Final = 60.0
_STALE_MAX_S: Final = 300.0
_HARD_MS: Final = 360_000
_NEGATIVE_MS: Final = 5_000
_FLOOR_MS: Final = 60_000  # longer than any load takes
_LEASE_MS: Final = 2_500
_MAX_BYTES: Final = 65_536
_POOL_SHARE: Final = 0.25

Ref = tuple[str, str]
# Id → (version, JSON bytes) of those that exist.
Load = Callable[[Sequence[str]], Awaitable[Mapping[str, tuple[int, bytes]]]]


class Entry:
    """A cached object: its row's version, its JSON, seconds since it was read from PostgreSQL. Version 0: it does not exist."""

    __slots__ = ("_value", "age_s", "data", "exists", "version")

    def __init__(self, version: int, data: bytes, age_s: float = 0.0) -> None:
        self.version, self.data, self.age_s, self.exists = version, data, age_s, version > 0
        self._value: dict[str, Any] | None = None

    @property
    def value(self) -> dict[str, Any]:
        """The decoded JSON, not to be changed: decoded once, and checked then if it came from Redis."""
        if self._value is None:
            self._value = orjson.loads(self.data)
        return self._value


Peeks = dict[Ref, Entry]


def entry_keys(ref: Ref) -> list[str]:
    """Entry, floor and lease of one object: one hash tag, so they live in one cluster slot."""
    stem = f"{_PREFIX}:{{{ref[0]}:{ref[1]}}}"
    return [stem, f"{stem}:floor", f"{stem}:lease"]


class Cache:
    """Versioned entries in Redis, loads single-flighted in this process."""

    def __init__(self, redis: RedisClient, *, pool_size: int = 10) -> None:
        self._redis = redis
        self._loads = asyncio.Semaphore(max(1, int(pool_size * _POOL_SHARE)))
        self._flights: dict[Ref, asyncio.Task[Mapping[Ref, Entry]]] = {}
        self._background: dict[Ref, asyncio.Task[None]] = {}
        self._outcomes: dict[Ref, Any] = {}

    # -- reading

    @staticmethod
    def peek_commands(refs: Sequence[Ref]) -> list[Command]:
        """One read-only command a ref for a pipeline; give the replies to `read_peeks`."""
        # As Redis reads it on the wire: an id is text that was checked, of any length.
        return [_PEEK % (len(key := f"{_PREFIX}:{{{entity}:{item}}}".encode()), key) for entity, item in refs]

    @staticmethod
    def read_peeks(refs: Sequence[Ref], results: Sequence[Any]) -> Peeks:
        """What the peeks found; undecodable entries count as misses."""
        return {ref: entry for ref, result in zip(refs, results, strict=True) if (entry := _decode(result)) is not None}

    def fresh(self, ref: Ref, peeks: Peeks | None) -> Entry | None:
        """What the request's pipeline saw of `ref`, if nothing has to be awaited for it: the whole of a hit. Else None, and `read`."""
        if peeks is None or (entry := peeks.get(ref)) is None or entry.age_s > _SOFT_S:
            return None
        self._note(ref, "hit" if entry.exists else "negative")
        return entry

    async def read(self, entity: str, ids: Sequence[str], load: Load, *, peeks: Peeks | None) -> dict[str, Entry]:
        """Id → entry (check `exists`). `peeks`: what the request's pipeline saw; None when Redis failed it.

        Raises what `load` raises, unless a copy of at most 300 s can be served.
        """
        found, missing = dict[str, Entry](), list[Ref]()
        for item in ids:
            ref = (entity, item)
            if (hit := self.fresh(ref, peeks)) is not None:
                found[item] = hit
            elif peeks is None or (entry := peeks.get(ref)) is None or entry.age_s > _STALE_MAX_S:
                self._note(ref, "bypass" if peeks is None else "miss")
                missing.append(ref)
            else:
                found[item] = entry
                self._note(ref, "stale")
                self._refresh(ref, load)
        if missing:
            found |= await self._load_once(missing, load, fill=peeks is not None)
        return found

    def hit_ratios(self) -> dict[str, float]:
        """Entity → share of reads answered from Redis since the process started."""
        counts: dict[str, dict[str, int]] = {}
        for (entity, outcome), (number, _) in self._outcomes.items():
            counts.setdefault(entity, {})[outcome] = number
        answered = {e: sum(seen.get(o, 0) for o in ("hit", "stale", "negative")) for e, seen in counts.items()}
        return {e: round(answered[e] / sum(counts[e].values()), 4) for e in sorted(counts)}

    async def short_lived(self, key: str, ttl_ms: int, load: Callable[[], Awaitable[bytes]], *, use_redis: bool) -> bytes:
        """A plain value without version or invalidation, for answers that are advisory anyway."""
        name = f"{_PREFIX}:{key}"
        if use_redis:
            try:
                held = await self._redis.call(self._redis.raw.get(name))
                if isinstance(held, bytes) and _is_object(held):
                    return held
            except RedisAway:
                use_redis = False
        value = await load()
        if use_redis:
            try:
                await self._redis.call(self._redis.raw.set(name, value, px=ttl_ms))
            except RedisAway:
                metrics.redis_errors.inc()
        return value

    # -- invalidating

    async def invalidate(self, entity: str, entity_id: str, version: int) -> None:
        """No version below `version` will be served or filled from now on. Idempotent, any order. Raises `RedisAway`."""
        await self._redis.script(_SCRIPT, entry_keys((entity, entity_id)), ["invalidate", version, _FLOOR_MS])

    async def invalidate_after_commit(self, entity: str, entity_id: str, version: int) -> None:
        """The writer's own invalidation, so that it reads its write; if Redis misses it, the event will not."""
        try:
            await self.invalidate(entity, entity_id, version)
        except RedisAway:
            metrics.cache_invalidations_failed.inc()

    # -- loading

    async def _load_once(self, refs: Sequence[Ref], load: Load, *, fill: bool) -> dict[str, Entry]:
        """One load a process for each ref; a waiter that is cancelled does not cancel it."""
        fresh = [ref for ref in refs if ref not in self._flights]
        joined = [ref for ref in refs if ref in self._flights]
        if joined:
            metrics.cache_joined.labels(joined[0][0]).inc(len(joined))
        if fresh:
            task = asyncio.create_task(self._load(fresh, load, fill=fill), name="cache-load")
            for ref in fresh:
                self._flights[ref] = task
            task.add_done_callback(lambda _: self._land(fresh))
        flights = {id(self._flights[ref]): self._flights[ref] for ref in refs}
        entries: dict[Ref, Entry] = {}
        for flight in flights.values():
            entries |= await asyncio.shield(flight)
        found = {ref[1]: entries[ref] for ref in refs}
        if fill and joined and (outdated := await self._outdated(joined, entries)):
            # Whatever they join now began after this read did: it needs no second look.
            found |= await self._load_once(outdated, load, fill=False)
        return found

    async def _outdated(self, joined: Sequence[Ref], entries: Mapping[Ref, Entry]) -> list[Ref]:
        """Those whose load, begun before this read, saw less than a writer has announced since: a client reads its write."""
        try:
            floors = await self._redis.pipeline([("GET", entry_keys(ref)[1]) for ref in joined])
        except RedisAway:
            return []
        held = zip(joined, floors, strict=True)
        return [ref for ref, floor in held if isinstance(floor, bytes) and floor.isdigit() and entries[ref].version < int(floor)]

    def _land(self, refs: Sequence[Ref]) -> None:
        for ref in refs:
            flight = self._flights.pop(ref, None)
            if flight is not None and not flight.cancelled():
                flight.exception()  # every waiter may have left; the error was theirs to see

    async def _load(self, refs: Sequence[Ref], load: Load, *, fill: bool) -> Mapping[Ref, Entry]:
        token = secrets.token_hex(8)
        leased = await self._take_leases(refs, token) if fill else []
        async with self._loads:
            rows = await load([item for _, item in refs])
        metrics.cache_loads.labels(refs[0][0]).inc()
        entries = {ref: Entry(*rows.get(ref[1], (0, b""))) for ref in refs}
        await self._fill({ref: entries[ref] for ref in leased}, token)
        return entries

    async def _take_leases(self, refs: Sequence[Ref], token: str) -> list[Ref]:
        pipe = self._redis.raw.pipeline(transaction=False)
        for ref in refs:
            pipe.set(entry_keys(ref)[2], token, nx=True, px=_LEASE_MS)
        try:
            answers = await self._redis.call(pipe.execute(raise_on_error=False))
        except RedisAway:
            return []
        return [ref for ref, answer in zip(refs, answers, strict=True) if answer is True]

    async def _fill(self, entries: Mapping[Ref, Entry], token: str) -> None:
        for ref, entry in entries.items():
            if len(entry.data) > _MAX_BYTES:
                continue
            ttl_ms = int(_HARD_MS * random.uniform(0.9, 1.1)) if entry.exists else _NEGATIVE_MS  # noqa: S311 - spreads expiry
            arguments: list[str | int | bytes] = ["fill", token, entry.version, entry.data, int(time.time() * 1000), ttl_ms]
            try:
                await self._redis.script(_SCRIPT, entry_keys(ref), arguments)
            except RedisAway:
                return

    def _refresh(self, ref: Ref, load: Load) -> None:
        """In the background: whoever gets the lease loads; a failure leaves the copy until it is too old."""
        if ref not in self._background:
            self._background[ref] = asyncio.create_task(self._reload(ref, load), name="cache-refresh")
            self._background[ref].add_done_callback(lambda _: self._background.pop(ref))

    async def _reload(self, ref: Ref, load: Load) -> None:
        token = secrets.token_hex(8)
        if not await self._take_leases([ref], token):
            return
        try:
            async with self._loads:
                rows = await load([ref[1]])
        except ServiceError as error:
            log.info("cache.refresh_failed", entity=ref[0], error=type(error).__name__)
            return
        metrics.cache_loads.labels(ref[0]).inc()
        await self._fill({ref: Entry(*rows.get(ref[1], (0, b"")))}, token)

    def _note(self, ref: Ref, outcome: str) -> None:
        counted = self._outcomes.get((ref[0], outcome))
        if counted is None:
            counted = self._outcomes[ref[0], outcome] = [0, metrics.cache_requests.labels(ref[0], outcome)]
        counted[0] += 1
        counted[1].inc()


def _decode(result: Any) -> Entry | None:
    """An entry from HMGET's answer; None for a miss, an error or garbage (a fill repairs it)."""
    if not isinstance(result, list) or None in result:
        return None
    try:
        entry = Entry(int(result[0]), result[1], max(0.0, time.time() - int(result[2]) / 1000))
        sound = entry.value["version"] == entry.version if entry.exists else entry.data == b""
    except (ValueError, KeyError, TypeError, OverflowError):
        return None
    return entry if sound else None


def _is_object(data: bytes) -> bool:
    """Garbage in Redis is a miss, never an answer."""
    try:
        return isinstance(orjson.loads(data), dict)
    except orjson.JSONDecodeError:
        return False
