"""Dead letters made for tests: a real event as the record a group would have parked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from aiokafka.structs import ConsumerRecord

from service.events import ce_headers
from service.foundation.db import Database
from workers.dead_letters import park


def record_of(row: Any, *, topic: str | None = None, partition: int = 3, offset: int | None = None, **extra: str) -> ConsumerRecord:
    """An outbox row as the record the relay would have sent; `extra` are further headers (`_` for `-`)."""
    headers = ce_headers(
        event_id=row["event_id"], event_type=row["type"], aggregate_id=row["aggregate_id"], version=row["version"], at=row["created_at"]
    )
    headers |= {name.replace("_", "-"): value for name, value in extra.items()}
    return make_record(
        topic or row["topic"], headers={name: value.encode() for name, value in headers.items()}, key=row["key"].encode(),
        value=row["payload"], partition=partition, offset=row["seq"] if offset is None else offset,
    )  # fmt: skip


def make_record(
    topic: str, *, headers: dict[str, bytes], key: bytes | None, value: bytes | None, partition: int = 0, offset: int = 0, timestamp: int = 0
) -> ConsumerRecord:
    """A record as aiokafka hands it over."""
    return ConsumerRecord(
        topic=topic, partition=partition, offset=offset, timestamp=timestamp, timestamp_type=0, key=key, value=value,
        checksum=None, serialized_key_size=0, serialized_value_size=0, headers=tuple(headers.items()),
    )  # fmt: skip


@dataclass
class Moved:
    """A mover that remembers: (topic, record, not before)."""

    moves: list[tuple[str, ConsumerRecord, int]] = field(default_factory=list)

    async def move(self, record: ConsumerRecord, topic: str, *, not_before_ms: int = 0, **_: object) -> None:
        self.moves.append((topic, record, not_before_ms))


async def parked(db: Database, group: str, record: ConsumerRecord, message: str = "the handler failed") -> UUID | None:
    """Park it as the group would."""
    async with db.transaction() as connection:
        return await park(connection, group, record, RuntimeError(message))


def poison(partition: int = 1) -> ConsumerRecord:
    """A record that is no event."""
    return make_record("orders.events.v1", headers={"junk\0": b"\xff\x00"}, key=b"\xff", value=b"{", partition=partition, offset=uuid4().int >> 80)
