"""What a client costs, side by side in one process: the Redis wire, the connection pool, and the workers' HTTP client.

`python -m bench.compare_clients` prints CPU microseconds an operation, interleaved rounds, median; the numbers of
docs/adr/0019 and 0020, and the reason for aiohttp, come from here. 16 operations in flight, as the HTTP ladder has them.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, cast

import asyncpg
import httpx
import uvloop
from redis.asyncio import BlockingConnectionPool, Redis

from bench.servers import free_base_port
from service.dev.postgres import EmbeddedPostgres
from service.dev.redis import EmbeddedRedis
from service.foundation.db import Database
from service.foundation.redis_wire import RedisWire
from service.payments import open_client
from service.settings import DatabaseSettings

_ROUNDS: Final = 10
_OPERATIONS: Final = 2_000
_IN_FLIGHT: Final = 16
_CHARGE: Final = b'{"key":"charge:0190","order_id":"0190","amount_minor":1000,"currency":"EUR"}'
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


class _Captured(asyncio.Protocol):
    """Answers a request as a provider would, for next to nothing: its cost is in both figures."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if data.endswith(_CHARGE):
            self._transport.write(b'HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n{"state":"captured"}')


async def compare_http() -> None:
    """A charge: httpx against aiohttp."""
    server = await asyncio.get_running_loop().create_server(_Captured, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/charge"
    async with httpx.AsyncClient(timeout=2, verify=False) as plain, open_client(2) as lean:  # noqa: S501 - loopback, no TLS

        async def by_httpx() -> object:
            return (await plain.post(url, content=_CHARGE)).content

        async def by_aiohttp() -> object:
            async with lean.post(url, data=_CHARGE) as response:
                return await response.read()

        await compare("HTTP POST", ("httpx", by_httpx), ("aiohttp", by_aiohttp))
    server.close()


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
            await compare_http()
        finally:
            redis.stop()
            postgres.stop()
            postgres.wipe()


if __name__ == "__main__":
    uvloop.run(main())
