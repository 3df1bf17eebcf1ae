"""A Kafka record as an event: CloudEvents headers, payload, and where it has been before.

`Poison` is raised for what no retry can cure: undecodable, an envelope field missing, an unknown major version.
An unknown *type* is not poison: a newer process may have sent it, and groups ignore what they do not handle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar
from urllib.parse import quote_from_bytes
from uuid import UUID

from aiokafka.structs import ConsumerRecord
from pydantic import ValidationError

from service.events import MAJOR_VERSION, TYPES, Payload

P = TypeVar("P", bound=Payload)

_REQUIRED: Final = ("ce_id", "ce_type", "ce_subject", "ce_time", "ce_aggregateversion", "ce_dataschema")


class Poison(ValueError):
    """No retry can cure this record."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The first place of a record in Kafka; kept through tiers, dead letter and replay."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Envelope:
    """One event as consumed. `attempt` counts the tiers it has been through, from 0."""

    event_id: UUID
    event_type: str
    aggregate_id: str
    version: int
    at: datetime
    payload: Payload | None
    traceparent: str | None
    first_traceparent: str | None

    def body(self, model: type[P]) -> P:
        """The payload as `model`. Raises `Poison` if it is another one."""
        if not isinstance(self.payload, model):
            raise Poison(f"{self.event_type} does not carry {model.__name__}")
        return self.payload


def header_map(headers: Sequence[tuple[str, bytes]]) -> dict[str, bytes]:
    """Kafka headers as a dict; of repeated names the last one counts."""
    return {name: value for name, value in headers if value is not None}


def decode(record: ConsumerRecord) -> Envelope:
    """The event in a record. Raises `Poison`."""
    headers = header_map(record.headers)
    try:
        fields = {name: headers[name].decode() for name in _REQUIRED}
        event_id, version = UUID(fields["ce_id"]), int(fields["ce_aggregateversion"])
        at = datetime.fromisoformat(fields["ce_time"])
    except KeyError as error:
        raise Poison(f"header {error.args[0]} is missing") from error
    except ValueError as error:
        raise Poison("a header cannot be read") from error
    if not fields["ce_dataschema"].endswith(f"/{MAJOR_VERSION}"):
        raise Poison("unknown major version")
    if at.tzinfo is None:
        raise Poison("ce_time has no time zone")
    return Envelope(
        event_id=event_id,
        event_type=fields["ce_type"],
        aggregate_id=fields["ce_subject"],
        version=version,
        at=at,
        payload=_payload(fields["ce_type"], record.value),
        traceparent=_text(headers, "traceparent"),
        first_traceparent=_text(headers, "x-first-traceparent"),
    )


def _payload(event_type: str, value: bytes | None) -> Payload | None:
    model = TYPES.get(event_type)
    if model is None:
        return None
    try:
        return model.model_validate_json(value or b"")
    except ValidationError as error:
        raise Poison(f"payload is not a {event_type}: {error.error_count()} errors") from error


def origin_of(record: ConsumerRecord) -> Origin:
    """Where the record first stood; its own place unless headers say otherwise (or say it badly)."""
    headers = header_map(record.headers)
    try:
        return Origin(headers["x-origin-topic"].decode(), int(headers["x-origin-partition"]), int(headers["x-origin-offset"]))
    except (KeyError, ValueError):
        return Origin(record.topic, record.partition, record.offset)


def attempt_of(record: ConsumerRecord) -> int:
    """How many tiers the record has been through; 0 when it says nothing readable."""
    try:
        return max(0, int(header_map(record.headers).get("x-attempt", b"0")))
    except ValueError:
        return 0


def not_before_ms(record: ConsumerRecord) -> int:
    """Unix milliseconds before which the record must not be handled; 0 for now."""
    try:
        return int(header_map(record.headers).get("x-not-before-ms", b"0"))
    except ValueError:
        return 0


def storable(headers: Mapping[str, bytes]) -> dict[str, str]:
    """Headers as JSON-safe text, reversible: bytes outside visible ASCII are percent-encoded."""
    return {name.replace("\0", ""): quote_from_bytes(value, safe=" !#$&'()*+,/:;=?@[]{}|<>^`\"\\~") for name, value in headers.items()}


def _text(headers: Mapping[str, bytes], name: str) -> str | None:
    value = headers.get(name)
    return None if value is None else value.decode("latin-1")
