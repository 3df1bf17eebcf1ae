"""The outbox: an event is a row written in the transaction that made it true.

Write rule: change the aggregate's row first, then record the event with the version that change returned.
The row lock then makes `seq` follow commit order for each aggregate. The relay (workers/relay.py) publishes.
A rolled-back change says nothing; a committed one is said at least once (tests/stories).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

import uuid_utils.compat as uuid_utils
from sqlalchemy import bindparam, extract, func, insert, select
from uuid_utils import uuid7

from service.events import MAX_EVENT_BYTES, AggregateType, Payload, topic_of
from service.foundation import tracing
from service.foundation.db import Connection, Statement
from service.models import outbox

_RECORD: Final = Statement(
    insert(outbox).values(
        {name: bindparam(name) for name in ("event_id", "aggregate_type", "aggregate_id", "version", "type", "topic", "key", "payload", "headers")}
    )
)
# Both ends of the primary key: index probes instead of counting the table.
_SPAN: Final = select(func.coalesce(func.max(outbox.c.seq) - func.min(outbox.c.seq) + 1, 0).label("span"))
_OLDEST: Final = select(extract("epoch", func.clock_timestamp() - outbox.c.created_at)).order_by(outbox.c.seq).limit(1)
_ROWS: Final = Statement(_SPAN)
_BACKLOG: Final = Statement(_SPAN.add_columns(func.coalesce(_OLDEST.scalar_subquery(), 0).label("age_s")))


class EventTooLarge(ValueError):
    """The event would not fit into a Kafka message; the transaction must not commit."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that became true: the aggregate's version after it, and the payload as JSON bytes."""

    type: str
    aggregate_type: AggregateType
    aggregate_id: str
    version: int
    payload: bytes
    event_id: UUID


def new_id() -> UUID:
    """UUIDv7: sortable by time, so new rows land on the same index pages."""
    return uuid_utils.uuid7()


def new_id_text() -> str:
    """As `new_id`, for where it is written and sent: asyncpg takes the text, and making a `UUID` costs six times as much."""
    return str(uuid7())


def make_event(event_type: str, aggregate_type: AggregateType, aggregate_id: str, version: int, payload: Payload) -> Event:
    """An event with a fresh id. Raises `EventTooLarge` above 256 KiB."""
    return Event(event_type, aggregate_type, aggregate_id, version, encode(payload), new_id())


def encode(payload: Payload) -> bytes:
    """Payload as JSON bytes. Raises `EventTooLarge` above 256 KiB."""
    return bounded(payload.model_dump_json().encode())


def bounded(data: bytes) -> bytes:
    """A payload's bytes. Raises `EventTooLarge` above 256 KiB."""
    if len(data) > MAX_EVENT_BYTES:
        raise EventTooLarge(f"an event of {len(data)} bytes, more than {MAX_EVENT_BYTES}")
    return data


def context_headers() -> dict[str, str]:
    """What rides with an event so that its trace goes on in the workers."""
    parent = tracing.traceparent()
    return {"traceparent": parent} if parent else {}


async def record(connection: Connection, event: Event) -> None:
    """INSERT the event in the caller's transaction."""
    await connection.execute(
        *_RECORD(
            event_id=event.event_id,
            aggregate_type=event.aggregate_type,
            aggregate_id=event.aggregate_id,
            version=event.version,
            type=event.type,
            topic=topic_of(event.aggregate_type),
            key=event.aggregate_id,
            payload=event.payload,
            headers=context_headers(),
        )
    )


async def backlog_rows(connection: Connection) -> int:
    """Upper bound of unpublished rows (the span of `seq`), cheap enough to ask every second."""
    return int(await connection.fetchval(*_ROWS()))


async def backlog(connection: Connection) -> tuple[int, float]:
    """(upper bound of unpublished rows, age of the oldest in seconds)."""
    row = await connection.fetchrow(*_BACKLOG())
    assert row is not None  # an aggregate query always answers one row
    return int(row["span"]), float(row["age_s"])
