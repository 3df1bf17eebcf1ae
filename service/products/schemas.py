"""What comes in and goes out about products."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, model_validator

from service.foundation.clock import rfc3339
from service.text import Sku, Text

REPRESENTATION: Final = 1


class _Input(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class ProductPatch(_Input):
    """Only what is present changes; at least one field."""

    name: Annotated[Text, Field(min_length=1, max_length=200)] | None = None
    price_minor: Annotated[int, Field(ge=0, le=10**12)] | None = None
    active: bool | None = None

    @model_validator(mode="after")
    def _something(self) -> ProductPatch:
        if not self.changes():
            raise ValueError("name at least one of name, price_minor, active; null is not a value")
        return self

    def changes(self) -> dict[str, Any]:
        """Field → new value of what was sent."""
        return {name: value for name in self.model_fields_set if (value := getattr(self, name)) is not None}


class Restock(_Input):
    quantity: Annotated[int, Field(ge=1, le=1_000_000)]


class ProductListQuery(_Input):
    limit: Annotated[int, Field(ge=1, le=100, strict=False)] = 20
    cursor: Annotated[str | None, Field(max_length=64)] = None


class ProductOut(BaseModel):
    sku: Sku
    name: str
    price_minor: int
    currency: str
    active: bool
    version: int
    updated_at: str


class ProductPage(BaseModel):
    items: list[ProductOut]
    next_cursor: str | None


class Availability(BaseModel):
    """Advisory: the reservation decides. Up to one second old."""

    sku: str
    available: int


class Restocked(BaseModel):
    sku: str
    quantity: int
    version: int


def present_product(row: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON form of a product row (keys as `ProductOut`)."""
    return {
        "sku": row["sku"],
        "name": row["name"],
        "price_minor": row["price_minor"],
        "currency": row["currency"],
        "active": row["active"],
        "version": row["version"],
        "updated_at": rfc3339(row["updated_at"]),
    }
