"""Orders say when they were closed: contract

What code of revision 0001 needed goes: its index, and the trigger that wrote for it.
Run it (`plumbline migrate --to head`) when no such code is left; `plumbline migrate` stops before it.
"""

from __future__ import annotations

from alembic import op

from service.migrations import online

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    online.drop_index("ix_orders_unfinished")
    op.execute("DROP TRIGGER IF EXISTS orders_close_for_old_code ON orders")
    op.execute("DROP FUNCTION IF EXISTS orders_close_for_old_code")


def downgrade() -> None:
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
    online.create_index("ix_orders_unfinished", "ON orders (updated_at) WHERE status IN ('placed', 'reserved')")
