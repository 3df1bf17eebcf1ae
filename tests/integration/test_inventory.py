"""Stock under duplicates, reordered events, races for the last piece and mixed lock orders: G1, G2, W2."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.integration.facts import Facts
from tests.integration.waiting import persist
from tests.integration.workshop import DeskProvider, Workshop, open_desk


@pytest.fixture
def shop(db: Any, settings: Any, login: Any) -> Workshop:
    desk = open_desk(settings, "inventory")
    return Workshop(db, settings, login, desk, DeskProvider(desk))


async def test_a_reservation_is_drawn_written_and_said_once(shop: Workshop, facts: Facts) -> None:
    one, two = await facts.add_product(pieces=10), await facts.add_product(pieces=10)
    order_id = await shop.place((one, 3), (two, 4))
    placed = await shop.event(order_id, "order.placed")
    assert [await shop.handle("inventory", placed) for _ in range(3)] == ["applied", "duplicate", "duplicate"]
    assert (await facts.stock(one), await facts.stock(two)) == (7, 6)
    assert await facts.events(order_id) == [("order.placed", 1), ("order.reserved", 2)]
    assert await shop.status(order_id) == ("reserved", None)
    await shop.assert_stock_adds_up(one, two)


async def test_twenty_deliveries_at_once_reserve_once(shop: Workshop, facts: Facts) -> None:
    sku = await facts.add_product(pieces=10)
    placed = await shop.event(await shop.place((sku, 3)), "order.placed")
    outcomes = Counter(await asyncio.gather(*(shop.handle("inventory", placed) for _ in range(20))))
    assert outcomes == {"applied": 1, "duplicate": 19}
    assert await facts.stock(sku) == 7


async def test_an_order_is_all_or_nothing(shop: Workshop, facts: Facts) -> None:
    plenty, short = await facts.add_product(pieces=10), await facts.add_product(pieces=1)
    order_id = await shop.place((plenty, 5), (short, 2))
    assert await shop.tell(order_id, "order.placed", "inventory") == ["applied"]
    assert await shop.status(order_id) == ("rejected", "out_of_stock")
    assert (await facts.stock(plenty), await facts.stock(short)) == (10, 1)
    rejected = await shop.event(order_id, "order.rejected")
    assert rejected.payload.reason == "out_of_stock"  # type: ignore[union-attr]
    assert await shop.handle("inventory", rejected) == "superseded", "nothing was reserved: nothing goes back"
    assert await facts.stock(plenty) == 10


@pytest.mark.parametrize("order", [("placed", "cancelled"), ("cancelled", "placed"), ("cancelled", "placed", "cancelled", "placed")])
async def test_a_cancelled_order_holds_nothing_in_whatever_order_we_hear(shop: Workshop, facts: Facts, order: tuple[str, ...]) -> None:
    sku = await facts.add_product(pieces=10)
    order_id = await shop.place((sku, 3))
    if order[0] == "placed":
        await shop.tell(order_id, "order.placed", "inventory")
    await shop.cancel(order_id)
    for name in order:
        await shop.tell(order_id, f"order.{name}", "inventory")
    assert await facts.stock(sku) == 10
    assert await shop.status(order_id) == ("cancelled", None)
    await shop.assert_stock_adds_up(sku)


async def test_what_was_shipped_does_not_come_back(shop: Workshop, facts: Facts) -> None:
    sku = await facts.add_product(pieces=10)
    order_id = await shop.place((sku, 4))
    await shop.settle([order_id])
    version = (await facts.order(order_id))["version"]
    assert (await shop.login("olga", role="operator").ship({"id": order_id, "version": version})).status_code == 200
    shipped = await shop.event(order_id, "order.shipped")
    assert [await shop.handle("inventory", shipped) for _ in range(2)] == ["applied", "duplicate"]
    kinds = await facts.rows("SELECT kind, quantity FROM stock_ledger WHERE ref_id = $1 ORDER BY kind", UUID(order_id))
    assert [tuple(row) for row in kinds] == [("reserve", 4), ("ship", 4)]
    assert await facts.stock(sku) == 6
    await shop.assert_stock_adds_up(sku)


async def test_fifty_buyers_for_twenty_pieces_make_twenty_reservations(shop: Workshop, facts: Facts) -> None:
    sku = await facts.add_product(pieces=20)
    orders = await asyncio.gather(*(shop.place((sku, 1), customer=f"buyer-{n}") for n in range(50)))
    events = [await shop.event(order, "order.placed") for order in orders] * 2
    random.Random(5).shuffle(events)
    await asyncio.gather(*(shop.handle("inventory", event) for event in events))
    found = Counter([await shop.status(order) for order in orders])
    assert found == {("reserved", None): 20, ("rejected", "out_of_stock"): 30}, "G2: no oversell, no false sold-out"
    assert await facts.stock(sku) == 0
    await shop.assert_stock_adds_up(sku)


async def test_mixed_lines_releases_and_restocks_do_not_deadlock(shop: Workshop, facts: Facts) -> None:
    skus, dice = [await facts.add_product(pieces=10_000) for _ in range(6)], random.Random(11)
    orders = [await shop.place(*((sku, dice.randint(1, 9)) for sku in dice.sample(skus, 4))) for _ in range(40)]
    placed = {order: await shop.event(order, "order.placed") for order in orders}
    for order in orders[:20]:
        await shop.handle("inventory", placed[order])
    for order in orders[:20]:
        await shop.cancel(order)
    undone = [await shop.event(order, "order.cancelled") for order in orders[:20]]
    admin = shop.login("adam", role="admin")
    keys = [str(uuid4()) for _ in range(12)]
    # A deadlock would be raised by one of these: the workshop forgives lock timeouts only.
    await asyncio.gather(
        *(shop.handle("inventory", event) for event in undone),
        *(shop.handle("inventory", placed[order]) for order in orders[20:]),
        *(
            persist(lambda sku=sku, key=key: admin.post(f"/products/{sku}/restock", {"quantity": 5}, key=key))
            for sku, key in zip(skus * 2, keys, strict=True)
        ),
    )
    await shop.assert_stock_adds_up(*skus)
    assert {(await shop.status(order))[0] for order in orders[20:]} == {"reserved"}
    assert await facts.value("SELECT count(*) FROM stock_ledger WHERE sku = ANY ($1) AND kind = 'release'", skus) == 80


async def test_an_event_about_nothing_we_know_changes_nothing(shop: Workshop, facts: Facts) -> None:
    sku = await facts.add_product(pieces=5)
    placed = await shop.event(await shop.place((sku, 1)), "order.placed")
    stranger = placed.payload.model_copy(update={"order_id": uuid4()})  # type: ignore[union-attr]
    lost = type(placed)(**{name: getattr(placed, name) for name in placed.__slots__} | {"payload": stranger, "event_id": uuid4()})
    assert await shop.handle("inventory", lost) == "superseded"
    assert await facts.stock(sku) == 5
