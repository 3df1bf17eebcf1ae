"""Looks at the victim twice a second from outside: the backlog, open dead letters, memory; and at warm and quiet moments more closely."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import httpx
import psutil

from service.dev.state import read_stack
from tests.faults.checker.evidence import Fault
from tests.torture.rig import POOL, Rig, memory_mib

_EVERY_S = 0.5
_SERIES_EVERY_S = 10.0
_WORK_S = 0.004
_FAILED = "orders_cache_invalidations_failed_total "
_SESSIONS = "SELECT application_name, count(*) FROM pg_stat_activity WHERE application_name LIKE 'orders-%' GROUP BY 1"
_LOOK = """
SELECT (SELECT count(*) FROM outbox) AS outbox, (SELECT count(*) FROM orders WHERE status IN ('placed', 'reserved')) AS unfinished,
       (SELECT count(*) FROM dead_letter WHERE status = 'open') AS dead,
       (SELECT sum(n_dead_tup) FROM pg_stat_user_tables) AS dead_tuples,
       (SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'orders-%') AS sessions
"""


def slowness() -> float:
    """How much longer work takes here than it would on a core of its own: 1 on a quiet machine."""
    wall, cpu = time.perf_counter(), time.thread_time()
    while time.thread_time() - cpu < _WORK_S:
        pass
    return (time.perf_counter() - wall) / _WORK_S


@dataclass(slots=True)
class Watch:
    """Samples by time; a moment at which PostgreSQL did not answer has none. `slow`: the machine itself, then."""

    rig: Rig
    samples: list[dict[str, float]] = field(default_factory=list)
    unheard: list[Fault] = field(default_factory=list)
    slow: list[float] = field(default_factory=list)
    _failed: dict[str, tuple[float, float]] = field(default_factory=dict)
    _counted_at: float = 0.0
    _born: float = field(default_factory=time.time)

    async def run(self) -> None:
        """Until cancelled."""
        connection: asyncpg.Connection[asyncpg.Record] | None = None
        while True:
            sample: dict[str, float] = {"at": time.time()}
            try:
                if connection is None or connection.is_closed():
                    connection = await asyncpg.connect(self.rig.urls["database"], timeout=2, server_settings={"application_name": "watch"})
                row = await connection.fetchrow(_LOOK, timeout=2)
                sample |= {name: float(value) for name, value in row.items()} if row else {}
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                if connection is not None:
                    connection.terminate()
                connection = None
            sample["memory_mib"] = sum(memory_mib(p["pid"]) for p in read_stack(self.rig.home)["processes"] if p["ops_url"])
            if time.monotonic() > self._counted_at + _SERIES_EVERY_S:
                self._counted_at = time.monotonic()
                sample["series"] = float(sum([await _series(self.rig, p["ops_url"]) for p in read_stack(self.rig.home)["processes"] if p["ops_url"]]))
            self.samples.append(sample)
            self.slow.append(slowness())
            await self._invalidations()
            await asyncio.sleep(_EVERY_S)

    async def _invalidations(self) -> None:
        """An invalidation Redis did not take in time (50 ms) is a moment at which Redis failed, whoever made it late.

        What a process counted since it was heard last may have been at any moment since; what it takes into its grave, too.
        """
        began = time.time()
        here = {str(process["pid"]): process["name"] for process in read_stack(self.rig.home)["processes"] if process["role"] == "api"}
        for pid in self._failed.keys() - here.keys():
            self.unheard.append(Fault("process gone uncounted", "redis", self._failed.pop(pid)[0], time.time()))
        for pid, name in here.items():
            asked = time.time()
            answers = await self.rig.metric("api", _FAILED, only=name)
            since, before = self._failed.setdefault(pid, (self._born, 0.0))
            if answers and sum(answers) > before:
                self.unheard.append(Fault("invalidation not taken", "redis", since, time.time()))
            if answers:
                self._failed[pid] = (asked, sum(answers))
        self._born = began  # whoever is met for the first time next was born after this


async def resources(rig: Rig, phase: str) -> list[dict[str, Any]]:
    """X3's evidence: each process's memory, threads, and connections to PostgreSQL; and the server's sessions by application."""
    found = []
    database = rig.proxies["postgres"].port
    for process in read_stack(rig.home)["processes"]:
        if process["ops_url"] is not None:
            with suppress(psutil.Error):
                about = psutil.Process(process["pid"])
                sockets = sum(c.status == psutil.CONN_ESTABLISHED and bool(c.raddr) and c.raddr.port == database for c in about.net_connections())
                found.append({
                    "process": process["name"], "phase": phase, "rss_mib": about.memory_info().rss / 2**20,
                    "tasks": await _tasks(rig, process["ops_url"]), "sockets": sockets,
                })  # fmt: skip
    connection = await asyncpg.connect(rig.urls["database"], timeout=5)
    rows = await connection.fetch(_SESSIONS)
    if phase == "warm":  # a busy machine may have cost it connections already: what it may hold is its pool
        found = [row | {"sockets": max(row["sockets"], POOL)} for row in found]
    found += [_sessions(row[0], row[1], phase, found) for row in rows]
    connection.terminate()
    return found


def _sessions(application: str, count: int, phase: str, processes: list[dict[str, Any]]) -> dict[str, Any]:
    role = application.removeprefix("orders-")
    allowed = POOL * sum(process["process"].startswith(role) for process in processes)
    return {
        "process": f"sessions of {application}",
        "phase": phase,
        "rss_mib": 1.0,
        "tasks": 0,
        "sockets": max(count, allowed) if phase == "warm" else count,
    }


async def _series(rig: Rig, ops_url: str) -> int:
    """How many series a process shows: labels with values that never end would fill a Prometheus."""
    try:
        page = (await rig.http.get(f"{ops_url}/metrics", timeout=2)).text
    except httpx.HTTPError:
        return 0
    return sum(not line.startswith("#") for line in page.splitlines())


async def _tasks(rig: Rig, ops_url: str) -> int:
    try:
        page = (await rig.http.get(f"{ops_url}/metrics", timeout=10)).text
    except httpx.HTTPError:
        return 0  # it does not answer now; readiness is another promise
    return int(next((float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith("orders_event_loop_tasks ")), 0))
