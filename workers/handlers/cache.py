"""Cache: every event invalidates its object in Redis, guarded by version; the guaranteed path of invalidation.

Commutative, so it needs no inbox. When Redis is away the group pauses (≤ 1 s at a time) and goes on where it was.
"""

from __future__ import annotations

from typing import Final

from service.events import TYPES
from workers.envelope import Envelope
from workers.handling import Context


async def on_event(event: Envelope, context: Context) -> str:
    """No version below the event's may be served any more."""
    await context.cache.invalidate(event.event_type.partition(".")[0], event.aggregate_id, event.version)
    return "applied"


HANDLERS: Final = dict.fromkeys(TYPES, on_event)
