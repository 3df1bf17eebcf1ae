"""Keys and inbox are vacuumed after each hundredth part

Both are large and lose the same small share every minute. At PostgreSQL's default of a fifth they would be vacuumed once
in days, for hours, while their indexes grow; the figures are in docs/database.md. Takes no lock that a writer meets.
"""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_OPTIONS = "autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000"


def upgrade() -> None:
    op.execute(f"ALTER TABLE idempotency_key SET ({_OPTIONS})")
    op.execute(f"ALTER TABLE inbox SET ({_OPTIONS})")


def downgrade() -> None:
    for table in ("idempotency_key", "inbox"):
        op.execute(f"ALTER TABLE {table} RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold)")
