"""The failure matrix: one dependency after another is hurt, and every column of its row is looked at and timed.

A stack behind proxies; a row's fault is made, orders are placed and read, health is asked, and it is healed: then every unclear order
is placed again with its key, all of them are paid, and no dead letter was made. Bounds are the service's timeouts plus `_SLACK_S`,
times what the machine is slower than a quiet one. `python -m tests.faults.matrix` writes docs/measured/matrix.json.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import asyncpg
import httpx
import redis.asyncio as redis_py
import uvloop

from service.dev.state import ROOT
from service.foundation.cache import entry_keys
from tests.faults import sql
from tests.faults.proxy import BLACK_HOLE, PASS, REFUSE, Mode, delay
from tests.torture.load import skewed_token
from tests.torture.rig import Rig, running_rig
from tests.torture.watch import slowness

MEASURED: Final = ROOT / "docs" / "measured" / "matrix.json"
_SLACK_S: Final = 0.25
_POSTS: Final = 6
_HEALED_S: Final = 90.0
_SKU: Final = "SKU-0040"
_PAID_VERSION: Final = "3"  # placed, reserved, paid


@dataclass(slots=True)
class Seen:
    """What a row showed."""

    row: str
    post: list[int] = field(default_factory=list)
    first_s: float = 0.0  # the slowest of the first two POSTs
    later_s: float = 0.0  # the slowest of the rest
    cached: list[int] = field(default_factory=list)
    cold: list[int] = field(default_factory=list)
    listed: list[int] = field(default_factory=list)
    live: int = 0
    ready: int = 0
    paid_s: float = 0.0  # after the heal until everything placed is paid
    dead: int = 0
    slowness: float = 1.0


@dataclass(frozen=True, slots=True)
class Row:
    """A dependency's state and what must be seen in it. Bounds in seconds: POST at first, POST later."""

    name: str
    fault: Callable[[Rig], AbstractAsyncContextManager[None]]
    post: frozenset[int]
    first_s: float
    later_s: float
    cached: frozenset[int] = frozenset({200})
    cold: frozenset[int] = frozenset({200})
    listed: frozenset[int] = frozenset({200})


@asynccontextmanager
async def _wire(rig: Rig, server: str, mode: Mode) -> AsyncIterator[None]:
    await rig.proxies[server].set_mode(mode)
    try:
        yield
    finally:
        await rig.proxies[server].set_mode(PASS)


@asynccontextmanager
async def _flapping(rig: Rig, server: str) -> AsyncIterator[None]:
    """Away for 1 s of every 4."""

    async def flap() -> None:
        while True:
            await rig.proxies[server].set_mode(REFUSE)
            await asyncio.sleep(1)
            await rig.proxies[server].set_mode(PASS)
            await asyncio.sleep(3)

    task = asyncio.create_task(flap())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await rig.proxies[server].set_mode(PASS)


@asynccontextmanager
async def _around(begin: Callable[[], Awaitable[object]], end: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    await begin()
    try:
        yield
    finally:
        await end()


async def _nothing() -> None:
    """For faults that are over at once."""


_ANY, _AWAY = frozenset({201, 503}), frozenset({503})
_OK, _EITHER = frozenset({201}), frozenset({200, 503})
ROWS: Final = (
    Row("none (control)", lambda rig: _wire(rig, "postgres", PASS), _OK, 1.0, 1.0),
    # Refused at once, then by the connect breaker; black hole: 2 s for the statement on an open connection, 1.5 s to open another.
    Row("PostgreSQL refuses", lambda rig: _wire(rig, "postgres", REFUSE), _AWAY, 1.0, 0.25, cold=_AWAY, listed=_AWAY),
    Row("PostgreSQL silent", lambda rig: _wire(rig, "postgres", BLACK_HOLE), _AWAY, 2.5, 1.75, cold=_AWAY, listed=_AWAY),
    Row("PostgreSQL +150 ms each way", lambda rig: _wire(rig, "postgres", delay(0.15)), _OK, 1.5, 1.5),
    Row("PostgreSQL flapping 1 s / 3 s", lambda rig: _flapping(rig, "postgres"), _ANY, 2.5, 2.5, cold=_EITHER, listed=_EITHER),
    Row("PostgreSQL read-only", lambda rig: sql.read_only(rig.urls["database"]), _AWAY, 1.0, 1.0),
    Row("PostgreSQL sessions cut", lambda rig: _around(lambda: sql.cut_sessions(rig.urls["database"], "orders-api"), _nothing), _ANY, 1.0, 1.0,
        cold=_EITHER, listed=_EITHER),
    Row("Redis refuses", lambda rig: _wire(rig, "redis", REFUSE), _OK, 1.0, 0.5),
    Row("Redis silent", lambda rig: _wire(rig, "redis", BLACK_HOLE), _OK, 1.0, 0.5),
    Row("Redis flapping 1 s / 3 s", lambda rig: _flapping(rig, "redis"), _OK, 1.0, 1.0),
    Row("Redis forgets everything", lambda rig: _around(lambda: sql.redis_forget(rig.urls["redis"]), _nothing), _OK, 1.0, 0.5),
    Row("Redis full", lambda rig: sql.redis_full(rig.urls["redis"]), _OK, 1.0, 0.5),
    Row("Redis read-only", lambda rig: sql.redis_replica(rig.urls["redis"]), _OK, 1.0, 0.5),
    Row("Kafka refuses", lambda rig: _wire(rig, "kafka", REFUSE), _OK, 1.0, 0.5),
    Row("Kafka silent", lambda rig: _wire(rig, "kafka", BLACK_HOLE), _OK, 1.0, 0.5),
    Row("Kafka down", lambda rig: _around(rig.broker.down, rig.broker.heal), _OK, 1.0, 0.5),
    Row("Kafka slow", lambda rig: _around(lambda: rig.broker.slow(400), rig.broker.heal), _OK, 1.0, 0.5),
    Row("provider down", lambda rig: _stopped(rig, "psp"), _OK, 1.0, 0.5),
    Row("provider slow", lambda rig: _around(lambda: rig.dial(latency_ms=800), lambda: rig.dial(latency_ms=0)), _OK, 1.0, 0.5),
    Row("issuer down, keys cached", lambda rig: _stopped(rig, "issuer"), _OK, 1.0, 0.5),
)  # fmt: skip


@asynccontextmanager
async def _stopped(rig: Rig, name: str) -> AsyncIterator[None]:
    with rig.control.stopped(name):
        yield


class Watcher:
    """One customer who looks at everything, as often as each row needs."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self._token = skewed_token(rig, "matrix", "customer", 0)
        self._ops = next(p["ops_url"] for p in rig.stack["processes"] if p["role"] == "api")
        self._unclear: list[str] = []
        self._orders: list[str] = []

    async def place(self, key: str) -> int:
        body = {"lines": [{"sku": _SKU, "quantity": 1}], "currency": "EUR"}
        answer = await self._call("POST", "/v1/orders", json=body, headers={"idempotency-key": key})
        if answer is not None and answer.status_code == 201:
            self._orders.append(answer.json()["id"])
        else:
            self._unclear.append(key)
        return answer.status_code if answer is not None else 0

    async def get(self, path: str) -> int:
        answer = await self._call("GET", path)
        return answer.status_code if answer is not None else 0

    async def _call(self, method: str, path: str, headers: dict[str, str] | None = None, **named: Any) -> httpx.Response | None:
        try:
            return await self.rig.http.request(
                method, path, headers={"authorization": f"Bearer {self._token}"} | (headers or {}), timeout=10, **named
            )
        except httpx.HTTPError:
            return None

    async def look(self, row: Row) -> Seen:
        """Make the fault, look at every column, heal, and see everything through."""
        seen = Seen(row.name)
        cached, cold = [await self._new() for _ in range(2)], [await self._new() for _ in range(2)]
        await self._fill_cache(cached)
        dead = await self._dead()
        slow = [slowness()]
        async with row.fault(self.rig):
            times = []
            for _ in range(_POSTS):
                begin = time.monotonic()
                seen.post.append(await self.place(str(uuid4())))
                times.append(time.monotonic() - begin)
                slow.append(slowness())
            seen.first_s, seen.later_s = max(times[:2]), max(times[2:])
            seen.cached = [await self.get(f"/v1/orders/{order_id}") for order_id in cached]
            seen.cold = [await self.get(f"/v1/orders/{order_id}") for order_id in cold]
            seen.listed = [await self.get("/v1/orders?limit=2") for _ in range(2)]
            seen.live, seen.ready = await self._health("live"), await self._health("ready")
        seen.paid_s = await self._see_through()
        seen.dead = await self._dead() - dead
        seen.slowness = round(max(slow), 1)
        return seen

    async def _new(self) -> str:
        """A paid order; nothing about it is under way any more."""
        while await self.place(str(uuid4())) != 201:  # noqa: ASYNC110 - the last row's aftermath
            await asyncio.sleep(0.2)
        order_id = self._orders[-1]
        await self._paid([order_id])
        return order_id

    async def _fill_cache(self, order_ids: Sequence[str]) -> None:
        """Read them until copies lie in the cache that no event will take away any more."""
        async with redis_py.Redis.from_url(self.rig.urls["redis"], decode_responses=True) as client:
            for order_id in order_ids:
                entry, floor, _ = entry_keys(("order", order_id))
                deadline = time.monotonic() + _HEALED_S
                while await client.get(floor) != _PAID_VERSION or await client.hget(entry, "v") != _PAID_VERSION:
                    assert time.monotonic() < deadline, f"order {order_id} does not stay in the cache"
                    await self.get(f"/v1/orders/{order_id}")
                    await asyncio.sleep(0.1)

    async def _health(self, name: str) -> int:
        return (await self.rig.http.get(f"{self._ops}/health/{name}", timeout=5)).status_code

    async def _see_through(self) -> float:
        """Unclear orders are placed again with their keys; then all are paid."""
        begin = time.monotonic()
        while self._unclear:
            key = self._unclear.pop()
            if await self.place(key) != 201:
                await asyncio.sleep(0.1)
            assert time.monotonic() - begin < _HEALED_S, "an unclear order stayed unclear after the heal"
        await self._paid(self._orders)
        self._orders.clear()
        return time.monotonic() - begin

    async def _paid(self, order_ids: Sequence[str]) -> None:
        deadline = time.monotonic() + _HEALED_S
        connection = await asyncpg.connect(self.rig.urls["database"])
        while left := await connection.fetchval("SELECT count(*) FROM orders WHERE id = ANY ($1::uuid[]) AND status <> 'paid'", order_ids):
            assert time.monotonic() < deadline, f"{left} orders are not paid after {_HEALED_S:g} s"
            await asyncio.sleep(0.1)
        connection.terminate()

    async def _dead(self) -> int:
        connection = await asyncpg.connect(self.rig.urls["database"])
        count = await connection.fetchval("SELECT count(*) FROM dead_letter")
        connection.terminate()
        return int(count)


def complaints(row: Row, seen: Seen) -> list[str]:
    """What was not as the row says; bounds stretch with the machine."""
    stretch = max(1.0, seen.slowness)
    found = [
        f"{what} answered {sorted(set(got))}, allowed {sorted(allowed)}"
        for what, got, allowed in (
            ("POST", seen.post, row.post), ("GET of a cached order", seen.cached, row.cached),
            ("GET of an order that is not", seen.cold, row.cold), ("the list", seen.listed, row.listed),
        )
        if not set(got) <= allowed
    ]  # fmt: skip
    for what, got, bound in (("the first POSTs", seen.first_s, row.first_s), ("later POSTs", seen.later_s, row.later_s)):
        if got > (bound + _SLACK_S) * stretch:
            found.append(f"{what} took {got:.2f} s, allowed {bound:g} + {_SLACK_S:g} s on a machine {stretch:.1f} times slower than a quiet one")
    if (seen.live, seen.ready) != (200, 200):
        found.append(f"live {seen.live}, ready {seen.ready}")
    if seen.dead:
        found.append(f"{seen.dead} dead letters")
    return found


async def main(names: Sequence[str]) -> int:
    """All rows (or those whose name holds one of the words), as a table; keeps what was measured."""
    rows = [row for row in ROWS if not names or any(name in row.name for name in names)]
    kept = {entry["row"]: entry for entry in json.loads(MEASURED.read_text())} if MEASURED.exists() else {}
    broken = 0
    with tempfile.TemporaryDirectory(prefix="plumbline-matrix-", ignore_cleanup_errors=True) as folder:
        print("starting a stack …", flush=True)
        async with running_rig(Path(folder), kafka="memory", seed=0, api=1, workers=1, settings={"APP_PROFILE": "load"}) as rig:
            await rig.dial(decline_rate=0.0)
            watcher = Watcher(rig)
            for row in rows:
                seen = await watcher.look(row)
                found = complaints(row, seen)
                broken += bool(found)
                kept[row.name] = asdict(seen)
                word = "; ".join(found) or "held"
                times = f"{seen.first_s:5.2f} s, {seen.later_s:5.2f} s  paid after {seen.paid_s:5.1f} s"
                print(f"{row.name:<32} POST {sorted(set(seen.post))} {times}  {word}", flush=True)
    MEASURED.write_text(json.dumps([kept[row.name] for row in ROWS if row.name in kept], indent=1) + "\n")
    return 1 if broken else 0


if __name__ == "__main__":
    with suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(main(sys.argv[1:])))
