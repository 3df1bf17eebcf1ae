"""The inbox: an event is applied once per consumer, because its row commits with the effect.

Claim after the effect's row locks and before any effect. False: done already, write nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar
from uuid import UUID

from service.foundation.db import Connection
from service.foundation.grouped import Job

T = TypeVar("T")

# In one order for everybody, so that two who claim the same cannot wait for each other in a circle.
_CLAIM: Final = (
    "INSERT INTO inbox (consumer, event_id) SELECT $1::text, e FROM unnest($2::uuid[]) AS e ORDER BY e ON CONFLICT DO NOTHING RETURNING event_id"
)


async def claim(connection: Connection, consumer: str, event_id: UUID) -> bool:
    """True once per (consumer, event); a twin in flight makes this wait for its outcome."""
    return (await claim_each(connection, [(consumer, event_id)]))[0]


async def claim_each(connection: Connection, wanted: Sequence[tuple[str, UUID]]) -> list[bool]:
    """As `claim`, for many events of one consumer."""
    event_ids = [event_id for _, event_id in wanted]
    claimed = {row["event_id"] for row in await connection.fetch(_CLAIM, wanted[0][0], event_ids)}
    return taken_once(claimed, event_ids)


def taken_once(new: set[T], wanted: Sequence[T]) -> list[bool]:
    """For each one wanted whether it is new: of twins in one group only the first is."""
    found = []
    for each in wanted:
        found.append(each in new)
        new.discard(each)
    return found


# For effects that need no transaction of their own: the claim is all there is to commit.
CLAIM: Final = Job("INSERT inbox", claim_each)
