"""${message}

What gets better, and what code of revision ${down_revision | comma,n} does meanwhile: it runs against this schema until it is replaced.
"""

# Writers go on while this runs (tests/integration/test_migrations_are_safe.py):
# - every statement gives up after 100 ms of waiting for a lock, and the revision is tried again; so: few statements a revision
# - add a column without a volatile default; a constraint NOT VALID here, `online.validate` in the next revision
# - indexes by `online.create_index` and `online.drop_index` (CONCURRENTLY), data by `online.backfill` in small batches
# - what the code before still needs goes in a later revision, above `REQUIRED_REVISION` until that code is gone

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from service.migrations import online
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
