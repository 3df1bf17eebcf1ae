"""Baseline

All tables of service/models.py as they were first; later revisions say what changed and why.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("detail", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
        comment="Who did what by hand.",
    )
    op.create_table(
        "dead_letter",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("consumer", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=True),
        sa.Column("aggregate_id", sa.Text(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("headers", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=True),
        sa.Column("payload", sa.LargeBinary(), nullable=True),
        sa.Column("error_class", sa.Text(), nullable=False),
        sa.Column("error_message", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("replay_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("status", sa.Text(), server_default=sa.text("'open'"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("resolved_by", sa.Text(), nullable=True),
        sa.CheckConstraint("status IN ('open', 'replayed', 'discarded')", name=op.f("ck_dead_letter_status_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dead_letter")),
        sa.UniqueConstraint("consumer", "topic", "partition", "offset", name=op.f("uq_dead_letter_consumer_topic_partition_offset")),
        comment="Records a consumer gave up on, by their first place in Kafka; a person decides.",
    )
    op.create_index(
        "ix_dead_letter_open", "dead_letter", ["consumer", sa.literal_column("id DESC")], unique=False, postgresql_where=sa.text("status = 'open'")
    )
    op.create_table(
        "idempotency_key",
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.SmallInteger(), nullable=False),
        sa.Column("headers", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("status BETWEEN 200 AND 299", name=op.f("ck_idempotency_key_status_is_success")),
        sa.PrimaryKeyConstraint("principal", "key", name=op.f("pk_idempotency_key")),
        comment="Answers already given; the primary key is the lock that makes twins wait.",
    )
    op.create_index("ix_idempotency_key_expires_at", "idempotency_key", ["expires_at"], unique=False)
    op.create_table(
        "inbox",
        sa.Column("consumer", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("processed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("consumer", "event_id", name=op.f("pk_inbox")),
        comment="Events a consumer has applied; written in the transaction of the effect.",
    )
    op.create_index("ix_inbox_processed_at", "inbox", ["processed_at"], unique=False)
    op.create_table(
        "order_timeline",
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("detail", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("order_id", "version", name=op.f("pk_order_timeline")),
        comment="Read model of an order's history, fed by its events in any order.",
    )
    op.create_table(
        "orders",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("status_reason", sa.Text(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("total_minor", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "status IN ('placed', 'reserved', 'paid', 'shipped', 'cancelled', 'rejected', 'expired')", name=op.f("ck_orders_status_known")
        ),
        sa.CheckConstraint("char_length(note) <= 500", name=op.f("ck_orders_note_short")),
        sa.CheckConstraint("total_minor >= 0", name=op.f("ck_orders_total_not_negative")),
        sa.CheckConstraint("version >= 1", name=op.f("ck_orders_version_positive")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_orders")),
        comment="Orders; version counts the events written about the order.",
        postgresql_with={"fillfactor": "85"},
    )
    op.create_index("ix_orders_customer_id_id", "orders", ["customer_id", sa.literal_column("id DESC")], unique=False)
    op.create_index("ix_orders_unfinished", "orders", ["updated_at"], unique=False, postgresql_where=sa.text("status IN ('placed', 'reserved')"))
    op.create_table(
        "outbox",
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=True, cache=1), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("aggregate_type", sa.Text(), nullable=False),
        sa.Column("aggregate_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("headers", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_outbox")),
        comment="Events committed and not yet acknowledged by Kafka.",
        postgresql_with={"autovacuum_vacuum_scale_factor": "0", "autovacuum_vacuum_threshold": "2000"},
    )
    op.create_table(
        "outbox_sent",
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("aggregate_type", sa.Text(), nullable=False),
        sa.Column("aggregate_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("headers", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("seq", "sent_at", name=op.f("pk_outbox_sent")),
        comment="Events Kafka has acknowledged, kept for days: what a wiped Kafka is rebuilt from.",
        postgresql_partition_by="RANGE (sent_at)",
    )
    op.create_index("ix_outbox_sent_aggregate_id", "outbox_sent", ["aggregate_id"], unique=False)
    op.create_table(
        "product",
        sa.Column("sku", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("price_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name=op.f("ck_product_currency_iso4217")),
        sa.CheckConstraint("price_minor >= 0", name=op.f("ck_product_price_not_negative")),
        sa.CheckConstraint("version >= 1", name=op.f("ck_product_version_positive")),
        sa.PrimaryKeyConstraint("sku", name=op.f("pk_product")),
        comment="The catalogue; version counts its events plus the seeded one.",
    )
    op.create_table(
        "order_line",
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("line_no", sa.Integer(), nullable=False),
        sa.Column("sku", sa.Text(), nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.Column("unit_price_minor", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("quantity BETWEEN 1 AND 10000", name=op.f("ck_order_line_quantity_in_range")),
        sa.CheckConstraint("unit_price_minor >= 0", name=op.f("ck_order_line_price_not_negative")),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_order_line_order_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["sku"], ["product.sku"], name=op.f("fk_order_line_sku")),
        sa.PrimaryKeyConstraint("order_id", "line_no", name=op.f("pk_order_line")),
        comment="What was ordered, at the price of that moment.",
    )
    op.create_table(
        "payment",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=False),
        sa.Column("provider_ref", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("kind IN ('charge', 'refund')", name=op.f("ck_payment_kind_known")),
        sa.CheckConstraint("state IN ('started', 'captured', 'declined', 'voided', 'refunded')", name=op.f("ck_payment_state_known")),
        sa.CheckConstraint("amount_minor >= 0", name=op.f("ck_payment_amount_not_negative")),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_payment_order_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payment")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_payment_idempotency_key")),
        comment="What we asked of the payment provider, and what it answered.",
    )
    op.create_index("ix_payment_order_id", "payment", ["order_id"], unique=False)
    op.create_table(
        "stock",
        sa.Column("sku", sa.Text(), nullable=False),
        sa.Column("available", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("available >= 0", name=op.f("ck_stock_available_not_negative")),
        sa.ForeignKeyConstraint(["sku"], ["product.sku"], name=op.f("fk_stock_sku")),
        sa.PrimaryKeyConstraint("sku", name=op.f("pk_stock")),
        comment="Pieces that can still be sold, one row a SKU.",
        postgresql_with={"fillfactor": "50"},
    )
    op.create_table(
        "stock_ledger",
        sa.Column("ref_id", sa.Uuid(), nullable=False),
        sa.Column("sku", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("kind IN ('seed', 'reserve', 'release', 'ship', 'restock')", name=op.f("ck_stock_ledger_kind_known")),
        sa.CheckConstraint("quantity > 0", name=op.f("ck_stock_ledger_quantity_positive")),
        sa.ForeignKeyConstraint(["sku"], ["product.sku"], name=op.f("fk_stock_ledger_sku")),
        sa.PrimaryKeyConstraint("ref_id", "sku", "kind", name=op.f("pk_stock_ledger")),
        comment="Why stock moved: ref_id is the order or the restock; one row a reason, so nothing is applied twice.",
    )
    # Catches rows of a day whose partition the reaper has not made yet: nothing is ever refused.
    op.execute("CREATE TABLE outbox_sent_default PARTITION OF outbox_sent DEFAULT")


def downgrade() -> None:
    raise RuntimeError("the baseline is not undone: restore a backup, or drop the database")
