"""The relay on a broker: O1–O3 and O5 — everything committed arrives, in order for each aggregate, and nothing else does."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from service.dev.kafka import Broker
from service.events import CATALOG_TOPIC
from service.foundation import failpoints
from service.foundation.db import Database
from service.foundation.lifecycle import Lifecycle
from service.settings import Settings
from tests.integration.broker_world import (
    bring_back,
    count_outbox,
    event_ids,
    first_deliveries,
    fresh,
    own_broker,
    read_topic,
    say,
    take_away,
    versions,
)
from tests.integration.facts import Facts
from tests.integration.waiting import until
from tests.support.servers import Servers
from workers.envelope import decode
from workers.relay import Relay

pytestmark = pytest.mark.broker

PRODUCE_API, NOT_LEADER, MESSAGE_TOO_LARGE = 0, 6, 10


@pytest.fixture(scope="module")
def kafka(servers: Servers) -> Iterator[tuple[Broker, Settings]]:
    with own_broker(servers) as found:
        yield found


@pytest.fixture(autouse=True)
async def empty(facts: Facts) -> AsyncIterator[None]:
    """Other tests' events are none of ours."""
    await facts.run("TRUNCATE outbox")
    failpoints.arm([])
    yield
    failpoints.arm([])


@pytest.fixture
async def relay(db: Database, kafka: tuple[Broker, Settings]) -> AsyncIterator[Relay]:
    made = Relay(kafka[1], db, Lifecycle())
    yield made
    await made._publisher.stop()


async def drain(relay: Relay) -> int:
    """Turns until nothing is left; how many events were moved."""
    moved = 0
    while now := await relay.run_once():
        moved += now
    return moved


async def ours(kafka: tuple[Broker, Settings], *aggregates: str) -> list[Any]:
    return [one for one in await read_topic(kafka[1], CATALOG_TOPIC) if one.key.decode() in aggregates]


async def test_what_was_committed_arrives_once_and_in_order(relay: Relay, db: Database, kafka: Any, facts: Facts) -> None:
    skus, said = [fresh("ORDER") for _ in range(12)], []

    async def live(sku: str) -> None:
        for version in range(1, 9):
            async with db.transaction() as connection:
                said.append(await say(connection, sku, version))
            await asyncio.sleep(random.uniform(0, 0.01))

    async def publish() -> int:
        moved = 0
        while moved < 96:
            moved += await relay.run_once()
            await asyncio.sleep(0)
        return moved

    async with asyncio.timeout(60):
        *_, moved = await asyncio.gather(*(live(sku) for sku in skus), publish())
    records = await ours(kafka, *skus)
    assert moved == len(records) == len(set(event_ids(records))) == 96
    assert set(event_ids(records)) == set(said), "O1"
    assert versions(records) == {sku: list(range(1, 9)) for sku in skus}, "O2"
    assert await count_outbox(db, *skus) == 0
    assert await facts.value("SELECT count(*) FROM outbox_sent WHERE aggregate_id = ANY ($1)", skus) == 96, "moved, not lost"
    event = decode(records[0])
    assert (event.event_type, event.aggregate_id) == ("product.restocked", records[0].key.decode())
    assert dict(records[0].headers)["content-type"] == b"application/json"


async def test_a_late_committer_is_not_overtaken_by_its_successor(relay: Relay, db: Database, kafka: Any) -> None:
    """When version 2 commits, its number is lower than what the relay has seen; version 3 must wait for it all the same (O2)."""
    sku, other = fresh("LATE"), fresh("OTHER")
    async with db.connection() as slow:
        transaction = slow.transaction()
        await transaction.start()
        await say(slow, sku, 1)  # has its number, and is not committed
        async with db.transaction() as connection:
            await say(connection, other, 1)
        assert await relay.run_once() == 1
        await transaction.commit()
    async with db.transaction() as connection:
        await say(connection, sku, 2)
    relay._scanned_at = time.monotonic()  # no full look yet
    await drain(relay)
    relay._scanned_at = float("-inf")
    await drain(relay)
    assert versions(await ours(kafka, sku)) == {sku: [1, 2]}


async def test_the_floor_rises_over_what_nobody_can_write_below_any_more(relay: Relay, db: Database, facts: Facts) -> None:
    """Quick looks do not read the dead rows under it; a transaction that may still commit there holds it down."""
    async with db.transaction() as connection:
        await say(connection, fresh("FLOOR"), 1)
    lowest = await facts.value("SELECT min(seq) FROM outbox")

    async def look_fully() -> int:
        relay._scanned_at = float("-inf")
        await relay._read()
        return relay._floor

    async with db.connection() as slow:
        transaction = slow.transaction()
        await transaction.start()
        await say(slow, fresh("SLOW"), 1)
        assert [await look_fully() for _ in range(3)] == [0, 0, 0]
        await transaction.rollback()
    await until(look_fully, "the floor rises")
    assert relay._floor == lowest


async def test_what_was_rolled_back_is_never_said(relay: Relay, db: Database, kafka: Any) -> None:
    sku = fresh("ROLLBACK")
    async with db.connection() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await say(connection, sku, 1)
        await transaction.rollback()
    async with db.transaction() as connection:
        await say(connection, sku, 1)
    assert await drain(relay) == 1
    assert versions(await ours(kafka, sku)) == {sku: [1]}, "O3"


async def test_a_late_committer_is_not_skipped(relay: Relay, db: Database, kafka: Any) -> None:
    late, early = fresh("LATE"), fresh("EARLY")
    async with db.transaction() as slow:
        await say(slow, late, 1)
        for version in range(1, 4):
            async with db.transaction() as connection:
                await say(connection, early, version)
        assert await drain(relay) == 3, "later numbers were committed and sent first"
    await until(lambda: _sent(relay, db, late), "the next full look finds the low number")
    assert versions(await ours(kafka, late, early)) == {late: [1], early: [1, 2, 3]}


async def _sent(relay: Relay, db: Database, aggregate: str) -> bool:
    await relay.run_once()
    return await count_outbox(db, aggregate) == 0


@pytest.mark.parametrize("point", ["after-send-before-move", "before-outbox-move", "after-outbox-move"])
async def test_a_crash_around_the_move_repeats_and_never_loses(relay: Relay, db: Database, kafka: Any, point: str) -> None:
    skus = [fresh("CRASH") for _ in range(5)]
    for version in (1, 2, 3):
        for sku in skus:
            async with db.transaction() as connection:
                await say(connection, sku, version)
    failpoints.arm([f"{point}=error"])
    with pytest.raises(failpoints.FailpointError):
        await relay.run_once()
    await drain(relay)
    records = await ours(kafka, *skus)
    assert len(records) == (15 if point == "after-outbox-move" else 30)
    assert len(set(event_ids(records))) == 15
    assert {sku: first_deliveries(found) for sku, found in versions(records).items()} == {sku: [1, 2, 3] for sku in skus}
    assert await count_outbox(db, *skus) == 0


async def test_a_row_kafka_never_takes_sets_its_aggregate_aside_and_no_other(relay: Relay, db: Database, kafka: Any, facts: Facts) -> None:
    big, others = fresh("BIG"), [fresh("SMALL") for _ in range(4)]
    for version in (1, 2, 3):
        async with db.transaction() as connection:
            await say(connection, big, version, padding=2_000_000 if version == 2 else 0)
            for sku in others:
                await say(connection, sku, version)
    await drain(relay)
    assert versions(await ours(kafka, big, *others)) == {big: [1]} | {sku: [1, 2, 3] for sku in others}
    assert await count_outbox(db, big) == 2, "the row and what follows it stay"
    letters = await facts.rows("SELECT version, status, error_class FROM dead_letter WHERE consumer = 'relay' AND aggregate_id = $1", big)
    assert [tuple(row) for row in letters] == [(2, "open", "MessageSizeTooLargeError")]
    relay._scanned_at = float("-inf")
    assert await drain(relay) == 0
    await facts.run("DELETE FROM dead_letter WHERE aggregate_id = $1", big)


@pytest.mark.memory_broker
async def test_a_batch_refused_for_size_is_sent_again_one_by_one(relay: Relay, db: Database, kafka: Any, facts: Facts) -> None:
    skus = [fresh("SINGLY") for _ in range(4)]
    async with db.transaction() as connection:
        for sku in skus:
            await say(connection, sku, 1)
    await relay._publisher._started()
    kafka[0].control(f"error {PRODUCE_API} {MESSAGE_TOO_LARGE} 1")
    await drain(relay)
    assert versions(await ours(kafka, *skus)) == {sku: [1] for sku in skus}
    assert await facts.value("SELECT count(*) FROM dead_letter WHERE aggregate_id = ANY ($1)", skus) == 0


async def test_kafka_away_costs_nothing_but_time(db: Database, kafka: Any) -> None:
    broker, settings = kafka
    impatient = settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"send_deadline_ms": 500})})
    relay, skus = Relay(impatient, db, Lifecycle()), [fresh("AWAY") for _ in range(6)]
    take_away(broker)
    for version in (1, 2):
        for sku in skus:
            async with db.transaction() as connection:
                await say(connection, sku, version)
    with pytest.raises(Exception, match=r"."):
        await relay.run_once()
    assert await count_outbox(db, *skus) == 12
    bring_back(broker)

    async def drained() -> bool:
        try:
            await relay.run_once()
        except Exception:  # noqa: BLE001 - as the relay's own loop: whatever it is, what is not moved stays
            await relay._publisher.stop()
        return await count_outbox(db, *skus) == 0

    await until(drained, "the backlog drains when Kafka is back", deadline_s=60)
    await relay._publisher.stop()
    found = versions(await ours(kafka, *skus))
    assert {sku: first_deliveries(numbers) for sku, numbers in found.items()} == {sku: [1, 2] for sku in skus}, "O4"


HOLDS = """
SELECT a.pid FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND a.application_name = 'plumbline-relay-lock'
"""


async def leader(facts: Facts) -> int | None:
    """The one backend that holds the relay's lock."""
    rows = await facts.rows(HOLDS)
    assert len(rows) <= 1, "two never lead"
    return rows[0]["pid"] if rows else None


async def test_a_standby_takes_over_and_two_never_lead(db: Database, kafka: Any, facts: Facts) -> None:
    lives = [Lifecycle(), Lifecycle()]
    relays = [Relay(kafka[1], db, life) for life in lives]
    running = [asyncio.create_task(relay.run()) for relay in relays]
    sku = fresh("TAKEOVER")
    try:
        first = await until(lambda: leader(facts), "one of them leads")
        async with db.transaction() as connection:
            await say(connection, sku, 1)
        await until(lambda: _gone(db, sku), "it publishes")
        assert await facts.value("SELECT pg_terminate_backend($1)", first)

        async def another() -> bool:
            return await leader(facts) not in (None, first)

        await until(another, "a lost lock is taken again")
        async with db.transaction() as connection:
            await say(connection, sku, 2)
        await until(lambda: _gone(db, sku), "and publishing goes on")
    finally:
        for life in lives:
            life.stop()
        await asyncio.wait_for(asyncio.gather(*running), 30)
    assert first_deliveries(versions(await ours(kafka, sku))[sku]) == [1, 2], "O5: duplicates only"


async def _gone(db: Database, aggregate: str) -> bool:
    return await count_outbox(db, aggregate) == 0


async def test_the_relay_survives_a_database_that_cuts_it_off(db: Database, kafka: Any, facts: Facts) -> None:
    life = Lifecycle()
    own = Database(kafka[1].db, application="relay-here")
    await own.open()
    relay, sku = Relay(kafka[1], own, life), fresh("CUT")
    running = asyncio.create_task(relay.run())
    try:
        await until(lambda: leader(facts), "it leads")
        names = ["plumbline-relay-lock", "relay-here"]
        await facts.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = ANY ($1)", names)
        async with db.transaction() as connection:
            await say(connection, sku, 1)
        await until(lambda: _gone(db, sku), "it connects again and publishes")
    finally:
        life.stop()
        await asyncio.wait_for(running, 30)
        await own.close()
