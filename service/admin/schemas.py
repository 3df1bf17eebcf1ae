"""What operators see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.foundation.clock import rfc3339
from service.text import Text

DeadLetterStatus = Literal["open", "replayed", "discarded"]
_PREVIEW_BYTES = 2_048


class DeadLetterQuery(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    status: DeadLetterStatus | None = None
    consumer: Annotated[Text | None, Field(max_length=64)] = None
    limit: Annotated[int, Field(ge=1, le=100, strict=False)] = 20
    cursor: Annotated[str | None, Field(max_length=64)] = None


class Empty(BaseModel):
    """No body, or {}."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class DeadLetterOut(BaseModel):
    """A record a group gave up on; `topic`, `partition`, `offset` are its first place in Kafka."""

    id: str
    consumer: str
    topic: str
    partition: int
    offset: int
    event_id: str | None
    aggregate_id: str | None
    version: int | None
    error_class: str
    error_message: str
    attempts: int
    replay_count: int
    status: DeadLetterStatus
    created_at: str
    resolved_at: str | None
    resolved_by: str | None


class DeadLetterDetail(DeadLetterOut):
    """With headers as stored and the payload's first 2 KiB as text."""

    headers: dict[str, str]
    payload_preview: str


class DeadLetterPage(BaseModel):
    items: list[DeadLetterOut]
    next_cursor: str | None


class Overview(BaseModel):
    """Everything at a glance; `groups` is null while Redis, through which workers report, is away."""

    orders: dict[str, Any]
    outbox: dict[str, Any]
    groups: dict[str, Any] | None
    dead_letters: dict[str, int]
    process: dict[str, Any]


def present_dead_letter(row: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON form of a row (keys as `DeadLetterOut`)."""
    plain = (
        "consumer", "topic", "partition", "offset", "aggregate_id", "version", "error_class", "error_message",
        "attempts", "replay_count", "status", "resolved_by",
    )  # fmt: skip
    return {
        "id": str(row["id"]),
        "event_id": None if row["event_id"] is None else str(row["event_id"]),
        **{name: row[name] for name in plain},
        "created_at": rfc3339(row["created_at"]),
        "resolved_at": None if row["resolved_at"] is None else rfc3339(row["resolved_at"]),
    }


def present_detail(row: Mapping[str, Any]) -> dict[str, Any]:
    """As `present_dead_letter`, with what the record carried."""
    preview = (row["payload"] or b"")[:_PREVIEW_BYTES].decode("utf-8", "backslashreplace")
    return present_dead_letter(row) | {"headers": row["headers"], "payload_preview": preview}
