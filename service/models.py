"""All tables on one page. The rules of the domain are said again here as CHECK, NOT NULL and FK.

PostgreSQL holds the truth; what is not in these tables did not happen.
Tables are SQLAlchemy Core, no ORM session (docs/adr/0002). `make check` compares them with the migrations.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

ORDER_STATUSES = ("placed", "reserved", "paid", "shipped", "cancelled", "rejected", "expired")
LEDGER_KINDS = ("seed", "reserve", "release", "ship", "restock")
# Large, and the reaper takes the same small share every minute: at the default of a fifth vacuum would come once in days, for hours.
_VACUUM_EARLY = {"autovacuum_vacuum_scale_factor": "0.01", "autovacuum_vacuum_threshold": "1000"}


def _one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(repr(v) for v in values)})", name=f"{column}_known")


def _moment(name: str, *, nullable: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable, server_default=None if nullable else text("now()"))


product = Table(
    "product",
    metadata,
    Column("sku", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("price_minor", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("active", Boolean, nullable=False, server_default=text("true")),
    Column("version", Integer, nullable=False, server_default=text("1")),
    _moment("updated_at"),
    CheckConstraint("price_minor >= 0", name="price_not_negative"),
    CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency_iso4217"),
    CheckConstraint("version >= 1", name="version_positive"),
    comment="The catalogue; version counts its events plus the seeded one.",
)

stock = Table(
    "stock",
    metadata,
    Column("sku", Text, ForeignKey("product.sku"), primary_key=True),
    Column("available", BigInteger, nullable=False),
    CheckConstraint("available >= 0", name="available_not_negative"),
    # Every reservation rewrites one row: leave room on the page so that the new version stays on it (HOT).
    postgresql_with={"fillfactor": "50"},
    comment="Pieces that can still be sold, one row a SKU.",
)

stock_ledger = Table(
    "stock_ledger",
    metadata,
    Column("ref_id", Uuid, primary_key=True),
    Column("sku", Text, ForeignKey("product.sku"), primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("quantity", BigInteger, nullable=False),
    _moment("at"),
    _one_of("kind", LEDGER_KINDS),
    CheckConstraint("quantity > 0", name="quantity_positive"),
    comment="Why stock moved: ref_id is the order or the restock; one row a reason, so nothing is applied twice.",
)

orders = Table(
    "orders",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("customer_id", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("status_reason", Text),
    Column("version", Integer, nullable=False),
    Column("currency", Text, nullable=False),
    Column("total_minor", BigInteger, nullable=False),
    Column("note", Text),
    _moment("created_at"),
    _moment("updated_at"),
    Column("closed_at", DateTime(timezone=True)),  # when it left placed and reserved for good
    _one_of("status", ORDER_STATUSES),
    CheckConstraint("version >= 1", name="version_positive"),
    CheckConstraint("total_minor >= 0", name="total_not_negative"),
    CheckConstraint("char_length(note) <= 500", name="note_short"),
    # Keyset pages of one customer; operators page on the primary key.
    Index("ix_orders_customer_id_id", "customer_id", text("id DESC")),
    # The reaper's question, and only that: a few unfinished rows out of millions.
    # Neither column changes from placed to reserved, nor after the end, so those updates are HOT (docs/adr/0300).
    Index("ix_orders_open", "created_at", postgresql_where=text("closed_at IS NULL")),
    CheckConstraint("(closed_at IS NULL) = (status IN ('placed', 'reserved'))", name="closed_when_ended"),
    postgresql_with={"fillfactor": "85"},
    comment="Orders; version counts the events written about the order.",
)

order_line = Table(
    "order_line",
    metadata,
    Column("order_id", Uuid, ForeignKey("orders.id", ondelete="CASCADE"), primary_key=True),
    Column("line_no", Integer, primary_key=True),
    Column("sku", Text, ForeignKey("product.sku"), nullable=False),
    Column("quantity", Integer, nullable=False),
    Column("unit_price_minor", BigInteger, nullable=False),
    CheckConstraint("quantity BETWEEN 1 AND 10000", name="quantity_in_range"),
    CheckConstraint("unit_price_minor >= 0", name="price_not_negative"),
    comment="What was ordered, at the price of that moment.",
)

idempotency_key = Table(
    "idempotency_key",
    metadata,
    Column("principal", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("status", SmallInteger, nullable=False),
    Column("headers", JSONB, nullable=False),
    Column("body", LargeBinary, nullable=False),
    _moment("created_at"),
    _moment("expires_at"),
    CheckConstraint("status BETWEEN 200 AND 299", name="status_is_success"),
    Index("ix_idempotency_key_expires_at", "expires_at"),
    postgresql_with=_VACUUM_EARLY,
    comment="Answers already given; the primary key is the lock that makes twins wait.",
)


def _event_columns() -> list[Column[object]]:
    return [
        Column("event_id", Uuid, nullable=False),
        Column("aggregate_type", Text, nullable=False),
        Column("aggregate_id", Text, nullable=False),
        Column("version", Integer, nullable=False),
        Column("type", Text, nullable=False),
        Column("topic", Text, nullable=False),
        Column("key", Text, nullable=False),
        Column("payload", LargeBinary, nullable=False),
        Column("headers", JSONB, nullable=False),
        _moment("created_at"),
    ]


outbox = Table(
    "outbox",
    metadata,
    # CACHE 1 and the aggregate's row lock make seq follow commit order for each aggregate (docs/adr/0006).
    Column("seq", BigInteger, Identity(always=True, cache=1), primary_key=True),
    *_event_columns(),
    # Rows live for milliseconds; vacuum must not wait for 20 % of a table that is usually empty.
    postgresql_with={"autovacuum_vacuum_scale_factor": "0", "autovacuum_vacuum_threshold": "2000"},
    comment="Events committed and not yet acknowledged by Kafka.",
)

outbox_sent = Table(
    "outbox_sent",
    metadata,
    Column("seq", BigInteger, primary_key=True),
    *_event_columns(),
    Column("sent_at", DateTime(timezone=True), primary_key=True, server_default=text("now()")),
    Index("ix_outbox_sent_aggregate_id", "aggregate_id"),
    postgresql_partition_by="RANGE (sent_at)",
    comment="Events Kafka has acknowledged, kept for days: what a wiped Kafka is rebuilt from.",
)

inbox = Table(
    "inbox",
    metadata,
    Column("consumer", Text, primary_key=True),
    Column("event_id", Uuid, primary_key=True),
    _moment("processed_at"),
    Index("ix_inbox_processed_at", "processed_at"),
    postgresql_with=_VACUUM_EARLY,
    comment="Events a consumer has applied; written in the transaction of the effect.",
)

payment = Table(
    "payment",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("order_id", Uuid, ForeignKey("orders.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("idempotency_key", Text, nullable=False, unique=True),
    Column("provider_ref", Text),
    _moment("created_at"),
    _moment("updated_at"),
    _one_of("kind", ("charge", "refund")),
    _one_of("state", ("started", "captured", "declined", "voided", "refunded")),
    CheckConstraint("amount_minor >= 0", name="amount_not_negative"),
    Index("ix_payment_order_id", "order_id"),
    comment="What we asked of the payment provider, and what it answered.",
)

order_timeline = Table(
    "order_timeline",
    metadata,
    Column("order_id", Uuid, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("type", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("detail", JSONB, nullable=False),
    comment="Read model of an order's history, fed by its events in any order.",
)

dead_letter = Table(
    "dead_letter",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("consumer", Text, nullable=False),
    Column("topic", Text, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("event_id", Uuid),
    Column("aggregate_id", Text),
    Column("version", Integer),
    Column("headers", JSONB, nullable=False),
    Column("key", LargeBinary),
    Column("payload", LargeBinary),
    Column("error_class", Text, nullable=False),
    Column("error_message", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("replay_count", Integer, nullable=False, server_default=text("0")),
    Column("status", Text, nullable=False, server_default=text("'open'")),
    _moment("created_at"),
    _moment("resolved_at", nullable=True),
    Column("resolved_by", Text),
    UniqueConstraint("consumer", "topic", "partition", "offset"),
    _one_of("status", ("open", "replayed", "discarded")),
    Index("ix_dead_letter_open", "consumer", text("id DESC"), postgresql_where=text("status = 'open'")),
    comment="Records a consumer gave up on, by their first place in Kafka; a person decides.",
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("id", Uuid, primary_key=True),
    _moment("at"),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", JSONB, nullable=False),
    comment="Who did what by hand.",
)
