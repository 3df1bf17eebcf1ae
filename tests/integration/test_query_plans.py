"""What the service asks of PostgreSQL: no sequential scan, as many statements as pinned, deep pages as cheap as the first.

Statements are taken from the wire while routes, handlers, relay and reaper run, so none can be forgotten here.
At 100,000 orders; docs/database.md's plans also at a million (test_plans_at_a_million.py).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from bench.database.claims import CLAIMS, Claim, complaints, pick
from service.dev.issuer import mint
from service.foundation.cache import Cache
from service.foundation.db import Database
from service.foundation.grouped import Jobs
from service.foundation.lifecycle import Lifecycle
from service.foundation.redis import RedisClient
from service.orders import operations
from service.settings import Settings
from service.web.paging import encode_cursor
from tests.integration.big_shop import REGULAR, Recorder, filled, recorded_connections, recording_api, settings_of_its_own
from tests.integration.letters import record_of
from tests.support.clients import ApiClient
from tests.support.servers import Servers
from workers.envelope import decode
from workers.handlers import inventory, notifications, payments, timeline
from workers.handling import Context
from workers.reaper import Reaper
from workers.relay import Relay

pytestmark = pytest.mark.alone  # a hundred thousand orders take both cores for half a minute

ORDERS = 100_000
# Statements whose reading of a whole table is meant, each with its reason.
WHOLE_TABLE = {
    "inhparent = 'outbox_sent'": "the reaper lists the partitions, a handful of catalogue rows",
    "FROM dead_letter WHERE status <> 'open' AND resolved_at": "once a second over resolved letters, which are few and swept",
    "FROM outbox b WHERE b.aggregate_id = o.id::text": "read only when orders are overdue and the outbox is young; an index would cost every write",
    "GROUP BY orders.status": "the admin overview counts orders; nobody's request waits for it",
    "outbox_sent_default": "EXISTS stops at the first row",
}


@pytest.fixture(scope="module")
def big(servers: Servers) -> Iterator[Settings]:
    with settings_of_its_own(servers, "big") as made:
        yield made


@pytest_asyncio.fixture(scope="module")
async def plain(big: Settings) -> AsyncIterator[asyncpg.Connection[Any]]:
    async with filled(big, ORDERS) as connection:
        yield connection


@pytest_asyncio.fixture(scope="module")
async def shop(big: Settings, plain: Any) -> AsyncIterator[SimpleNamespace]:
    """The API on the big database, its recorder, and clients."""
    recorder = Recorder()
    async with recording_api(big, recorder) as http:

        def login(sub: str, role: str = "customer") -> ApiClient:
            return ApiClient(http, mint(Path(big.app.home), sub=sub, role=role))

        yield SimpleNamespace(recorder=recorder, login=login, said=recorder.take)


@pytest.mark.parametrize("claim", CLAIMS, ids=[claim.name for claim in CLAIMS])
async def test_the_plan_that_is_claimed(claim: Claim, plain: Any) -> None:
    """docs/database.md says which index answers what, and for how many buffers."""
    assert await complaints(plain, claim, await pick(plain)) == []


@pytest.mark.parametrize("claim", [claim for claim in CLAIMS if claim.index.startswith("ix_")], ids=lambda claim: claim.index)
async def test_a_dropped_index_is_noticed(claim: Claim, plain: Any) -> None:
    assert await complaints(plain, claim, await pick(plain), planted=f"DROP INDEX {claim.index}") != []


async def test_statements_per_request_are_pinned(shop: SimpleNamespace, plain: Any) -> None:
    anna, admin = shop.login(REGULAR), shop.login("adam", "admin")
    await anna.place()

    async def count(answer: Any) -> tuple[int, int]:
        response = await answer
        assert response.status_code < 400, response.text
        return response.status_code, len(await shop.said())

    await shop.said()
    placed = await anna.place(key="pinned")
    order = placed.json()
    assert len(await shop.said()) == 1, "a create with warm prices is one statement"
    assert await count(anna.place(key="pinned")) == (201, 1), "so is its replay"
    await plain.execute("UPDATE product SET price_minor = price_minor + 1 WHERE sku = 'SKU-0001'")
    assert await count(anna.place(key="pinned")) == (201, 1), "a finished twin is seen before the price is called stale"
    await plain.execute("UPDATE product SET price_minor = price_minor - 1 WHERE sku = 'SKU-0001'")
    assert await count(anna.get(f"/orders/{order['id']}")) == (200, 1), "a miss loads once"
    assert await count(anna.get(f"/orders/{order['id']}")) == (200, 0), "a hit asks nobody"
    assert await count(anna.get(f"/orders/{order['id']}", if_none_match='"1.1"')) == (304, 0)
    assert await count(anna.get(f"/orders/{order['id']}/timeline")) == (200, 1)
    assert await count(anna.get("/products")) == (200, 1)
    # BEGIN, lock, key, order, move, event, key, COMMIT.
    assert await count(anna.cancel(order, key="c")) == (200, 8)
    assert (await count(anna.cancel(order, key="c")))[1] == 4, "a replay: BEGIN, lock, key, COMMIT"
    assert await count(admin.patch("/products/SKU-0007", {"price_minor": 5}, if_match='"1.1"')) == (200, 4)
    assert await count(admin.post("/products/SKU-0007/restock", {"quantity": 5}, key="r")) == (200, 9)
    assert await count(anna.get("/products/SKU-0007/availability")) == (200, 1)
    assert await count(anna.get("/products/SKU-0007/availability")) == (200, 0)
    assert (await count(anna.get("/products?limit=100")))[1] == 1
    assert (await anna.place(("NO-SUCH-SKU", 1))).status_code == 422
    assert len(await shop.said()) == 5, "a no: look, BEGIN, probe, look, ROLLBACK"


async def test_a_list_is_one_statement(shop: SimpleNamespace) -> None:
    anna = shop.login(REGULAR)
    await shop.said()
    assert (await anna.get("/orders")).status_code == 200
    assert len(await shop.said()) == 1, "lines come with their orders, not one by one"


async def _use_everything(shop: SimpleNamespace, big: Settings, plain: Any) -> list[tuple[str, tuple[Any, ...]]]:
    """Every route and worker once; the statements it took."""
    anna, olga, adam = shop.login(REGULAR), shop.login("olga", "operator"), shop.login("adam", "admin")
    order = (await anna.place()).json()
    cursor = encode_cursor("order", order["id"])
    for who, path in (
        (anna, "/orders"), (anna, f"/orders?cursor={cursor}"), (anna, f"/orders?status=placed&cursor={cursor}"), (olga, "/orders"),
        (olga, f"/orders?cursor={cursor}"), (olga, f"/orders?customer_id={REGULAR}"), (olga, "/orders?status=shipped"),
        (olga, f"/orders/{order['id']}"),
        (anna, f"/orders/{order['id']}/timeline"), (anna, "/products"), (anna, f"/products?cursor={encode_cursor('product', 'SKU-0100')}"),
        (anna, "/products/SKU-0009"), (anna, "/products/SKU-0009/availability"), (adam, "/admin/overview"), (adam, "/admin/dead-letters"),
        (adam, "/admin/dead-letters?status=open"), (adam, f"/admin/dead-letters/{order['id']}"),
    ):  # fmt: skip
        assert (await who.get(path)).status_code in (200, 404), path
    assert (await anna.place(("NO-SUCH-SKU", 1))).status_code == 422
    assert (await adam.patch("/products/SKU-0011", {"active": False}, if_match='"1.1"')).status_code == 200
    assert (await adam.post("/products/SKU-0011/restock", {"quantity": 1})).status_code == 200
    with recorded_connections(shop.recorder):
        db = Database(big.db, application="tests")
        await db.open()
    try:
        await _work(db, big, plain, order["id"])
        assert (await anna.cancel(order, etag='"3.1"')).status_code == 200
        await _work(db, big, plain, order["id"], after=3)
        reaper, relay = Reaper(big, db, Lifecycle()), Relay(big, db, Lifecycle())
        await reaper.run_once()
        await plain.execute("UPDATE outbox SET created_at = now()")
        await reaper.run_once()
        await relay._move(await relay._read())
        await relay._read()
    finally:
        await db.close()
    return await shop.recorder.take()


async def _work(db: Database, big: Settings, plain: Any, order_id: str, *, after: int = 0) -> None:
    """What the groups do with the order's events, each told twice, until nothing new is said."""
    redis = RedisClient(big.redis)
    provider = SimpleNamespace(charge=_answer("captured"), void=_answer("captured"), refund=_answer("refunded"), find=_answer("captured"))
    sink = SimpleNamespace(send=_answer(None))
    groups = {"inventory": inventory.HANDLERS, "payments": payments.HANDLERS, "notifications": notifications.HANDLERS, "timeline": timeline.HANDLERS}
    done = after
    while rows := await plain.fetch("SELECT * FROM outbox WHERE aggregate_id = $1 AND version > $2 ORDER BY version", order_id, done):
        for row in rows:
            event = decode(record_of(row))
            jobs = Jobs(db, size=1)
            for name, handlers in groups.items():
                handle: Any = handlers.get(row["type"])
                if handle is not None:
                    context = Context(name, db, big, provider, sink, Cache(redis), jobs)  # type: ignore[arg-type]  # stand-ins for provider and sink
                    assert await handle(event, context) in ("applied", "superseded", "duplicate")
                    await handle(event, context)
            done = row["version"]
    await redis.close()


def _answer(value: Any) -> Any:
    async def answer(*_: Any) -> Any:
        return value

    return answer


async def explain(plain: asyncpg.Connection[Any], text: str, count: int) -> list[dict[str, Any]]:
    """The nodes of the generic plan."""
    await plain.execute(f"PREPARE asked AS {text}")
    try:
        arguments = f"({', '.join(['NULL'] * count)})" if count else ""
        plan = await plain.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE asked{arguments}")
    finally:
        await plain.execute("DEALLOCATE asked")
    nodes: list[dict[str, Any]] = []
    waiting = [json.loads(plan)[0]["Plan"]]
    while waiting:
        node = waiting.pop()
        nodes.append(node)
        waiting += node.get("Plans", [])
    return nodes


async def test_no_hot_statement_reads_a_whole_table(shop: SimpleNamespace, big: Settings, plain: Any) -> None:
    texts = {text: len(values) for text, values in await _use_everything(shop, big, plain)}
    asked = {text: count for text, count in texts.items() if text.lstrip().upper().startswith(("SELECT", "WITH", "INSERT", "UPDATE", "DELETE"))}
    assert len(asked) > 35, "routes, handlers, relay and reaper were heard"
    guilty = []
    for text, count in asked.items():
        if any(part in " ".join(text.split()) for part in WHOLE_TABLE):
            continue
        scans = [node["Relation Name"] for node in await explain(plain, text, count) if node["Node Type"] == "Seq Scan"]
        if scans:
            guilty.append((scans, " ".join(text.split())[:160]))
    assert guilty == []


async def test_a_deep_page_costs_what_page_1_costs(shop: SimpleNamespace, plain: Any) -> None:
    anna = shop.login(REGULAR)
    await shop.said()
    page_number = ORDERS // 100
    first, deep = (UUID(f"01890a5d-0000-7000-8000-{n:012x}") for n in (ORDERS + 4, ORDERS - 4 * 20 * (page_number - 1)))
    costs = []
    for cursor in (first, deep):
        page = await anna.get(f"/orders?cursor={encode_cursor('order', str(cursor))}")
        assert len(page.json()["items"]) == 20
        [(text, values)] = await shop.said()
        found = json.loads(await plain.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {text}", *values))[0]["Plan"]
        costs.append(found["Shared Hit Blocks"] + found["Shared Read Blocks"])
    assert costs[1] <= costs[0] + 10, f"buffers of page 1 and page {page_number}: {costs}"
    assert costs[0] < 250


async def test_a_page_by_offset_is_noticed(shop: SimpleNamespace, plain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the service's list counts from the top. `test_a_deep_page_costs_what_page_1_costs` fails."""

    async def by_offset(connection: Any, wanted: operations.OrderFilter, *, before: UUID | None, limit: int) -> list[Any]:
        skipped = await plain.fetchval("SELECT count(*) FROM orders WHERE customer_id = $1 AND id >= $2", wanted.customer_id, before)
        sql = "SELECT *, NULL::json AS lines FROM orders WHERE customer_id = $1 ORDER BY id DESC OFFSET $2 LIMIT $3"
        rows: list[Any] = await connection.fetch(sql, wanted.customer_id, skipped, limit)
        return rows

    monkeypatch.setattr(operations, "list_orders", by_offset)
    with pytest.raises(AssertionError, match="buffers of page 1 and page"):
        await test_a_deep_page_costs_what_page_1_costs(shop, plain)


async def test_a_select_in_a_loop_is_noticed(shop: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the list reads each order again, one by one. `test_a_list_is_one_statement` fails."""
    original: Callable[..., Any] = operations.list_orders

    async def one_by_one(connection: Any, wanted: operations.OrderFilter, *, before: UUID | None, limit: int) -> list[Any]:
        return [await operations.get_order(connection, row["id"]) for row in await original(connection, wanted, before=before, limit=limit)]

    monkeypatch.setattr(operations, "list_orders", one_by_one)
    with pytest.raises(AssertionError, match="lines come with their orders"):
        await test_a_list_is_one_statement(shop)
