"""What two clients of our own save, side by side in one process: the Redis wire and the connection pool.

`python -m bench.compare_clients` prints CPU microseconds an operation, interleaved rounds, median; the numbers of
docs/adr/0019 and 0020 come from here. 16 operations in flight, as the HTTP ladder has them.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import asyncpg
import uvloop
from redis.asyncio import BlockingConnectionPool, Redis

from bench.servers import free_base_port
from service.dev.postgres import EmbeddedPostgres
from service.dev.redis import EmbeddedRedis
from service.foundation.db import Database
from service.foundation.redis_wire import RedisWire
from service.settings import DatabaseSettings

_ROUNDS: Final = 10
_OPERATIONS: Final = 2_000
_IN_FLIGHT: Final = 16
_COMMANDS: Final = [("GET", "a"), ("HMGET", "b", "v", "d", "f")]

Arm = Callable[[], Awaitable[object]]


async def cost_us(arm: Arm) -> float:
    """CPU microseconds of this process for one operation."""

    async def worker() -> None:
        for _ in range(_OPERATIONS // _IN_FLIGHT):
            await arm()

    started = time.process_time()
    await asyncio.gather(*(worker() for _ in range(_IN_FLIGHT)))
    return (time.process_time() - started) / _OPERATIONS * 1e6


async def compare(title: str, first: tuple[str, Arm], second: tuple[str, Arm]) -> None:
    """Print both medians and the ratio pair by pair."""
    rounds = [(await cost_us(first[1]), await cost_us(second[1])) for _ in range(_ROUNDS + 1)]
    pairs = rounds[1:]  # the first round warms both up
    a, b = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(x / y for x, y in pairs)
    print(f"{title}: {first[0]} {a:.0f} µs, {second[0]} {b:.0f} µs, ratio {ratio:.1f}", flush=True)


async def compare_redis(url: str) -> None:
    """A two-command pipeline: redis-py against the wire."""
    client = Redis(connection_pool=BlockingConnectionPool.from_url(url, max_connections=32, timeout=1))
    wire = RedisWire(url, timeout_s=1)

    async def by_redis_py() -> object:
        pipe = client.pipeline(transaction=False)
        pipe.get("a")
        pipe.hmget("b", "v", "d", "f")
        return await pipe.execute()

    async def by_wire() -> object:
        return await wire.pipeline(_COMMANDS)

    await compare("Redis pipeline of two", ("redis-py", by_redis_py), ("wire", by_wire))
    wire.close()
    await client.aclose()


async def compare_pools(url: str) -> None:
    """SELECT 1 through asyncpg's pool (with and without its reset) and through `Database`."""
    for name, reset in (("asyncpg pool", None), ("asyncpg pool without reset", _no_reset)):
        pool = await asyncpg.create_pool(url, min_size=10, max_size=10, reset=reset)
        db = Database(DatabaseSettings(url=url, pool_size=10), application="bench", queue_timeout_ms=10_000)  # type: ignore[arg-type]
        await db.open()

        async def by_pool(pool: asyncpg.Pool = pool) -> object:
            async with pool.acquire() as connection:
                return await connection.fetchval("SELECT 1")

        async def by_ours(db: Database = db) -> object:
            async with db.connection() as connection:
                return await connection.fetchval("SELECT 1")

        await compare("SELECT 1", (name, by_pool), ("Database", by_ours))
        await db.close()
        await pool.close()


async def _no_reset(_connection: object) -> None:
    return None


async def main() -> None:
    """Start the servers, compare, stop them."""
    base = free_base_port()
    with tempfile.TemporaryDirectory(prefix="plumbline-bench-") as folder:
        home = Path(folder)
        redis, postgres = EmbeddedRedis(home, base + 101), EmbeddedPostgres(home, base + 100)
        try:
            redis.start()
            postgres.start()
            await compare_redis(redis.url)
            await compare_pools(postgres.url)
        finally:
            redis.stop()
            postgres.stop()
            postgres.wipe()


if __name__ == "__main__":
    uvloop.run(main())
