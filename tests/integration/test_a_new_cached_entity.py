"""docs/extending.md, "Cache another entity", followed to the letter: a loader, a read, an invalidation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson

from service.foundation.cache import Cache, Entry, Peeks
from service.foundation.db import Database
from service.foundation.metrics import registry
from service.foundation.redis import RedisClient
from service.settings import Settings


async def _read_supplier(cache: Cache, db: Database, name: str, *, peeks: Peeks | None) -> Entry:
    """The recipe's reader: the three lines are the query, the answer and the read."""

    async def load(names: Sequence[str]) -> Mapping[str, tuple[int, bytes]]:
        async with db.connection() as connection:
            rows = await connection.fetch("SELECT name, city, version FROM supplier WHERE name = ANY ($1)", list(names))
        return {row["name"]: (row["version"], orjson.dumps(dict(row))) for row in rows}

    return (await cache.read("supplier", [name], load, peeks=peeks))[name]


async def _peek(cache: Cache, redis: RedisClient, name: str) -> Peeks:
    refs = [("supplier", name)]
    return cache.read_peeks(refs, await redis.pipeline(cache.peek_commands(refs)))


def _count(outcome: str) -> float:
    return registry.get_sample_value("orders_cache_requests_total", {"entity": "supplier", "outcome": outcome}) or 0.0


async def test_a_new_entity_is_read_written_and_counted(db: Database, settings: Settings) -> None:
    redis = RedisClient(settings.redis.model_copy(update={"timeout_ms": 10_000}))
    writer, reader = Cache(redis), Cache(redis)
    async with db.connection() as connection:
        await connection.execute("CREATE TABLE IF NOT EXISTS supplier (name text PRIMARY KEY, city text, version int NOT NULL)")
        await connection.execute("TRUNCATE supplier")
        await connection.execute("INSERT INTO supplier VALUES ('tea', 'Colombo', 1)")
    try:
        await redis.raw.flushdb()
        first = await _read_supplier(reader, db, "tea", peeks=await _peek(reader, redis, "tea"))
        again = await _read_supplier(reader, db, "tea", peeks=await _peek(reader, redis, "tea"))
        assert (first.value["city"], again.value["city"]) == ("Colombo", "Colombo")
        assert (_count("miss"), _count("hit")) == (1, 1)
        assert reader.hit_ratios() == {"supplier": 0.5}

        async with db.connection() as connection:
            await connection.execute("UPDATE supplier SET city = 'Galle', version = version + 1 WHERE name = 'tea'")
        await writer.invalidate_after_commit("supplier", "tea", 2)
        assert (await _read_supplier(reader, db, "tea", peeks=await _peek(reader, redis, "tea"))).value["city"] == "Galle"

        assert not (await _read_supplier(reader, db, "coffee", peeks={})).exists
        assert not (await _read_supplier(reader, db, "coffee", peeks=await _peek(reader, redis, "coffee"))).exists
        assert _count("negative") == 1
    finally:
        async with db.connection() as connection:
            await connection.execute("DROP TABLE supplier")
        await redis.close()
