"""The reaper expires what nobody finishes and nothing else, and removes only what has served its time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

import workers.reaper
from service.foundation.db import Database
from service.foundation.lifecycle import Lifecycle
from service.settings import Settings
from tests.integration.facts import Facts
from tests.integration.workshop import DeskProvider, Workshop, open_desk
from workers.reaper import Reaper

PUBLISH = """
WITH gone AS (DELETE FROM outbox RETURNING *)
INSERT INTO outbox_sent (seq, event_id, aggregate_type, aggregate_id, version, type, topic, key, payload, headers, created_at)
SELECT seq, event_id, aggregate_type, aggregate_id, version, type, topic, key, payload, headers, created_at FROM gone
"""


@pytest.fixture
def shop(db: Database, settings: Settings, login: Any) -> Workshop:
    desk = open_desk(settings, "reaper")
    return Workshop(db, settings, login, desk, DeskProvider(desk))


@pytest.fixture
def reaper(db: Database, settings: Settings) -> Reaper:
    return Reaper(settings, db, Lifecycle())


async def overdue(shop: Workshop, *, reserved: bool = False, hours: float = 2) -> str:
    """An order nobody has touched for some hours, its events published."""
    order_id = await (shop.reserved() if reserved else shop.place())
    await shop.facts.run(
        "UPDATE orders SET updated_at = now() - $2::interval, created_at = now() - $2::interval WHERE id = $1", UUID(order_id), timedelta(hours=hours)
    )
    await shop.facts.run(PUBLISH)
    return order_id


@pytest.mark.parametrize("reserved", [False, True])
async def test_an_overdue_order_expires_once_and_gives_back(shop: Workshop, reaper: Reaper, facts: Facts, *, reserved: bool) -> None:
    sku_before = await facts.stock("SKU-0001")
    order_id = await overdue(shop, reserved=reserved)
    assert await reaper.expire_orders() == 1
    assert await reaper.expire_orders() == 0
    assert await shop.status(order_id) == ("expired", "not finished in time")
    assert (await facts.events(order_id))[-1] == ("order.expired", 3 if reserved else 2)
    await shop.settle([order_id])
    assert await facts.stock("SKU-0001") == sku_before
    await shop.assert_money_adds_up(order_id)


async def test_the_overview_counts_what_is_stuck(shop: Workshop, login: Any) -> None:
    async def stuck() -> int:
        return int((await login("root", role="admin").get("/admin/overview")).json()["orders"]["stuck"])

    before = await stuck()
    order_id = await overdue(shop, reserved=True)
    assert await stuck() == before + 1
    await shop.cancel(order_id)
    assert await stuck() == before, "what has ended is not stuck"


async def test_what_is_young_or_finished_is_left_alone(shop: Workshop, reaper: Reaper, facts: Facts) -> None:
    young = await overdue(shop, hours=0.9)
    done = await shop.place()
    await shop.settle([done])
    await facts.run("UPDATE orders SET updated_at = now() - interval '9 days' WHERE id = $1", UUID(done))
    await facts.run(PUBLISH)
    assert await reaper.expire_orders() == 0
    assert ((await shop.status(young))[0], (await shop.status(done))[0]) == ("placed", "paid")


async def test_an_unpublished_event_holds_its_order(shop: Workshop, reaper: Reaper, facts: Facts) -> None:
    order_id = await overdue(shop)
    fresh = """INSERT INTO outbox (event_id, aggregate_type, aggregate_id, version, type, topic, key, payload, headers)
        SELECT gen_random_uuid(), 'order', $1, 1, 'order.placed', 'orders.events.v1', $1, 'x', '{}'"""
    await facts.run(fresh, order_id)
    assert await reaper.expire_orders() == 0
    await facts.run("DELETE FROM outbox WHERE aggregate_id = $1", order_id)
    assert await reaper.expire_orders() == 1


async def test_a_running_charge_delays_expiry_for_its_grace(shop: Workshop, reaper: Reaper, facts: Facts) -> None:
    order_id = await overdue(shop, reserved=True)
    await facts.run(
        "INSERT INTO payment (id, order_id, kind, state, amount_minor, currency, idempotency_key) VALUES ($1, $2, 'charge', 'started', 1, 'EUR', $3)",
        uuid4(), UUID(order_id), f"charge:{order_id}",
    )  # fmt: skip
    assert await reaper.expire_orders() == 0
    await facts.run("UPDATE payment SET created_at = now() - interval '16 minutes' WHERE order_id = $1", UUID(order_id))
    assert await reaper.expire_orders() == 1
    await shop.settle([order_id])
    assert shop.desk.ledger.charges[f"charge:{order_id}"]["state"] == "voided", "the void decides"
    await shop.assert_money_adds_up(order_id)


async def test_nothing_expires_while_the_outbox_is_behind(shop: Workshop, reaper: Reaper, facts: Facts) -> None:
    order_id = await overdue(shop)
    other = await shop.place()
    await facts.run("UPDATE outbox SET created_at = now() - interval '61 seconds' WHERE aggregate_id = $1", other)
    assert await reaper.expire_orders() == 0
    await facts.run(
        'INSERT INTO dead_letter (id, consumer, topic, partition, "offset", aggregate_id, headers, error_class, error_message, attempts)'
        " SELECT gen_random_uuid(), 'relay', topic, -1, seq, aggregate_id, '{}', 'X', 'x', 1 FROM outbox WHERE aggregate_id = $1",
        other,
    )
    assert await reaper.expire_orders() == 1, "an aggregate set aside holds back nobody else"
    assert (await shop.status(order_id))[0] == "expired"
    await facts.run("DELETE FROM dead_letter WHERE aggregate_id = $1", other)


async def test_two_reapers_and_a_cancel_end_each_order_once(shop: Workshop, reaper: Reaper, facts: Facts) -> None:
    orders = [await overdue(shop) for _ in range(12)]

    async def cancel(order_id: str) -> None:
        await shop.login("workshop").cancel({"id": order_id, "version": 1})

    await asyncio.gather(reaper.expire_orders(), reaper.expire_orders(), *(cancel(order) for order in orders[::2]))
    await facts.run(PUBLISH)
    await reaper.expire_orders()
    for order_id in orders:
        events = await facts.events(order_id)
        assert (len(events), events[0]) == (2, ("order.placed", 1))
        assert events[1] in (("order.expired", 2), ("order.cancelled", 2))


async def test_keys_replay_until_they_are_removed_and_not_before_their_time(shop: Workshop, reaper: Reaper, facts: Facts) -> None:
    anna, old, young = shop.login("reaped"), str(uuid4()), str(uuid4())
    first = await anna.place(key=old)
    await anna.place(key=young)
    kept = await facts.value("SELECT extract(epoch FROM expires_at - created_at) FROM idempotency_key WHERE key = $1", young)
    assert kept >= 72 * 3600 - 1
    await facts.run("UPDATE idempotency_key SET expires_at = now() - interval '1 second' WHERE key = $1", old)
    assert (await anna.place(key=old)).content == first.content, "nothing filters on expires_at"
    await reaper.run_once()
    found = {row["key"] for row in await facts.rows("SELECT key FROM idempotency_key WHERE key = ANY ($1)", [old, young])}
    assert found == {young}
    assert (await anna.place(key=old)).json()["id"] != first.json()["id"]


async def test_inbox_and_resolved_letters_go_after_their_retention(reaper: Reaper, facts: Facts, settings: Settings) -> None:
    events = [uuid4(), uuid4()]
    for event, days in zip(events, (settings.worker.inbox_retention_d + 1, settings.worker.inbox_retention_d - 1), strict=True):
        await facts.run("INSERT INTO inbox VALUES ('reaped', $1, now() - make_interval(days => $2))", event, days)
    days = settings.worker.dead_letter_retention_d + 1
    for status in ("open", "replayed", "discarded"):
        await facts.run(
            'INSERT INTO dead_letter (id, consumer, topic, partition, "offset", headers, error_class, error_message, attempts, status, resolved_at)'
            " VALUES ($1, 'reaped', 't', 0, $2, '{}', 'X', 'x', 1, $3, now() - make_interval(days => $4))",
            uuid4(), len(status), status, days,
        )  # fmt: skip
    await reaper.run_once()
    assert [row["event_id"] for row in await facts.rows("SELECT event_id FROM inbox WHERE consumer = 'reaped'")] == [events[1]]
    assert [row["status"] for row in await facts.rows("SELECT status FROM dead_letter WHERE consumer = 'reaped'")] == ["open"], (
        "open ones wait for a person"
    )
    await facts.run("DELETE FROM dead_letter WHERE consumer = 'reaped'")


BACKLOG = 2_500


async def backlog(facts: Facts) -> None:
    """More than one batch, past its time, in two tables."""
    await facts.run("INSERT INTO inbox SELECT 'backlog', gen_random_uuid(), now() - interval '1 year' FROM generate_series(1, $1::int)", BACKLOG)
    await facts.run(
        "INSERT INTO idempotency_key (principal, key, fingerprint, status, headers, body, expires_at)"
        " SELECT 'backlog', gen_random_uuid()::text, 'x', 201, '{}', 'x', now() - interval '1 day' FROM generate_series(1, $1::int)",
        BACKLOG,
    )


async def left(facts: Facts) -> tuple[int, int]:
    counted = "SELECT count(*) FROM inbox WHERE consumer = 'backlog'", "SELECT count(*) FROM idempotency_key WHERE principal = 'backlog'"
    return await facts.value(counted[0]), await facts.value(counted[1])


async def test_a_full_batch_leads_to_another_at_once(reaper: Reaper, facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch a turn would be 1,000 rows a second: five inbox rows an order, so less than 200 orders a second."""
    monkeypatch.setattr(workers.reaper, "_TURN_S", 600.0)
    await backlog(facts)
    await reaper.run_once()
    assert await left(facts) == (0, 0)


async def test_a_backlog_does_not_keep_a_turn_from_ending(reaper: Reaper, facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Orders must expire and metrics be told beside it: when the turn's time is over, each table has had its batch, no more."""
    monkeypatch.setattr(workers.reaper, "_TURN_S", 0.0)
    await backlog(facts)
    await reaper.run_once()
    assert await left(facts) == (BACKLOG - 1_000, BACKLOG - 1_000)
    await reaper.run_once()
    await reaper.run_once()
    assert await left(facts) == (0, 0)


async def test_partitions_are_made_ahead_and_dropped_after_retention(reaper: Reaper, facts: Facts) -> None:
    today = datetime.now(UTC).date()
    later = today + timedelta(days=40)
    await reaper.turn_partitions(later)
    names = {row[0] for row in await facts.rows("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'outbox_sent'::regclass")}
    assert {f"outbox_sent_{later + timedelta(days=ahead):%Y%m%d}" for ahead in range(1, 4)} <= names
    dropped = await reaper.turn_partitions(later + timedelta(days=10))
    assert f"outbox_sent_{later + timedelta(days=1):%Y%m%d}" in dropped
    assert await reaper.turn_partitions(later + timedelta(days=10)) == []
    assert "outbox_sent_default" not in dropped
