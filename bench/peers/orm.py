"""The tables as declarative classes, for the two peers on SQLAlchemy's ORM."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import DateTime, ForeignKey, Identity, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    type_annotation_map: ClassVar = {dict[str, Any]: JSONB, datetime: DateTime(timezone=True)}


class Product(Base):
    __tablename__ = "product"
    sku: Mapped[str] = mapped_column(primary_key=True)
    price_minor: Mapped[int]
    currency: Mapped[str]
    active: Mapped[bool]


class OrderLine(Base):
    __tablename__ = "order_line"
    order_id: Mapped[UUID] = mapped_column(ForeignKey("orders.id"), primary_key=True)
    line_no: Mapped[int] = mapped_column(primary_key=True)
    sku: Mapped[str]
    quantity: Mapped[int]
    unit_price_minor: Mapped[int]


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    customer_id: Mapped[str]
    status: Mapped[str]
    version: Mapped[int]
    currency: Mapped[str]
    total_minor: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    lines: Mapped[list[OrderLine]] = relationship(order_by=OrderLine.line_no, lazy="selectin")


class IdempotencyKey(Base):
    __tablename__ = "idempotency_key"
    principal: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[bytes]
    status: Mapped[int]
    headers: Mapped[dict[str, Any]]
    body: Mapped[bytes]
    expires_at: Mapped[datetime]


class Outbox(Base):
    __tablename__ = "outbox"
    seq: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    event_id: Mapped[UUID]
    aggregate_type: Mapped[str]
    aggregate_id: Mapped[str]
    version: Mapped[int]
    type: Mapped[str]
    topic: Mapped[str]
    key: Mapped[str]
    payload: Mapped[bytes]
    headers: Mapped[dict[str, Any]]
