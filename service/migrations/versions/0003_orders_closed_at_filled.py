"""Orders say when they were closed: backfill, then index and proof

Orders that ended before revision 0002 are closed at their last change. The index comes after the data: while it is
not there the backfill's updates stay on their pages (HOT).
"""

from __future__ import annotations

from service.migrations import online

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_FILL = """
WITH batch AS MATERIALIZED (
    SELECT id FROM orders WHERE id > CAST(:after AS uuid) ORDER BY id LIMIT :size
), filled AS (
    UPDATE orders o SET closed_at = o.updated_at FROM batch b
    WHERE o.id = b.id AND o.closed_at IS NULL AND o.status NOT IN ('placed', 'reserved')
    RETURNING 1
)
SELECT (SELECT id::text FROM batch ORDER BY id DESC LIMIT 1) AS last, (SELECT count(*) FROM filled) AS changed
"""


def upgrade() -> None:
    online.backfill(_FILL, table="orders", start="00000000-0000-0000-0000-000000000000")
    online.create_index("ix_orders_open", "ON orders (created_at) WHERE closed_at IS NULL")
    online.validate("orders", "ck_orders_closed_when_ended")


def downgrade() -> None:
    online.drop_index("ix_orders_open")
