"""The hit path: one round trip to Redis for the charge and the copy together, none to PostgreSQL; small enough to be read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from service.foundation.metrics import registry
from service.foundation.redis import RedisClient
from service.settings import Settings
from tests.budgets.measure import ROOT, code_lines
from tests.integration.facts import Facts


class Tally:
    """A way through to Redis that counts turns: the client spoke, the server answered."""

    def __init__(self, target: int) -> None:
        self._target, self.turns, self._spoken = target, 0, False
        self.tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        pumps = (self._pump(reader, back, asks=True), self._pump(there, writer, asks=False))
        self.tasks |= {asyncio.create_task(pump) for pump in pumps}

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, asks: bool) -> None:
        while data := await source.read(65_536):
            self.turns += asks and not self._spoken
            self._spoken = asks
            sink.write(data)
        sink.close()


@asynccontextmanager
async def counted(app: FastAPI, settings: Settings) -> AsyncIterator[Tally]:
    """The application's Redis calls go through the tally for the block."""
    resources = app.state.resources
    url = settings.redis.url.get_secret_value()
    tally = Tally(int(url.rpartition(":")[2].partition("/")[0]))
    door = await asyncio.start_server(tally.serve, "127.0.0.1", 0)
    port = door.sockets[0].getsockname()[1]
    through = type(settings.redis.url)(f"redis://127.0.0.1:{port}/0")
    client = RedisClient(settings.redis.model_copy(update={"url": through, "timeout_ms": 10_000}))
    before = resources.redis
    resources.redis = resources.cache._redis = resources.limiter._redis = client
    try:
        await client.pipeline([("PING",)])
        tally.turns = 0
        yield tally
    finally:
        resources.redis = resources.cache._redis = resources.limiter._redis = before
        await client.close()
        door.close()
        for task in tally.tasks:
            task.cancel()


def _product_reads() -> tuple[float, float]:
    """(loads from PostgreSQL, hits) of products so far."""
    loads = registry.get_sample_value("orders_cache_loads_total", {"entity": "product"})
    hits = registry.get_sample_value("orders_cache_requests_total", {"entity": "product", "outcome": "hit"})
    return loads or 0.0, hits or 0.0


async def test_a_hit_is_one_round_trip_to_redis_and_none_to_postgresql(app: FastAPI, settings: Settings, facts: Facts, login: Any) -> None:
    anna, sku = login("anna-trips"), await facts.add_product()
    first = await anna.get(f"/products/{sku}")  # loaded and filled
    loads, hits = _product_reads()
    for status, headers in ((200, {}), (304, {"if_none_match": first.headers["etag"]})):
        async with counted(app, settings) as tally:
            answer = await anna.get(f"/products/{sku}", **headers)
        assert (answer.status_code, answer.headers["etag"]) == (status, first.headers["etag"])
        assert answer.content == (first.content if status == 200 else b"")
        assert tally.turns == 1
    assert _product_reads() == (loads, hits + 2), "the route asks PostgreSQL only by a load"


async def test_an_order_with_cached_prices_is_one_round_trip_to_redis(app: FastAPI, settings: Settings, facts: Facts, login: Any) -> None:
    anna, skus = login("anna-trips-order"), [await facts.add_product() for _ in range(5)]
    for sku in skus:
        await anna.get(f"/products/{sku}")
    async with counted(app, settings) as tally:
        placed = await anna.place(*((sku, 1) for sku in skus))
    assert placed.status_code == 201
    assert tally.turns == 1


def test_cache_and_script_are_small() -> None:
    assert sum(code_lines(ROOT / "service" / "foundation" / name) for name in ("cache.py", "cache.lua")) <= 220
