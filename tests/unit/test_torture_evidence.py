"""What the torture tells the checker about moments at which Redis or PostgreSQL failed in the eyes of the service; found by real runs."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.torture import nemesis
from tests.torture.faults import REFUSALS
from tests.torture.nemesis import Nemesis
from tests.torture.watch import Watch

TOO_LARGE = 10


class Rig:
    """Processes of a stack.json, and what their metric says, one look after the other."""

    def __init__(self, home: Path, looks: list[list[float]]) -> None:
        self.home, self._looks, self.looked = home, looks, 0
        self.running(1)

    def running(self, *pids: int) -> None:
        processes = [{"pid": pid, "name": f"api-{pid}", "role": "api"} for pid in pids]
        (self.home / "stack.json").write_text(json.dumps({"processes": processes}))

    async def metric(self, *_: str, **__: str) -> list[float]:
        self.looked += 1
        return self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]


async def _looks(watch: Any, times: int) -> None:
    for _ in range(times):
        await watch._invalidations()


async def test_what_was_counted_before_the_first_look_may_have_been_at_any_moment_until_then(tmp_path: Path) -> None:
    watch: Any = Watch(Rig(tmp_path, [[1.0]]))  # type: ignore[arg-type]
    begin = time.time()
    await asyncio.sleep(1.2)  # a busy machine looks late
    await _looks(watch, 1)
    assert [fault.begin <= begin for fault in watch.unheard] == [True]


async def test_a_look_that_was_not_answered_leaves_the_window_open(tmp_path: Path) -> None:
    watch: Any = Watch(Rig(tmp_path, [[0.0], [], [2.0]]))  # type: ignore[arg-type]
    await _looks(watch, 1)
    heard = time.time()
    await asyncio.sleep(0.05)
    await _looks(watch, 2)
    assert [fault.begin <= heard for fault in watch.unheard] == [True]


async def test_who_is_killed_takes_its_last_counts_along(tmp_path: Path) -> None:
    rig = Rig(tmp_path, [[0.0]])
    watch: Any = Watch(rig)  # type: ignore[arg-type]
    await _looks(watch, 1)
    rig.running(2)
    await _looks(watch, 2)
    assert [fault.kind for fault in watch.unheard] == ["process gone uncounted"]


async def test_postgres_is_back_once_its_breaker_stays_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nemesis, "_STEADY_S", 0.5)
    rig = Rig(tmp_path, [[1.0], [0.0], [0.0], [1.0], [], [0.0]])
    torment: Any = Nemesis(rig, 1, tmp_path / "faults.jsonl")  # type: ignore[arg-type]
    begin = time.time()
    await torment._is_back("postgres", begin)
    (fault,) = torment.aftermath
    assert rig.looked > 6  # the relapse and the silence were seen, and then the calm
    assert 0.5 <= fault.end - begin < time.time() - begin - 0.4


async def test_redis_is_back_at_its_first_closed_breaker(tmp_path: Path) -> None:
    rig = Rig(tmp_path, [[1.0], [0.0], [1.0]])
    torment: Any = Nemesis(rig, 1, tmp_path / "faults.jsonl")  # type: ignore[arg-type]
    await torment._is_back("redis", time.time())
    assert rig.looked == 2


def test_too_large_is_said_once() -> None:
    """Said of a batch and of its one record again it would be a dead letter by right (tests/unit/test_publisher.py)."""
    assert REFUSALS[TOO_LARGE] == 1
    assert all(times > 1 for code, times in REFUSALS.items() if code != TOO_LARGE)
