"""Kafka was wiped: what it had goes back into the outbox, in order, each event once, and the run ends."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from service.admin.by_hand import parse_moment
from service.admin.republish import republish_since, republish_unapplied
from service.foundation.db import Database
from service.settings import Settings
from tests.integration.facts import Facts
from workers.main import APPLIED
from workers.relay import Relay


@pytest.fixture
async def sent(login: Any, db: Database, facts: Facts, settings: Settings) -> AsyncIterator[list[Any]]:
    """Three orders of one customer, one of them cancelled; every event acknowledged by a Kafka that is gone."""
    await facts.run("DELETE FROM outbox_sent")
    anna = login(f"c-{uuid4().hex[:8]}")
    orders = [(await anna.place()).json() for _ in range(3)]
    await anna.cancel(orders[0])
    rows = await facts.rows("SELECT * FROM outbox WHERE aggregate_id = ANY ($1) ORDER BY seq", [order["id"] for order in orders])
    await Relay(settings, db, None)._move(rows)  # type: ignore[arg-type]  # its loop is not run here
    yield rows
    await facts.run("DELETE FROM outbox WHERE aggregate_id = ANY ($1)", [order["id"] for order in orders])


async def back(facts: Facts, rows: list[Any]) -> list[Any]:
    wanted = [row["aggregate_id"] for row in rows]
    return await facts.rows("SELECT * FROM outbox WHERE aggregate_id = ANY ($1) ORDER BY seq", wanted)


async def applied_by_all(facts: Facts, row: Any) -> None:
    for group, types in APPLIED.items():
        if row["type"] in types:
            await facts.run("INSERT INTO inbox (consumer, event_id) VALUES ($1, $2) ON CONFLICT DO NOTHING", group, row["event_id"])
    await facts.run(
        "INSERT INTO order_timeline (order_id, version, type, at, detail) VALUES ($1::uuid, $2, $3, now(), '{}') ON CONFLICT DO NOTHING",
        row["aggregate_id"], row["version"], row["type"],
    )  # fmt: skip


async def test_since_moves_each_event_once_and_keeps_its_place(db: Database, facts: Facts, sent: list[Any]) -> None:
    assert await republish_since(db, datetime.now(UTC) + timedelta(hours=1), rate=1e6) == 0
    told: list[int] = []
    assert await republish_since(db, datetime.now(UTC) - timedelta(hours=1), rate=1e6, progress=told.append) == len(sent) == told[-1]
    assert [dict(row) for row in await back(facts, sent)] == [dict(row) for row in sent], "same rows, same seq: the order is the old one"
    assert await facts.value("SELECT count(*) FROM outbox_sent") == 0
    assert await republish_since(db, datetime.now(UTC) - timedelta(hours=1), rate=1e6) == 0, "a second run finds nothing"


async def test_what_the_relay_sends_meanwhile_is_not_taken_again(db: Database, facts: Facts, settings: Settings, sent: list[Any]) -> None:
    relay = Relay(settings, db, None)  # type: ignore[arg-type]  # its loop is not run here

    async def publish() -> None:
        while True:
            if rows := await back(facts, sent):
                await relay._move(rows)
            await asyncio.sleep(0.002)

    publishing = asyncio.create_task(publish())
    try:
        async with asyncio.timeout(30):
            assert await republish_since(db, datetime.now(UTC) - timedelta(hours=1), rate=100) == len(sent)
    finally:
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)


async def test_the_rate_is_kept(db: Database, sent: list[Any]) -> None:
    begun = time.monotonic()
    await republish_since(db, datetime.now(UTC) - timedelta(hours=1), rate=8)
    assert time.monotonic() - begun >= len(sent) / 8


async def test_unfinished_means_not_applied_by_some_group(db: Database, facts: Facts, sent: list[Any]) -> None:
    cancelled = [row for row in sent if row["aggregate_id"] == sent[0]["aggregate_id"]]
    for row in sent:
        await applied_by_all(facts, row)
    others = {row["aggregate_id"] for row in sent} - {sent[0]["aggregate_id"]}
    await facts.run("UPDATE orders SET status = 'paid', closed_at = now() WHERE id::text = ANY ($1)", list(others))
    assert await republish_unapplied(db, APPLIED, rate=1e6) == 0, "all is applied, every order has ended"
    await facts.run("UPDATE orders SET status = 'reserved', closed_at = NULL WHERE id::text = ANY ($1)", list(others))
    assert await republish_unapplied(db, APPLIED, rate=1e6) == len(sent) - len(cancelled), "unfinished orders, with all their events"
    # The order has ended, but payments never heard that it was cancelled: its money would stay where it is.
    await facts.run("DELETE FROM inbox WHERE consumer = 'payments' AND event_id = $1", cancelled[-1]["event_id"])
    assert await republish_unapplied(db, APPLIED, rate=1e6) == 1
    assert cancelled[-1]["event_id"] in {row["event_id"] for row in await back(facts, sent)}


async def test_a_letter_a_person_decides_about_is_left_alone(db: Database, facts: Facts, sent: list[Any]) -> None:
    cancelled = [row for row in sent if row["aggregate_id"] == sent[0]["aggregate_id"]]
    for row in cancelled:
        await applied_by_all(facts, row)
    event = cancelled[-1]["event_id"]
    await facts.run("DELETE FROM inbox WHERE consumer = 'payments' AND event_id = $1", event)
    await facts.run(
        'INSERT INTO dead_letter (id, consumer, topic, partition, "offset", event_id, headers, error_class, error_message, attempts)'
        " VALUES (gen_random_uuid(), 'payments', 'orders.events.v1', 0, $1, $2, '{}', 'X', 'x', 1)",
        cancelled[-1]["seq"], event,
    )  # fmt: skip
    await republish_unapplied(db, APPLIED, rate=1e6)
    assert event not in {row["event_id"] for row in await back(facts, sent)}


async def test_the_command(facts: Facts, sent: list[Any]) -> None:
    def plumbline(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "service", *words], capture_output=True, text=True, timeout=60, check=False, env=os.environ)

    done = await asyncio.to_thread(plumbline, "republish", "--since", "1h")
    assert (done.returncode, f"{len(sent)} events are in the outbox again" in done.stdout) == (0, True), done.stdout + done.stderr
    wrong = await asyncio.to_thread(plumbline, "republish", "--since", "yesterday")
    assert (wrong.returncode, "--since" in wrong.stderr) == (2, True), wrong.stderr
    again = await asyncio.to_thread(plumbline, "republish", "--unfinished")
    assert (again.returncode, "0 events" in again.stdout) == (0, True), again.stdout + again.stderr


async def test_a_relay_that_refills_has_done_so_before_it_begins(facts: Facts, sent: list[Any]) -> None:
    """As `up` starts it beside a broker that begins empty; here it has none, so what it put back stays where it is."""
    command = [sys.executable, "-m", "service", "relay", "--refill"]
    env = os.environ | {"OPS_PORT": "0", "KAFKA_BOOTSTRAP": "127.0.0.1:1"}
    relay = await asyncio.create_subprocess_exec(*command, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    try:
        assert relay.stdout is not None
        async with asyncio.timeout(120):
            said = await relay.stdout.readline()
        assert b"events are in the outbox again" in said, said
        assert {row["seq"] for row in await back(facts, sent)} == {row["seq"] for row in sent}
    finally:
        relay.kill()
        await relay.wait()


@pytest.mark.parametrize(
    ("text", "seconds"), [("30m", 1_800), ("6h", 21_600), ("2d", 172_800), ("1.5h", 5_400), ("2029-12-31T23:00Z", 3_600), ("2029-12-31T23:00", 3_600)]
)
def test_moments(text: str, seconds: float) -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    assert parse_moment(text, now) == now - timedelta(seconds=seconds)
