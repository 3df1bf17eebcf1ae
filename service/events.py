"""The contract between service and workers: event types, topics, payloads, envelope.

CloudEvents 1.0, binary mode: attributes in `ce_*` headers, payload as JSON. One model an event;
`plumbline events schema` writes their JSON Schemas to docs/events/, and
tests/unit/test_events_stay_compatible.py refuses a change that an older consumer could not read.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict

ORDERS_TOPIC: Final = "orders.events.v1"
CATALOG_TOPIC: Final = "catalog.events.v1"
PARTITIONS: Final = {ORDERS_TOPIC: 12, CATALOG_TOPIC: 6}
RETRY_PARTITIONS: Final = 3
MAX_EVENT_BYTES: Final = 262_144
MAJOR_VERSION: Final = "v1"
_SCHEMA_ROOT: Final = "urn:plumbline:events"

# Group → topics it reads.
SUBSCRIPTIONS: Final[dict[str, tuple[str, ...]]] = {
    "inventory": (ORDERS_TOPIC,),
    "payments": (ORDERS_TOPIC,),
    "notifications": (ORDERS_TOPIC,),
    "timeline": (ORDERS_TOPIC,),
    "cache": (ORDERS_TOPIC, CATALOG_TOPIC),
}

AggregateType = Literal["order", "product"]
_TOPICS: Final[dict[AggregateType, str]] = {"order": ORDERS_TOPIC, "product": CATALOG_TOPIC}


class Payload(BaseModel):
    """Readers ignore fields they do not know, so adding one is compatible."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Line(Payload):
    line_no: int
    sku: str
    quantity: int
    unit_price_minor: int


class OrderEvent(Payload):
    order_id: UUID
    customer_id: str
    total_minor: int
    currency: str


class OrderPlaced(OrderEvent):
    """A customer placed an order; nothing is reserved or charged yet."""

    lines: tuple[Line, ...]


class OrderReserved(OrderEvent):
    """All lines were taken from stock; the customer may be charged."""


class OrderRejected(OrderEvent):
    """Ended without a sale: `out_of_stock` or `payment_declined`."""

    reason: str


class OrderPaid(OrderEvent):
    """The provider captured the total."""


class OrderShipped(OrderEvent):
    """The goods left; the ledger turns the reservation into a shipment."""


class OrderCancelled(OrderEvent):
    """Withdrawn by the customer or an operator; stock and money go back."""


class OrderExpired(OrderEvent):
    """Unfinished for too long; stock and money go back."""


class OrderRefunded(OrderEvent):
    """A captured charge was given back; the status did not change."""


class ProductChanged(Payload):
    """Name, price or activity of a product changed."""

    sku: str
    name: str
    price_minor: int
    currency: str
    active: bool


class ProductRestocked(Payload):
    """Pieces were added to stock."""

    sku: str
    quantity: int


TYPES: Final[dict[str, type[Payload]]] = {
    "order.placed": OrderPlaced,
    "order.reserved": OrderReserved,
    "order.rejected": OrderRejected,
    "order.paid": OrderPaid,
    "order.shipped": OrderShipped,
    "order.cancelled": OrderCancelled,
    "order.expired": OrderExpired,
    "order.refunded": OrderRefunded,
    "product.changed": ProductChanged,
    "product.restocked": ProductRestocked,
}


def topic_of(aggregate_type: AggregateType) -> str:
    """The topic that carries events about this kind of thing."""
    return _TOPICS[aggregate_type]


def retry_topic(topic: str, group: str, number: int) -> str:
    """Tier `number` (from 1) of a group's records of `topic`; replays arrive at the first."""
    return f"{topic}.{group}.retry.{number}"


def dead_letter_topic(topic: str, group: str) -> str:
    """Where a group's hopeless records of `topic` go."""
    return f"{topic}.{group}.dlt"


def ce_headers(*, event_id: UUID, event_type: str, aggregate_id: str, version: int, at: datetime) -> dict[str, str]:
    """CloudEvents attributes as Kafka headers; `ce_dataschema` ends in the payload's major version."""
    return {
        "content-type": "application/json",
        "ce_specversion": "1.0",
        "ce_id": str(event_id),
        "ce_type": event_type,
        "ce_source": f"/plumbline/{event_type.partition('.')[0]}s",
        "ce_subject": aggregate_id,
        "ce_time": at.isoformat(),
        "ce_aggregateversion": str(version),
        "ce_dataschema": f"{_SCHEMA_ROOT}/{event_type}/{MAJOR_VERSION}",
    }
