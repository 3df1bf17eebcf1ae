"""The inbox: an event is applied once per consumer, because its row commits with the effect.

Claim after the effect's row locks and before any effect. False: done already, write nothing.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert

from service.foundation.db import Connection, Statement
from service.models import inbox

_CLAIM: Final = Statement(
    insert(inbox).values(consumer=bindparam("consumer"), event_id=bindparam("event_id")).on_conflict_do_nothing().returning(inbox.c.event_id)
)


async def claim(connection: Connection, consumer: str, event_id: UUID) -> bool:
    """True once per (consumer, event); a twin in flight makes this wait for its outcome."""
    return await connection.fetchval(*_CLAIM(consumer=consumer, event_id=event_id)) is not None
