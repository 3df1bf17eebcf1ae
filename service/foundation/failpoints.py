"""Named places where a test may crash, hang or fail this process; inert unless `APP_FAILPOINTS` names them.

`APP_FAILPOINTS=after-charge-before-settle=crash` arms one. Settings refuse any in production.
`crash` is `os._exit(137)`: no `finally`, no flush, as a kill -9 would leave things.
The sweep in tests/faults runs a story against every name in `NAMES` with every action.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from typing import Final

NAMES: Final = (
    "after-key-claim",
    "after-commit-before-response",
    "before-outbox-move",
    "after-send-before-move",
    "after-outbox-move",
    "after-intent",
    "after-charge-before-settle",
    "after-void-before-record",
    "after-commit-before-offset-commit",
    "between-dead-letter-and-offset-commit",
    "inside-migration",
)
CRASH_EXIT: Final = 137
HANG_S: Final = 3.0


class FailpointError(RuntimeError):
    """What `name=error` raises."""


_armed: dict[str, str] = {}


def arm(points: Iterable[str]) -> None:
    """Arm `name=action` points. Raises `ValueError` for an unknown name or action."""
    _armed.clear()
    for point in points:
        name, _, action = point.partition("=")
        if name not in NAMES or action not in {"crash", "hang", "error"}:
            raise ValueError(f"APP_FAILPOINTS: {point!r} is not one of {', '.join(NAMES)} = crash|hang|error")
        _armed[name] = action


async def hit(name: str) -> None:
    """Do what the point `name` is armed for; nothing when it is not. `hang` and `crash` happen once."""
    if not _armed:
        return
    action = _armed.pop(name, None)
    if action == "crash":
        os._exit(CRASH_EXIT)
    if action == "hang":
        await asyncio.sleep(HANG_S)
    if action == "error":
        raise FailpointError(name)
