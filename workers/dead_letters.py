"""Dead letters: records a group gave up on, in a topic and in a table, never dropped.

The topic has it first (acknowledged), then the table; both are repeated safely after a crash, because the row
is unique by the record's first place in Kafka. A replayed one that fails again reopens its row; an older copy that
Kafka delivers again does not, and what a person discarded stays discarded.
Tests: tests/integration/test_dead_letter_replay.py.
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from aiokafka.structs import ConsumerRecord
from asyncpg import Record
from sqlalchemy import and_, bindparam, null, select, text
from sqlalchemy.dialects.postgresql import insert

from service.foundation import metrics
from service.foundation.db import Connection, Statement
from service.foundation.log import get_logger
from service.models import dead_letter
from service.outbox import new_id
from workers.envelope import attempt_of, header_map, origin_of, replays_of, storable
from workers.tiers import describe, first_attempt

log = get_logger(__name__)

RELAY: Final = "relay"
_COLUMNS: Final = (
    "id", "consumer", "topic", "partition", "offset", "event_id", "aggregate_id", "version",
    "headers", "key", "payload", "error_class", "error_message", "attempts", "replay_count",
)  # fmt: skip
_insert = insert(dead_letter).values({name: bindparam(name) for name in _COLUMNS})
_PARK: Final = Statement(
    _insert.on_conflict_do_update(
        index_elements=["consumer", "topic", "partition", "offset"],
        set_={
            "status": "open", "resolved_at": null(), "resolved_by": null(), "error_class": _insert.excluded.error_class,
            "error_message": _insert.excluded.error_message, "attempts": _insert.excluded.attempts, "headers": _insert.excluded.headers,
        },
        where=and_(dead_letter.c.status != "discarded", dead_letter.c.replay_count <= _insert.excluded.replay_count),
    ).returning(dead_letter.c.id)
)  # fmt: skip
# The relay's own letter: its outbox row is the only copy, so it is as new as the letter.
_FIND: Final = Statement(
    select(dead_letter.c.replay_count).where(
        dead_letter.c.consumer == RELAY, dead_letter.c.topic == bindparam("topic"), dead_letter.c.offset == bindparam("offset")
    )
)
# Text, not a parameter: only then does a generic plan use the partial index of open letters.
_SET_ASIDE: Final = Statement(select(dead_letter.c.aggregate_id).where(dead_letter.c.consumer == RELAY, text("status = 'open'")))


async def park(connection: Connection, group: str, record: ConsumerRecord, error: BaseException) -> UUID | None:
    """Insert or reopen the row of this record; answers its id, None if a later decision stands. Idempotent."""
    headers, origin = header_map(record.headers), origin_of(record)
    headers |= first_attempt(headers)
    values: dict[str, Any] = {
        "id": new_id(), "consumer": group, "topic": origin.topic, "partition": origin.partition, "offset": origin.offset,
        "event_id": _uuid(headers.get("ce_id")), "aggregate_id": _text(headers.get("ce_subject")),
        "version": _int(headers.get("ce_aggregateversion")), "headers": storable(headers), "key": record.key, "payload": record.value,
        "error_class": type(error).__name__, "error_message": describe(error), "attempts": attempt_of(record) + 1,
        "replay_count": replays_of(record),
    }  # fmt: skip
    found: UUID | None = await connection.fetchval(*_PARK(**values))
    if found is None:
        log.info("record.dead_before", group=group, aggregate=values["aggregate_id"])
        return None
    metrics.dead_letters.labels(group).inc()
    log.warning("record.dead", group=group, dead_letter=str(found), error=values["error_class"], aggregate=values["aggregate_id"])
    return found


async def park_outbox_row(connection: Connection, row: Record, message: str) -> None:
    """An outbox row Kafka will never take, as a dead letter of consumer `relay`; the row stays, its aggregate waits."""
    values: dict[str, Any] = {
        "id": new_id(), "consumer": RELAY, "topic": row["topic"], "partition": -1, "offset": row["seq"], "event_id": row["event_id"],
        "aggregate_id": row["aggregate_id"], "version": row["version"], "headers": dict(row["headers"]), "key": row["key"].encode(),
        "payload": row["payload"], "error_class": "MessageSizeTooLargeError", "error_message": message, "attempts": 1,
        "replay_count": await connection.fetchval(*_FIND(topic=row["topic"], offset=row["seq"])) or 0,
    }  # fmt: skip
    await connection.execute(*_PARK(**values))
    metrics.dead_letters.labels(RELAY).inc()
    log.error("relay.aggregate_set_aside", aggregate=row["aggregate_id"])


async def set_aside(connection: Connection) -> set[str]:
    """Aggregates whose next event waits for a person."""
    return {row["aggregate_id"] for row in await connection.fetch(*_SET_ASIDE())}


def _uuid(value: bytes | None) -> UUID | None:
    try:
        return None if value is None else UUID(value.decode())
    except ValueError:
        return None


def _int(value: bytes | None) -> int | None:
    try:
        number = None if value is None else int(value)
    except ValueError:
        return None
    return number if number is not None and 0 <= number < 2**31 else None


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace").replace("\0", "")[:255]
