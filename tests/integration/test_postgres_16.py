"""The oldest PostgreSQL we promise: schema, hot statements, guards and lists on a server of version 16."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from service.dev.issuer import mint
from service.dev.postgres import EmbeddedPostgres
from service.foundation.db import Database
from service.foundation.lifecycle import Lifecycle
from service.migrations import upgrade
from service.settings import Settings, load_settings
from tests.integration.big_shop import Recorder, recording_api
from tests.integration.facts import Facts
from tests.integration.waiting import persist
from tests.integration.workshop import DeskProvider, Workshop, open_desk
from tests.support.clients import ApiClient
from tests.support.servers import Servers
from workers.reaper import Reaper


@pytest.fixture(scope="module")
def old(servers: Servers) -> Iterator[Settings]:
    """Settings that name a migrated PostgreSQL 16 beside the session's servers."""
    home = servers.home / "sixteen"
    home.mkdir()
    server, patch = EmbeddedPostgres(home, servers.base_port + 109, version=16), pytest.MonkeyPatch()
    server.start()
    try:
        patch.setenv("DATABASE_URL", server.url)
        patch.setenv("REDIS_URL", servers.redis.url.replace("/0", "/6"))
        patch.setenv("APP_PROFILE", "load")
        upgrade()
        made = load_settings()
        patch.undo()
        yield made
    finally:
        patch.undo()
        server.stop()
        server.wipe()


@pytest_asyncio.fixture(scope="module")
async def shop(old: Settings) -> AsyncIterator[SimpleNamespace]:
    db = Database(old.db, application="tests", queue_timeout_ms=5_000)
    await db.open()
    async with recording_api(old, Recorder()) as http:

        def login(sub: str, role: str = "customer") -> ApiClient:
            return ApiClient(http, mint(old.app.home, sub=sub, role=role))

        desk = open_desk(old, "sixteen")
        yield SimpleNamespace(
            login=login, facts=Facts(db), work=Workshop(db, old, login, desk, DeskProvider(desk)), reaper=Reaper(old, db, Lifecycle())
        )
    await db.close()


async def test_it_is_version_16(shop: SimpleNamespace) -> None:
    assert (await shop.facts.value("SHOW server_version")).startswith("16.")


async def test_twins_make_one_order_and_pages_show_it(shop: SimpleNamespace) -> None:
    anna, sku, keys = shop.login("anna"), await shop.facts.add_product(), [str(uuid4()) for _ in range(4)]
    answers = await asyncio.gather(*(persist(lambda key=key: anna.place((sku, 1), key=key)) for key in keys * 8))
    assert {answer.status_code for answer in answers} == {201}
    await shop.facts.assert_orders_are("anna", answers)
    page = (await anna.get("/orders?limit=3")).json()
    rest = (await anna.get(f"/orders?limit=3&cursor={page['next_cursor']}")).json()
    found = [item["id"] for item in page["items"] + rest["items"]]
    assert found == sorted({answer.json()["id"] for answer in answers}, reverse=True)


async def test_an_order_is_reserved_paid_cancelled_and_refunded(shop: SimpleNamespace) -> None:
    work: Workshop = shop.work
    sku = await shop.facts.add_product(pieces=3)
    order_id = await work.place((sku, 2))
    await work.settle([order_id], "inventory", "payments", "timeline")
    assert (await work.status(order_id), await shop.facts.stock(sku)) == (("paid", None), 1)
    await work.cancel(order_id)
    await work.settle([order_id], "inventory", "payments", "timeline")
    assert await shop.facts.stock(sku) == 3
    await work.assert_money_adds_up(order_id)
    items = (await shop.login("workshop").get(f"/orders/{order_id}/timeline")).json()["items"]
    assert [item["type"] for item in items] == ["order.placed", "order.reserved", "order.paid", "order.cancelled", "order.refunded"]


async def test_the_last_pieces_are_sold_once(shop: SimpleNamespace) -> None:
    work: Workshop = shop.work
    sku = await shop.facts.add_product(pieces=5)
    orders = [await work.place((sku, 1)) for _ in range(12)]
    events: list[Any] = [await work.event(order, "order.placed") for order in orders]
    await asyncio.gather(*(work.handle("inventory", event) for event in events * 2))
    assert sorted([(await work.status(order))[0] for order in orders]) == ["rejected"] * 7 + ["reserved"] * 5
    await work.assert_stock_adds_up(sku)


async def test_catalogue_and_reaper_work(shop: SimpleNamespace) -> None:
    admin, sku = shop.login("adam", "admin"), await shop.facts.add_product(pieces=1)
    assert (await admin.patch(f"/products/{sku}", {"price_minor": 5}, if_match='"1.1"')).status_code == 200
    assert (await admin.post(f"/products/{sku}/restock", {"quantity": 4})).json()["version"] == 3
    assert await shop.facts.stock(sku) == 5
    await shop.facts.run("UPDATE idempotency_key SET expires_at = now() - interval '1 day'")
    await shop.reaper.run_once()
    assert await shop.facts.value("SELECT count(*) FROM idempotency_key") == 0
