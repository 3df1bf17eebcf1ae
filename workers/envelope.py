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

from service.events import MAJOR_VERSION, PARTITIONS, TYPES, Payload

P = TypeVar("P", bound=Payload)

_REQUIRED: Final = ("ce_id", "ce_type", "ce_subject", "ce_time", "ce_aggregateversion", "ce_dataschema")


_INT: Final = 2**31
_BIGINT: Final = 2**63
_DAY_MS: Final = 86_400_000


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
    found = dict(headers)
    return found if None not in found.values() else {name: value for name, value in headers if value is not None}


def decode(record: ConsumerRecord) -> Envelope:
    """The event in a record. Raises `Poison`."""
    headers = header_map(record.headers)
    try:
        fields = {name: headers[name].decode() for name in _REQUIRED}
        fields["ce_type"].encode("ascii")
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
    """Where the record first stood; its own place unless headers say otherwise.

    Headers that name no topic of ours or no possible place are not believed: what is built from them (the next
    topic, a row) must be possible, or the record would hold up its partition for ever.
    """
    headers = header_map(record.headers)
    try:
        origin = Origin(headers["x-origin-topic"].decode(), int(headers["x-origin-partition"]), int(headers["x-origin-offset"]))
    except (KeyError, ValueError):
        return Origin(record.topic, record.partition, record.offset)
    possible = origin.topic in PARTITIONS and 0 <= origin.partition < _INT and 0 <= origin.offset < _BIGINT
    return origin if possible else Origin(record.topic, record.partition, record.offset)


def stream_of(record: ConsumerRecord) -> str:
    """The events topic a record belongs to: names of retry and dead-letter topics begin with it."""
    topic = origin_of(record).topic
    return next((name for name in PARTITIONS if topic == name or topic.startswith(f"{name}.")), topic)


def attempt_of(record: ConsumerRecord) -> int:
    """How many tiers the record has been through; 0 when it says nothing readable."""
    return _number(record, "x-attempt")


def replays_of(record: ConsumerRecord) -> int:
    """How many times the record was replayed; 0 when it says nothing readable."""
    return _number(record, "x-replay-count")


def not_before_ms(record: ConsumerRecord) -> int:
    """Unix milliseconds before which the record must not be handled; 0 for now. At most a day after it was written."""
    asked = _number(record, "x-not-before-ms", limit=_BIGINT)
    return min(asked, record.timestamp + _DAY_MS) if asked else 0


def header_text(record: ConsumerRecord, name: str) -> str | None:
    """One header as text, of any record."""
    return _text(header_map(record.headers), name)


def _number(record: ConsumerRecord, name: str, *, limit: int = 2**31 - 1) -> int:
    value = header_map(record.headers).get(name)
    try:
        return 0 if value is None else min(max(0, int(value)), limit - 1)
    except ValueError:
        return 0


def storable(headers: Mapping[str, bytes]) -> dict[str, str]:
    """Headers as JSON-safe text, reversible: bytes outside visible ASCII are percent-encoded."""
    return {name.replace("\0", ""): quote_from_bytes(value, safe=" !#$&'()*+,/:;=?@[]{}|<>^`\"\\~") for name, value in headers.items()}


def _text(headers: Mapping[str, bytes], name: str) -> str | None:
    value = headers.get(name)
    return None if value is None else value.decode("latin-1")
