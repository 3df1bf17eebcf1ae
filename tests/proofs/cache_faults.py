"""What readers get while Redis is killed, frozen, emptied or filled with rubbish, and while PostgreSQL is frozen.

Every price is a function of the product's version, so a body that was never true is known on sight; a reader also knows
which version was acknowledged before it asked. One row a fault; `python -m tests.proofs cache` writes them down.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import redis.asyncio

from service.foundation.cache import entry_keys
from tests.stories.shop import Shop, until
from tests.support.clients import ApiClient

PAUSE_S, ENOUGH, READERS = 5.0, 60, 4
SKUS = tuple(f"SKU-{number:04d}" for number in range(700, 706))
_PRICE = 100_000  # + version
_FLUSHES = 40
_AGED_S, _TOO_OLD_S = 200, 310


@dataclass(slots=True)
class Row:
    """One fault: what was asked during it, and what was wrong with the answers."""

    fault: str
    reads: int = 0
    writes: int = 0
    wrong: int = 0
    behind: int = 0
    server_errors: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def note(self, kind: str, text: str) -> None:
        self.examples.append(f"{kind}: {text[:200]}")


class Catalogue:
    """Products that change under their readers; this is the only writer of them. Everybody rests for `pause_s` after each call."""

    def __init__(self, shop: Shop, *, pause_s: float) -> None:
        self.shop, self.pause_s = shop, pause_s
        self.admin, self.reader = shop.login("root-faults", role="admin"), shop.login("reader-faults")
        self.first: dict[str, tuple[int, int]] = {}
        self.acknowledged: dict[str, int] = {}
        self.row = Row("")

    async def begin(self) -> None:
        rows = await self.shop.database.fetch("SELECT sku, version, price_minor FROM product WHERE sku = ANY ($1::text[])", list(SKUS))
        self.first = {row["sku"]: (row["version"], row["price_minor"]) for row in rows}
        self.acknowledged = {sku: version for sku, (version, _) in self.first.items()}
        assert len(self.first) == len(SKUS)

    async def change(self, sku: str) -> None:
        """One price change; what is not acknowledged is looked up before the next one."""
        version = await self.shop.database.fetchval("SELECT version FROM product WHERE sku = $1", sku)
        try:
            answer = await self.admin.patch(f"/products/{sku}", {"price_minor": _PRICE + version + 1}, if_match=f'"{version}.1"')
        except httpx.HTTPError as error:
            self.row.note("write", repr(error))
            self.row.server_errors += 1
            return
        self.row.writes += 1
        if answer.status_code == 200:
            self.acknowledged[sku] = version + 1
        elif answer.status_code >= 500:
            self.row.server_errors += 1
            self.row.note("write", answer.text)

    async def look(self, sku: str) -> httpx.Response | None:
        """One read, judged."""
        promised = self.acknowledged[sku]
        try:
            answer = await self.reader.get(f"/products/{sku}")
        except httpx.HTTPError as error:
            self.row.server_errors += 1
            self.row.note("read", repr(error))
            return None
        self.row.reads += 1
        self.row.server_errors += answer.status_code >= 500
        if answer.status_code != 200:
            self.row.note("read", answer.text)
            return answer
        body = answer.json()
        self.row.wrong += not self._was_true(sku, body, answer.headers["etag"])
        self.row.behind += body["version"] < promised
        return answer

    def _was_true(self, sku: str, body: dict[str, Any], etag: str) -> bool:
        version = body["version"]
        first, price = self.first[sku]
        expected = price if version == first else _PRICE + version
        true = body["sku"] == sku and version >= first and body["price_minor"] == expected and etag == f'"{version}.1"'
        if not true:
            self.row.note("wrong", f"{sku}: {body} {etag}")
        return true

    @asynccontextmanager
    async def busy(self, fault: str) -> AsyncIterator[Row]:
        """Readers and writers at work during the block; its counts are the row."""
        self.row, stop = Row(fault), asyncio.Event()
        before = await self._outcomes()

        async def repeat(work: Callable[[str], Awaitable[Any]], number: int) -> None:
            while not stop.is_set():
                number += 1
                await work(SKUS[number % len(SKUS)])
                await asyncio.sleep(self.pause_s)

        async with asyncio.TaskGroup() as group:
            for number in range(READERS):
                group.create_task(repeat(self.look, number))
            group.create_task(repeat(self.change, 0))
            try:
                yield self.row
            finally:
                stop.set()
        self.row.outcomes = await self._outcomes() - before

    async def more(self) -> None:
        """Wait until enough more was read."""
        before = self.row.reads

        async def look() -> bool:
            return self.row.reads >= before + ENOUGH

        await until(look, f"{ENOUGH} more reads after {before}")

    async def _outcomes(self) -> Counter[str]:
        return await cache_outcomes(self.shop)


async def cache_outcomes(shop: Shop) -> Counter[str]:
    """Cache reads of products by outcome, over all API processes that live now (a restart would begin again)."""
    found: Counter[str] = Counter()
    for page in await shop.metrics("api"):
        for line in page.splitlines():
            if line.startswith('orders_cache_requests_total{entity="product"'):
                outcome = line.partition('outcome="')[2].partition('"')[0]
                found[outcome] += int(float(line.rpartition(" ")[2]))
    return found


# -- the faults


async def run_redis_faults(shop: Shop, *, pause_s: float = 0.0) -> list[Row]:
    """One row for each thing that can happen to Redis, with a calm one first."""
    catalogue, rows = Catalogue(shop, pause_s=pause_s), []
    await catalogue.begin()
    for fault, strike in _STRIKES.items():
        async with catalogue.busy(fault) as row:
            await catalogue.more()
            await strike(shop)
            await catalogue.more()
        rows.append(row)
        await agreed(shop)
    return rows


async def _calm(shop: Shop) -> None:
    await until(lambda: redis_answers(shop), "Redis answers")


async def _killed(shop: Shop) -> None:
    for _ in range(2):
        await shop.replaced("redis", shop.signal("redis", signal.SIGKILL))
        await until(lambda: redis_answers(shop), "Redis answers again")


async def _frozen(shop: Shop) -> None:
    shop.signal("redis", signal.SIGSTOP)
    await asyncio.sleep(PAUSE_S)  # the fault itself
    shop.signal("redis", signal.SIGCONT)
    await until(lambda: redis_answers(shop), "Redis answers again")


async def _emptied(shop: Shop) -> None:
    async with _redis(shop) as client:
        for _ in range(_FLUSHES):
            await client.flushall()
            await asyncio.sleep(0.02)


async def _garbage(shop: Shop) -> None:
    """Every key of every product, of every wrong type, again and again."""
    async with _redis(shop) as client:
        for turn in range(_FLUSHES):
            pipe = client.pipeline(transaction=False)
            for sku in SKUS:
                for key, fill in zip(entry_keys(("product", sku)), _rubbish(turn), strict=True):
                    pipe.delete(key)
                    fill(pipe, key)
            await pipe.execute()
            await asyncio.sleep(0.02)


def _rubbish(turn: int) -> Iterable[Callable[[Any, str], Any]]:
    kinds: tuple[Callable[[Any, str], Any], ...] = (
        lambda pipe, key: pipe.set(key, "rubbish"),
        lambda pipe, key: pipe.rpush(key, "rubbish"),
        lambda pipe, key: pipe.hset(key, mapping={"v": "x", "d": "{", "f": "y"}),
        lambda pipe, key: pipe.hset(key, mapping={"v": "999999", "d": '{"version":1}', "f": "1"}),
        lambda pipe, key: pipe.sadd(key, "rubbish"),
    )
    return [kinds[(turn + offset) % len(kinds)] for offset in range(3)]


_STRIKES: dict[str, Callable[[Shop], Awaitable[None]]] = {
    "none": _calm,
    "Redis killed, twice": _killed,
    f"Redis frozen for {PAUSE_S:g} s": _frozen,
    f"Redis emptied {_FLUSHES} times": _emptied,
    f"keys of wrong types, {_FLUSHES} times": _garbage,
}


async def agreed(shop: Shop) -> None:
    """Wait until every cached version is its row's (C1): the missed invalidations arrive as events."""

    async def look() -> bool:
        rows = await shop.database.fetch("SELECT sku, version FROM product WHERE sku = ANY ($1::text[])", list(SKUS))
        async with _redis(shop) as client:
            held = {row["sku"]: await _cached_version(client, row["sku"]) for row in rows}
        return all(held[row["sku"]] in (None, row["version"]) for row in rows)

    await until(look, "every cached version is its row's")


async def _cached_version(client: redis.asyncio.Redis, sku: str) -> int | None:
    key = entry_keys(("product", sku))[0]
    if await client.type(key) != b"hash":
        return None  # rubbish is no entry: nobody is served from it
    version = await client.hget(key, "v")
    return int(version) if version is not None and version.isdigit() and version != b"999999" else None


@dataclass(frozen=True, slots=True)
class Away:
    """PostgreSQL frozen: how cached orders of different ages were answered, by age."""

    served: int
    oldest_age_s: int
    refused_too_old: int
    refused_not_cached: int
    other: int


async def run_postgres_away(shop: Shop, orders: list[dict[str, Any]], anna: ApiClient) -> Away:
    """Orders that were read just now, 200 s ago and 310 s ago, and one never read, while every backend is frozen."""
    fresh, aged, old, cold = orders[0::4], orders[1::4], orders[2::4], orders[3::4]
    async with _redis(shop) as client:
        await until(lambda: _all_told(shop, client, orders), "no event is left that would take a copy away")
        for order in (*fresh, *aged, *old):
            await anna.get(f"/orders/{order['id']}")
        for age_s, group in ((_AGED_S, aged), (_TOO_OLD_S, old)):
            for order in group:
                await client.hset(entry_keys(("order", order["id"]))[0], "f", str(int((time.time() - age_s) * 1000)))
        for order in cold:
            await client.delete(entry_keys(("order", order["id"]))[0])
    with frozen_postgres(shop):
        answers = {name: await _read_all(anna, group) for name, group in {"cached": fresh + aged, "old": old, "cold": cold}.items()}
    served = [answer for order, answer in zip(fresh + aged, answers["cached"], strict=True) if _is(order, answer)]
    too_old, not_cached = (sum(answer.status_code == 503 for answer in answers[name]) for name in ("old", "cold"))
    oldest_s = max((int(answer.headers.get("age", "0")) for answer in served), default=0)
    return Away(len(served), oldest_s, too_old, not_cached, len(orders) - len(served) - too_old - not_cached)


async def _all_told(shop: Shop, client: redis.asyncio.Redis, orders: list[dict[str, Any]]) -> bool:
    """Has the `cache` group seen the last event of each? (It leaves no row; what it leaves is the floor.)"""
    rows = await shop.database.fetch("SELECT id::text, version FROM orders WHERE id = ANY ($1::uuid[])", [order["id"] for order in orders])
    floors = await client.mget([entry_keys(("order", row["id"]))[1] for row in rows])
    return all(int(floor or 0) >= row["version"] for floor, row in zip(floors, rows, strict=True))


def _is(order: dict[str, Any], answer: httpx.Response) -> bool:
    if answer.status_code != 200:
        return False
    body = answer.json()
    return all(body[name] == order[name] for name in ("id", "customer_id", "total_minor", "lines"))


async def _read_all(anna: ApiClient, orders: list[dict[str, Any]]) -> list[httpx.Response]:
    return list(await asyncio.gather(*(anna.get(f"/orders/{order['id']}") for order in orders)))


@contextmanager
def frozen_postgres(shop: Shop) -> Iterator[None]:
    """SIGSTOP to the server and all its backends: it accepts connections (the kernel does) and answers nothing."""
    server = shop.pids("postgres")[0]
    family = [server, *_children(server)]
    for pid in family:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in family:
            os.kill(pid, signal.SIGCONT)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@asynccontextmanager
async def _redis(shop: Shop) -> AsyncIterator[redis.asyncio.Redis]:
    client = redis.asyncio.from_url(shop.urls["redis"], socket_timeout=5)
    try:
        yield client
    finally:
        await client.aclose()


async def redis_answers(shop: Shop) -> bool:
    """Does Redis answer now?"""
    async with _redis(shop) as client:
        try:
            return bool(await client.ping())
        except redis.exceptions.RedisError:
            return False
