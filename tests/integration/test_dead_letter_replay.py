"""A dead letter is decided by a person: replayed or discarded, once, audited, and in one transaction."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiokafka.errors import MessageSizeTooLargeError

from service.events import ce_headers
from service.foundation.db import Database
from service.settings import Settings
from tests.integration.facts import Facts
from tests.integration.letters import Moved, make_record, parked, poison, record_of
from tests.integration.waiting import until
from workers.dead_letters import park_outbox_row, set_aside
from workers.envelope import Poison
from workers.handling import Context, Handling
from workers.relay import Relay


@pytest.fixture
async def event(login: Any, facts: Facts) -> Any:
    """The outbox row of a fresh order's first event, taken out of the outbox as if it had been sent."""
    order = (await login(f"c-{uuid4().hex[:8]}").place()).json()
    return (await facts.rows("DELETE FROM outbox WHERE aggregate_id = $1 RETURNING *", order["id"]))[0]


async def letter(facts: Facts, letter_id: UUID | None) -> Any:
    return (await facts.rows("SELECT * FROM dead_letter WHERE id = $1", letter_id))[0]


async def replays(facts: Facts, row: Any) -> list[Any]:
    return await facts.rows("SELECT * FROM outbox WHERE event_id = $1", row["event_id"])


async def test_a_replay_is_an_outbox_row_with_the_first_envelope(login: Any, db: Database, facts: Facts, event: Any) -> None:
    failed = record_of(event, traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01", x_attempt="2", x_error_class="Boom", x_not_before_ms="9")
    found = await parked(db, "payments", failed)
    answer = await login("root", role="admin").post(f"/admin/dead-letters/{found}/replay", key=None)
    assert answer.status_code == 202, answer.text
    assert (answer.json()["status"], answer.json()["replay_count"], answer.json()["resolved_by"]) == ("replayed", 1, "root")
    [sent] = await replays(facts, event)
    assert sent["topic"] == "orders.events.v1.payments.retry.1"
    for name in ("aggregate_type", "aggregate_id", "version", "type", "key", "payload"):
        assert sent[name] == event[name], name
    # As the relay builds them: what it makes from the row, overridden by the row's own headers.
    remade = ce_headers(
        event_id=sent["event_id"], event_type=sent["type"], aggregate_id=sent["aggregate_id"], version=sent["version"], at=sent["created_at"]
    ) | sent["headers"]  # fmt: skip
    original = {name: value.decode() for name, value in failed.headers}
    envelope = {name for name in original if name.startswith("ce_") or name == "content-type"}
    assert {name: remade[name] for name in envelope} == {name: original[name] for name in envelope}
    assert remade["x-first-traceparent"] == original["traceparent"]
    origin = {name: remade[f"x-origin-{name}"] for name in ("topic", "partition", "offset")}
    assert origin == {"topic": "orders.events.v1", "partition": "3", "offset": str(event["seq"])}
    assert (remade["x-attempt"], remade["x-replay-count"]) == ("0", "1")
    assert not {"x-not-before-ms", "x-error-class", "x-error-message"} & set(remade), "attempts begin anew and are due now"
    [audit] = await facts.rows("SELECT * FROM audit_log WHERE subject = $1", str(found))
    assert (audit["actor"], audit["action"], audit["detail"]["replay_count"]) == ("root", "dead-letter.replay", 1)


async def test_deciding_twice_changes_nothing(login: Any, db: Database, facts: Facts, event: Any) -> None:
    found, root = await parked(db, "payments", record_of(event)), login("root", role="admin")
    answers = await asyncio.gather(*(root.post(f"/admin/dead-letters/{found}/replay", key=None) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1
    assert len(await replays(facts, event)) == 1
    assert await facts.value("SELECT count(*) FROM audit_log WHERE subject = $1", str(found)) == 1
    refused = await root.post(f"/admin/dead-letters/{found}/discard", key=None)
    assert (refused.status_code, refused.json()["code"]) == (409, "invalid-transition")


async def test_a_replay_that_fails_again_reopens_and_an_older_copy_does_not(login: Any, db: Database, facts: Facts, event: Any) -> None:
    first, root = record_of(event), login("root", role="admin")
    found = await parked(db, "payments", first)
    await root.post(f"/admin/dead-letters/{found}/replay", key=None)
    assert await parked(db, "payments", first) is None, "Kafka delivered the first record again: the replay stands"
    assert (await letter(facts, found))["status"] == "replayed"
    origin = {"x_origin_topic": "orders.events.v1", "x_origin_partition": "3", "x_origin_offset": str(event["seq"])}
    again = record_of(event, topic="orders.events.v1.payments.retry.2", offset=77, x_replay_count="1", **origin)
    assert await parked(db, "payments", again, "still broken") == found
    row = await letter(facts, found)
    assert (row["status"], row["replay_count"], row["error_message"], row["resolved_by"]) == ("open", 1, "still broken", None)
    await root.post(f"/admin/dead-letters/{found}/replay", key=None)
    assert (await letter(facts, found))["replay_count"] == 2
    assert {sent["headers"]["x-replay-count"] for sent in await replays(facts, event)} == {"1", "2"}


async def test_what_was_discarded_stays_discarded(login: Any, db: Database, facts: Facts, event: Any) -> None:
    found, root = await parked(db, "payments", record_of(event)), login("root", role="admin")
    for _ in range(2):
        answer = await root.post(f"/admin/dead-letters/{found}/discard", key=None)
        assert (answer.status_code, answer.json()["status"]) == (202, "discarded")
    assert await parked(db, "payments", record_of(event, x_replay_count="9")) is None
    assert (await letter(facts, found))["status"] == "discarded"
    assert (await root.post(f"/admin/dead-letters/{found}/replay", key=None)).json()["code"] == "invalid-transition"
    assert await facts.value("SELECT count(*) FROM audit_log WHERE subject = $1", str(found)) == 1


async def test_without_an_envelope_it_can_only_be_discarded(login: Any, db: Database) -> None:
    root = login("root", role="admin")
    for record in (poison(), make_record("orders.events.v1", headers={}, key=b"k", value=None, offset=uuid4().int >> 80)):
        found = await parked(db, "payments", record)
        refused = await root.post(f"/admin/dead-letters/{found}/replay", key=None)
        assert (refused.status_code, refused.json()["code"]) == (409, "invalid-transition"), refused.text
        assert "discarded" in refused.json()["detail"]
        assert (await root.post(f"/admin/dead-letters/{found}/discard", key=None)).status_code == 202


async def test_only_admins_decide(login: Any, db: Database, event: Any) -> None:
    found = await parked(db, "payments", record_of(event))
    for role in ("customer", "operator", "auditor"):
        for what in ("replay", "discard"):
            assert (await login("someone", role=role).post(f"/admin/dead-letters/{found}/{what}", key=None)).status_code == 403
    assert (await login("root", role="admin").post(f"/admin/dead-letters/{uuid4()}/replay", key=None)).status_code == 404


async def test_the_relays_own_letter_is_unblocked_by_replay_and_given_up_by_discard(login: Any, db: Database, facts: Facts) -> None:
    root = login("root", role="admin")
    for what, rows_left in (("replay", 1), ("discard", 0)):
        order = (await login(f"c-{uuid4().hex[:8]}").place()).json()
        [row] = await facts.rows("SELECT * FROM outbox WHERE aggregate_id = $1", order["id"])
        async with db.transaction() as connection:
            await park_outbox_row(connection, row, "too large")
            assert order["id"] in await set_aside(connection)
        found = await facts.value("SELECT id FROM dead_letter WHERE consumer = 'relay' AND aggregate_id = $1", order["id"])
        assert (await root.post(f"/admin/dead-letters/{found}/{what}", key=None)).status_code == 202
        async with db.transaction() as connection:
            assert order["id"] not in await set_aside(connection)
        assert await facts.value("SELECT count(*) FROM outbox WHERE aggregate_id = $1", order["id"]) == rows_left
        if what == "replay":  # and it is refused again
            async with db.transaction() as connection:
                await park_outbox_row(connection, row, "still too large")
            assert (await letter(facts, found))["status"] == "open"
            await facts.run("DELETE FROM outbox WHERE aggregate_id = $1", order["id"])


async def test_a_replay_is_not_kept_for_republishing(db: Database, facts: Facts, settings: Settings, event: Any, login: Any) -> None:
    found = await parked(db, "payments", record_of(event))
    await login("root", role="admin").post(f"/admin/dead-letters/{found}/replay", key=None)
    relay = Relay(settings, db, None)  # type: ignore[arg-type]  # its loop is not run here
    await relay._move(await replays(facts, event))
    assert await replays(facts, event) == []
    assert await facts.value("SELECT count(*) FROM outbox_sent WHERE event_id = $1", event["event_id"]) == 0


# -- the command line, in a process of its own


def plumbline(*words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"APP_TELEMETRY_LOG_LEVEL": "error"}
    return subprocess.run([sys.executable, "-m", "service", *words], env=environment, capture_output=True, text=True, timeout=60, check=False)


async def test_the_command_replays_what_matches_and_says_so(db: Database, facts: Facts, event: Any) -> None:
    group = "notifications"
    await facts.run("UPDATE dead_letter SET status = 'discarded' WHERE consumer = $1", group)
    found, junk = await parked(db, group, record_of(event)), await parked(db, group, poison(partition=2))
    dry = await asyncio.to_thread(plumbline, "dlq", "replay", "--consumer", group, "--dry-run")
    assert dry.returncode == 1, "one of them has no envelope"
    assert "would be replayed: 1, unchanged: 0, refused: 1" in dry.stdout, dry.stdout + dry.stderr
    assert await replays(facts, event) == []
    done = await asyncio.to_thread(plumbline, "dlq", "replay", "--consumer", group)
    assert "replayed: 1, unchanged: 0, refused: 1" in done.stdout, done.stdout + done.stderr
    again = await asyncio.to_thread(plumbline, "dlq", "replay", str(found))
    assert (again.returncode, "replayed: 0, unchanged: 1" in again.stdout) == (0, True), again.stdout
    assert len(await replays(facts, event)) == 1
    gone = await asyncio.to_thread(plumbline, "dlq", "discard", str(junk))
    assert (gone.returncode, "discarded: 1" in gone.stdout) == (0, True), gone.stdout
    wrong = await asyncio.to_thread(plumbline, "dlq", "replay", "not-an-id")
    assert (wrong.returncode, "plumbline dlq list" in wrong.stderr) == (2, True), wrong.stderr


async def test_a_replay_killed_halfway_is_finished_by_the_next_one(login: Any, db: Database, facts: Facts) -> None:
    group, buyer = "notifications", login(f"c-{uuid4().hex[:8]}")
    await facts.run("UPDATE dead_letter SET status = 'discarded' WHERE consumer = $1", group)
    orders = [(await buyer.place()).json()["id"] for _ in range(8)]
    events = await facts.rows("DELETE FROM outbox WHERE aggregate_id = ANY ($1) RETURNING *", orders)
    letters = [await parked(db, group, record_of(event)) for event in events]

    async def published() -> list[int]:
        rows = await facts.rows("SELECT event_id FROM outbox WHERE event_id = ANY ($1)", [event["event_id"] for event in events])
        return [sum(row["event_id"] == event["event_id"] for row in rows) for event in events]

    async def some() -> bool:
        return 3 <= sum(await published()) < len(events)

    slowly = [sys.executable, "-m", "service", "dlq", "replay", "--consumer", group, "--rate", "2"]
    process = subprocess.Popen(slowly, env=dict(os.environ), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: ASYNC220 - killed below
    await until(some, "it is halfway")
    process.kill()
    process.wait()
    statuses = [(await letter(facts, letter_id))["status"] for letter_id in letters]
    assert sorted(statuses) == sorted(["replayed" if times else "open" for times in await published()]), "a letter and its event, both or none"
    assert "open" in statuses
    done = await asyncio.to_thread(plumbline, "dlq", "replay", "--consumer", group)
    assert done.returncode == 0, done.stdout + done.stderr
    assert await published() == [1] * len(events)
    assert {(await letter(facts, letter_id))["status"] for letter_id in letters} == {"replayed"}


# -- records that would hold up a partition for ever


async def test_impossible_headers_and_sizes_end_as_dead_letters(db: Database, settings: Settings, facts: Facts) -> None:
    """No header of a stranger, and no size, keeps a record from ending."""

    class Tight(Moved):
        async def move(self, _: Any, topic: str, **__: Any) -> None:
            assert topic == "orders.events.v1.payments.dlt", "the name is made of topics that exist"
            raise MessageSizeTooLargeError("does not fit with its headers")

    context = Context("payments", db, settings, None, None, None, None)  # type: ignore[arg-type]  # poison reaches no handler
    handling = Handling("payments", {}, context, Tight())
    offset = uuid4().int >> 80
    for number, headers in enumerate((
        {"x-origin-topic": b"no\0where", "x-origin-partition": b"1", "x-origin-offset": b"1"},
        {"x-origin-topic": b"orders.events.v1", "x-origin-partition": b"1", "x-origin-offset": b"9" * 40},
        {"x-attempt": b"9" * 30, "x-replay-count": b"9" * 30, "x-not-before-ms": b"9" * 30},
    )):  # fmt: skip
        record = make_record("orders.events.v1.payments.retry.1", headers=headers, key=None, value=b"", offset=offset + number)
        assert await asyncio.wait_for(handling.finish(record), 30) == "dead"
    assert await facts.value('SELECT count(*) FROM dead_letter WHERE error_class = $1 AND "offset" >= $2', Poison.__name__, offset) == 3
