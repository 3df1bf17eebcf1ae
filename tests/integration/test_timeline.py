"""The timeline is the same whatever order events come in and however often; notifications are told once an event."""

from __future__ import annotations

import random
from typing import Any
from uuid import UUID

import pytest

from tests.integration.facts import Facts
from tests.integration.workshop import DeskProvider, Workshop, open_desk
from workers.envelope import Envelope, Poison


@pytest.fixture
def shop(db: Any, settings: Any, login: Any) -> Workshop:
    desk = open_desk(settings, "timeline")
    return Workshop(db, settings, login, desk, DeskProvider(desk))


async def refunded(shop: Workshop) -> str:
    """An order with a long life: placed, reserved, paid, cancelled, refunded."""
    order_id = await shop.place()
    await shop.settle([order_id])
    await shop.cancel(order_id)
    await shop.settle([order_id])
    return order_id


LIFE = ["order.placed", "order.reserved", "order.paid", "order.cancelled", "order.refunded"]


@pytest.mark.parametrize("seed", range(4))
async def test_any_order_any_number_of_times_is_the_same_history(shop: Workshop, facts: Facts, seed: int) -> None:
    order_id = await refunded(shop)
    events = await shop.events(order_id) * 2
    random.Random(seed).shuffle(events)
    outcomes = [await shop.handle("timeline", event) for event in events]
    assert (outcomes.count("applied"), outcomes.count("duplicate")) == (5, 5)
    rows = await facts.rows("SELECT version, type FROM order_timeline WHERE order_id = $1 ORDER BY version", UUID(order_id))
    assert [tuple(row) for row in rows] == list(enumerate(LIFE, start=1))
    items = (await shop.login("workshop").get(f"/orders/{order_id}/timeline")).json()["items"]
    assert [item["type"] for item in items] == LIFE
    assert [item["at"] for item in items] == sorted(item["at"] for item in items)


async def test_a_rejection_says_why(shop: Workshop, facts: Facts) -> None:
    order_id = await shop.place((await facts.add_product(pieces=0), 1))
    await shop.settle([order_id], "inventory", "timeline")
    items = (await shop.login("workshop").get(f"/orders/{order_id}/timeline")).json()["items"]
    assert [(item["type"], item["detail"]) for item in items] == [("order.placed", {}), ("order.rejected", {"reason": "out_of_stock"})]


async def test_notifications_tell_each_end_once(shop: Workshop) -> None:
    order_id = await refunded(shop)
    events = await shop.events(order_id)
    for event in events * 2:
        await shop.handle("notifications", event)
    told = [(message["type"], message["version"]) for message in shop.sink.sent]
    assert sorted(set(told)) == [("order.cancelled", 4), ("order.paid", 3), ("order.refunded", 5)]
    assert {message["event_id"] for message in shop.sink.sent} == {str(event.event_id) for event in events[2:]}, "keyed by event id"


@pytest.mark.parametrize("group", ["timeline", "inventory", "payments", "notifications"])
async def test_a_payload_of_another_kind_is_poison(shop: Workshop, facts: Facts, group: str) -> None:
    order_id = await shop.reserved()
    event_type = {"inventory": "order.placed", "payments": "order.reserved"}.get(group, "order.cancelled")
    event = Envelope(**{name: getattr(await shop.event(order_id, "order.placed"), name) for name in Envelope.__slots__} | {
        "event_type": event_type, "payload": None})  # fmt: skip
    before = await facts.counts()
    with pytest.raises(Poison):
        await shop.handle(group, event)
    assert await facts.counts() == before
