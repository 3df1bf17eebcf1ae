"""A dependency hangs: what does not need it goes on, and the pools of the others stay theirs (H3).

Frozen, not killed: a refused connection costs nothing, a silent one holds whatever waits for it.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.proofs.cache_faults import frozen_postgres, redis_answers
from tests.stories.shop import Shop, until
from tests.support.clients import ApiClient

COLD = [f"SKU-{number:04d}" for number in range(400, 460)]
_IDLE_IN_TRANSACTION = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND now() - state_change > interval '1 second'"


@contextmanager
def frozen(shop: Shop, role: str) -> Iterator[None]:
    """SIGSTOP inside, SIGCONT at the end."""
    pids = shop.signal(role, signal.SIGSTOP)
    assert pids, f"no {role} runs"
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@asynccontextmanager
async def watched(shop: Shop, gauge: str) -> AsyncIterator[list[float]]:
    """The gauge's values over the block, as often as the processes answer."""
    seen: list[float] = []

    async def look() -> None:
        while True:
            for page in await shop.metrics("api"):
                seen.extend(float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(f"{gauge} "))
            await asyncio.sleep(0.05)

    task = asyncio.create_task(look())
    try:
        yield seen
    finally:
        task.cancel()


def _reached_redis(answer: httpx.Response) -> bool:
    """Quota and cached copy come in one round trip."""
    return ";degraded" not in answer.headers.get("ratelimit", "")


async def _all_hits(shop: Shop, client: ApiClient, path: str) -> bool:
    """Were twenty reads all served from the cache? After an outage of Redis a process goes by it for a moment longer."""

    async def hits() -> float:
        found = [line for page in await shop.metrics("api") for line in page.splitlines() if line.startswith("orders_cache_requests_total{")]
        return sum(float(line.rpartition(" ")[2]) for line in found if 'outcome="hit"' in line)

    before = await hits()
    await asyncio.gather(*(client.get(path) for _ in range(20)))
    return await hits() - before >= 20


async def test_redis_frozen_reads_leave_the_connections_to_the_sales(shop: Shop) -> None:
    anna = shop.login("anna-pools-redis")
    with frozen(shop, "redis"):
        reads = [anna.get(f"/products/{sku}") for sku in COLD for _ in range(2)]
        sales = [anna.place(("SKU-0008", 1)) for _ in range(20)]
        answers = await asyncio.gather(*reads, *sales)
    assert {answer.status_code for answer in answers[: len(reads)]} == {200}
    assert {answer.status_code for answer in answers[len(reads) :]} == {201}
    assert any(";degraded" in answer.headers["ratelimit"] for answer in answers), "the outage was not felt"
    await until(lambda: redis_answers(shop), "Redis answers again")
    await shop.become([answer.json() for answer in answers[len(reads) :]], "paid")


async def test_postgresql_frozen_the_limiter_and_the_cache_still_answer(shop: Shop) -> None:
    anna = shop.login("anna-pools-postgres")
    await until(lambda: _all_hits(shop, anna, "/products/SKU-0009"), "the product is served from the cache")
    key = str(uuid4())
    with frozen_postgres(shop):
        stuck = [asyncio.create_task(anna.place(("SKU-0008", 1), key=key)) for _ in range(5)]
        stuck += [asyncio.create_task(anna.get(f"/orders/{uuid4()}")) for _ in range(40)]
        await asyncio.sleep(0)
        cached = [await anna.get("/products/SKU-0009") for _ in range(40)]
        answers = await asyncio.gather(*stuck)
    # On a host that stalls, Redis too may once answer later than the limiter waits, and its copy with it; starved of it, it would reach it never.
    assert {answer.status_code for answer in cached if _reached_redis(answer)} == {200}
    assert {answer.status_code for answer in answers} == {503}
    reached = [_reached_redis(answer) for answer in (*cached, *answers)]
    assert sum(reached) > len(reached) / 2, f"the limiter's Redis was reached {sum(reached)} times of {len(reached)}"
    # "May or may not have happened": the same key tells, once it is back.
    again = await shop.definite(lambda: anna.place(("SKU-0008", 1), key=key))
    assert again.status_code == 201
    await shop.becomes(again.json(), "paid")


async def test_the_provider_frozen_everything_but_charging_goes_on(shop: Shop) -> None:
    anna = shop.login("anna-pools-provider")
    with frozen(shop, "psp"):
        placed = await asyncio.gather(*(anna.place(("SKU-0008", 1)) for _ in range(30)))
        orders = [answer.json() for answer in placed]
        await shop.become(orders, "reserved")
        await until(lambda: _all_told(shop, anna, orders), "the timelines say so")
        assert await shop.database.fetchval(_IDLE_IN_TRANSACTION) == 0, "a transaction waits for the provider"
    await shop.become(orders, "paid")


async def _all_told(shop: Shop, anna: Any, orders: list[dict[str, Any]]) -> bool:
    pages: list[httpx.Response] = await asyncio.gather(*(anna.get(f"/orders/{order['id']}/timeline") for order in orders))
    return all("order.reserved" in page.text for page in pages)


@pytest.mark.broker
async def test_kafka_frozen_orders_are_taken_and_drain_afterwards(shop: Shop) -> None:
    anna = shop.login("anna-pools-kafka")
    async with watched(shop, "orders_db_pool_in_use") as in_use:
        with frozen(shop, "kafka"):
            placed = [await anna.place(("SKU-0008", 1)) for _ in range(40)]
            reads = [await anna.get(f"/orders/{answer.json()['id']}") for answer in placed]
    assert {answer.status_code for answer in (*placed, *reads)} == {200, 201}
    assert in_use
    assert max(in_use) <= 2, "one call at a time needs one connection, and the watch another"
    await shop.become([answer.json() for answer in placed], "paid")
    await shop.holds()


async def test_a_process_that_is_told_to_go_goes_though_everything_hangs(shop: Shop) -> None:
    """Pools and exporters are closed with a bound: a dependency that says nothing does not keep the process."""
    pid = shop.pids("api")[0]
    with frozen(shop, "redis"), frozen_postgres(shop):
        os.kill(pid, signal.SIGTERM)

        async def told() -> str:
            return "".join(line for line in (shop.home / "logs" / "up.log").read_text().splitlines() if f"(pid {pid}) ended" in line)

        assert "exit 0" in await until(told, "the process is gone")
    await until(lambda: redis_answers(shop), "Redis answers again")
    await shop.replaced("api", [pid])
    await shop.holds()
