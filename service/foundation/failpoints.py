"""Named places where a test may crash, hang or fail this process; inert unless `APP_FAILPOINTS` names them.

`APP_FAILPOINTS=after-charge-before-settle=crash` arms one for its first hit. With `=crash@FILE` it fires when FILE
is there, and takes it away: once over any number of processes and restarts, at the moment the test chooses.
Settings refuse any in production. `crash` is `os._exit(137)`: no `finally`, no flush, as a kill -9 would leave
things. The sweep in tests/faults runs a story against every name in `NAMES`.
"""

from __future__ import annotations

import asyncio
import os
import time
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


# Name → (action, file that must be there; empty: the first hit).
_armed: dict[str, list[tuple[str, str]]] = {}


def arm(points: Iterable[str]) -> None:
    """Arm `name=action[@file]` points. Raises `ValueError` for an unknown name or action."""
    _armed.clear()
    for point in points:
        name, _, rest = point.partition("=")
        action, _, file = rest.partition("@")
        if name not in NAMES or action not in {"crash", "hang", "error"}:
            raise ValueError(f"APP_FAILPOINTS: {point!r} is not one of {', '.join(NAMES)} = crash|hang|error[@file]")
        _armed.setdefault(name, []).append((action, file))


def armed() -> bool:
    """True if any point is armed: the hot path asks before it calls `hit`."""
    return bool(_armed)


async def hit(name: str) -> None:
    """Do what the point `name` is armed for, once; nothing when it is not."""
    if not _armed:
        return
    action = _take(name)
    if action == "hang":
        await asyncio.sleep(HANG_S)
    else:
        _end(name, action)


def hit_blocking(name: str) -> None:
    """As `hit`, for places without an event loop."""
    action = _take(name)
    if action == "hang":
        time.sleep(HANG_S)
    else:
        _end(name, action)


def _end(name: str, action: str) -> None:
    if action == "crash":
        os._exit(CRASH_EXIT)
    if action == "error":
        raise FailpointError(name)


def _take(name: str) -> str:
    """The action to carry out now, or empty."""
    for point in _armed.get(name, ()):
        action, file = point
        if not file:
            _armed[name].remove(point)
            return action
        try:
            os.unlink(file)  # noqa: PTH108 - the one call that finds and takes it in one step
        except FileNotFoundError:
            continue
        return action
    return ""
