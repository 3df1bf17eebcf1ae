"""What comes in and goes out about orders: pydantic models in, one function out.

Input is strict (no coercion) and closed (unknown and read-only fields are 422).
Answers are dicts made here and encoded once; the *Out models describe them for OpenAPI.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, field_validator

from service.foundation.clock import on_the_wire
from service.text import Currency, CustomerId, Sku, Text

# Raised when the JSON of an order changes, so that old ETags stop matching.
REPRESENTATION: Final = 1

Status = Literal["placed", "reserved", "paid", "shipped", "cancelled", "rejected", "expired"]


class _Input(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class LineIn(_Input):
    sku: Sku
    quantity: Annotated[int, Field(ge=1, le=10_000)]


class PlaceOrder(_Input):
    """Prices come from the catalogue; `expected_total_minor` protects the buyer from a change."""

    lines: Annotated[tuple[LineIn, ...], Field(min_length=1, max_length=100, strict=False)]
    currency: Currency
    expected_total_minor: Annotated[int | None, Field(ge=0, le=10**18)] = None
    note: Annotated[Text | None, Field(max_length=500)] = None
    customer_id: CustomerId | None = None

    @field_validator("lines")
    @classmethod
    def _sku_once(cls, lines: tuple[LineIn, ...]) -> tuple[LineIn, ...]:
        if len({line.sku for line in lines}) != len(lines):
            raise ValueError("a SKU may appear once; add the quantities up")
        return lines


class OrderListQuery(_Input):
    status: Status | None = None
    customer_id: CustomerId | None = None
    limit: Annotated[int, Field(ge=1, le=100, strict=False)] = 20
    cursor: Annotated[str | None, Field(max_length=64)] = None


class Empty(_Input):
    """An empty body or `{}`."""


class LineOut(BaseModel):
    line_no: int
    sku: str
    quantity: int
    unit_price_minor: int


class OrderOut(BaseModel):
    """Money in minor units of `currency`; moments in RFC 3339 UTC with microseconds."""

    id: str
    customer_id: str
    status: Status
    version: int
    currency: str
    total_minor: int
    lines: list[LineOut]
    note: str | None
    status_reason: str | None
    created_at: str
    updated_at: str


class OrderPage(BaseModel):
    items: list[OrderOut]
    next_cursor: str | None


class TimelineEntry(BaseModel):
    version: int
    type: str
    at: str
    detail: dict[str, Any]


class Timeline(BaseModel):
    items: list[TimelineEntry]


def present_order(row: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """An order row and its lines (keys as `OrderOut`), for `encode`."""
    return {
        "id": str(row["id"]),
        "customer_id": row["customer_id"],
        "status": row["status"],
        "version": row["version"],
        "currency": row["currency"],
        "total_minor": row["total_minor"],
        "lines": lines,
        "note": row["note"],
        "status_reason": row["status_reason"],
        "created_at": on_the_wire(row["created_at"]),
        "updated_at": on_the_wire(row["updated_at"]),
    }


def encode(content: Mapping[str, Any]) -> bytes:
    """The JSON of orders presented here."""
    return orjson.dumps(content, option=orjson.OPT_UTC_Z)
