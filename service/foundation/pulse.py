"""How the process itself feels: event-loop lag, garbage-collector pauses, what is running.

A loop that wakes late answers everything late, and no other metric says why. Costs four timers a second.
Test: tests/unit/test_pulse.py.
"""

from __future__ import annotations

import asyncio
import gc
import platform
import time
from typing import Any, Final

from service.foundation import metrics

_EVERY_S: Final = 0.25
_pauses: Final = [metrics.gc_pause.labels(str(generation)) for generation in range(3)]
_began: Final = [0.0]


def describe(process: str, version: str) -> None:
    """Say what runs, and listen to the collector. Call once a process."""
    metrics.build_info.labels(process, version, platform.python_version()).set(1)
    gc.callbacks.append(_on_collection)


async def watch_loop() -> None:
    """Measure until cancelled how late the loop wakes this task."""
    while True:
        asked = time.perf_counter()
        await asyncio.sleep(_EVERY_S)
        metrics.loop_lag.observe(max(0.0, time.perf_counter() - asked - _EVERY_S))
        metrics.loop_tasks.set(len(asyncio.all_tasks()))


def _on_collection(phase: str, info: dict[str, Any]) -> None:
    if phase == "start":
        _began[0] = time.perf_counter()
    else:
        _pauses[info["generation"]].observe(time.perf_counter() - _began[0])
