"""Event-loop lag and collector pauses are measured: a blocked loop and a collection show in the metrics."""

from __future__ import annotations

import asyncio
import gc
import platform
import time

from service.foundation import metrics, pulse


def _sample(name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


async def test_a_blocked_loop_shows_as_lag() -> None:
    before = _sample("orders_event_loop_lag_seconds_sum")
    watching = asyncio.create_task(pulse.watch_loop())
    await asyncio.sleep(0.01)
    time.sleep(0.6)  # noqa: ASYNC251 - the fault itself
    for _ in range(10):  # the sleeper is overdue: it runs within a few turns of the loop
        await asyncio.sleep(0)
    watching.cancel()
    assert _sample("orders_event_loop_lag_seconds_sum") - before >= 0.3


def test_a_collection_is_counted_by_generation() -> None:
    pulse.describe("test", "0")
    try:
        before = _sample("orders_gc_pause_seconds_count", generation="2")
        gc.collect()
        assert _sample("orders_gc_pause_seconds_count", generation="2") == before + 1
    finally:
        gc.callbacks.pop()


def test_what_runs_is_said() -> None:
    pulse.describe("said", "0")
    gc.callbacks.pop()
    assert _sample("orders_build_info", process="said", version="0", python=platform.python_version()) == 1
