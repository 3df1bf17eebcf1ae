"""Orders say when they were closed: expand

`closed_at` is when an order left placed and reserved for good. The reaper's index moves from (updated_at, status) to it,
so that a transition no longer writes every index (docs/adr/0300). Code of revision 0001 does not know the column: until
it is gone a trigger closes what it closes. New rows are open, so an insert costs nothing.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("orders", sa.Column("closed_at", sa.DateTime(timezone=True)))
    op.execute("""
        CREATE OR REPLACE FUNCTION orders_close_for_old_code() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.closed_at := NEW.updated_at;
            RETURN NEW;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER orders_close_for_old_code BEFORE UPDATE ON orders FOR EACH ROW
        WHEN (NEW.closed_at IS NULL AND NEW.status NOT IN ('placed', 'reserved')) EXECUTE FUNCTION orders_close_for_old_code()
    """)
    op.execute("""
        ALTER TABLE orders ADD CONSTRAINT ck_orders_closed_when_ended
        CHECK ((closed_at IS NULL) = (status IN ('placed', 'reserved'))) NOT VALID
    """)


def downgrade() -> None:
    op.execute("ALTER TABLE orders DROP CONSTRAINT ck_orders_closed_when_ended")
    op.execute("DROP TRIGGER orders_close_for_old_code ON orders")
    op.execute("DROP FUNCTION orders_close_for_old_code")
    op.drop_column("orders", "closed_at")
