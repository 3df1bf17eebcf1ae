"""The outside view while a run goes on: the service's own metrics, CPU by role from /proc, and what PostgreSQL waits for.

A thread samples twice a second; a process that does not answer leaves a gap, never an error. How long `/metrics`
takes is itself a measurement: it is answered by the same event loop as the requests. What needs a look at this
machine (CPU) is left out for a service elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import re
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import asyncpg
import httpx
import psutil

from service.dev.state import read_stack

_EVERY_S: Final = 0.5
_SCRAPE_TIMEOUT_S: Final = 2.0
_SERVERS: Final = frozenset({"postgres", "redis", "kafka", "psp", "issuer"})
_PG: Final = """
    SELECT count(*) FILTER (WHERE state = 'active') AS active, count(*) FILTER (WHERE wait_event_type = 'Lock') AS locked,
        count(*) FILTER (WHERE state = 'active' AND wait_event_type = 'IO') AS io, count(*) AS connections
    FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
"""
# Rows read by walking the table, or by walking an index that was made for something else.
_SCANS: Final = "SELECT relname, seq_tup_read + coalesce(idx_tup_fetch, 0) AS rows_read, n_dead_tup FROM pg_stat_user_tables"


_LINE: Final = re.compile(r"^(orders_\w+)(?:\{([^}]*)\})? (\S+)$", re.MULTILINE)


def _label(labels: str, name: str) -> str:
    found = re.search(rf'(?:^|,){name}="([^"]*)"', labels)
    return found[1] if found else ""


@dataclass(slots=True)
class Sample:
    """Half a second. Rates are a second; `*_ms` are means over it. Keys that could not be had are absent."""

    at_s: float
    values: dict[str, float] = field(default_factory=dict)
    rows_read: dict[str, float] = field(default_factory=dict)

    def get(self, name: str, default: float = 0.0) -> float:
        return self.values.get(name, default)


class Scrape:
    """One process' metrics: totals summed over labels, and histograms' buckets. Only ours are read: the watcher must stay cheap."""

    def __init__(self, text: str) -> None:
        self.totals: dict[str, float] = defaultdict(float)
        self.by_group: dict[tuple[str, str], float] = defaultdict(float)
        self.buckets: dict[str, dict[float, float]] = defaultdict(lambda: defaultdict(float))
        for name, labels, number in _LINE.findall(text):
            value = float(number)
            if name.endswith("_bucket"):
                self.buckets[name.removesuffix("_bucket")][float(_label(labels, "le"))] += value
                continue
            self.totals[name] += value
            if name == "orders_consumer_lag":
                self.by_group[name, _label(labels, "group")] += value

    def quantile_ms(self, name: str, share: float, before: Scrape | None = None) -> float:
        """The upper bound of the bucket that holds it, of what was observed since `before`; 0 if nothing was."""
        old = before.buckets.get(name, {}) if before else {}
        grown = {bound: count - old.get(bound, 0) for bound, count in sorted(self.buckets.get(name, {}).items())}
        total = max(grown.values(), default=0)
        bounds = [bound for bound, count in grown.items() if count >= share * total and bound != float("inf")]
        return 1000 * (bounds[0] if bounds else max((bound for bound in grown if bound != float("inf")), default=0)) if total else 0.0


class CpuClock:
    """CPU seconds by role, and the machine's, between two looks."""

    def __init__(self, generator: Iterable[int] = ()) -> None:
        self._generator = tuple(generator)
        self._last: dict[str, float] = {}
        self._cores = os.cpu_count() or 1

    def look(self, pids: Mapping[str, list[int]]) -> dict[str, float]:
        """Role → cores used since the last look; also `machine` (busy cores), `foreign` (share of the machine not ours)."""
        times = psutil.cpu_times()
        spent = {role: sum(_cpu_of(pid) for pid in found) for role, found in pids.items()}
        spent["generator"] = sum(_cpu_of(pid) for pid in self._generator)
        spent["watcher"] = time.process_time()
        now = {**spent, "busy": sum(times) - times.idle - getattr(times, "iowait", 0) - getattr(times, "guest", 0), "clock": time.monotonic()}
        last, self._last = self._last, now
        if not last:
            return {}
        wall = now["clock"] - last["clock"]
        used = {role: max(0.0, now[role] - last.get(role, now[role])) / wall for role in now if role != "clock"}
        ours = sum(value for role, value in used.items() if role != "busy")
        machine = min(float(self._cores), used.pop("busy"))
        return used | {"machine": machine, "foreign": max(0.0, machine - ours) / self._cores}


class RunQueue:
    """How long processes were ready to run and had no core: what tells a starved process from a sleeping one."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[float, float]] = {}

    def look(self, pids: Iterable[int]) -> float:
        """Of the time since the last look, the largest share one of them waited for a core."""
        shares = [0.0]
        for pid in pids:
            try:
                waited_s = int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
            except (OSError, ValueError, IndexError):
                continue
            now, last = time.monotonic(), self._last.get(pid)
            self._last[pid] = (now, waited_s)
            if last is not None and now > last[0]:
                shares.append((waited_s - last[1]) / (now - last[0]))
        return max(shares)


def _cpu_of(pid: int) -> float:
    """CPU seconds of a process and its children, living and reaped."""
    try:
        process = psutil.Process(pid)
        own = process.cpu_times()
        total = own.user + own.system + own.children_user + own.children_system
        for child in process.children(recursive=True):
            times = child.cpu_times()
            total += times.user + times.system
    except psutil.Error:
        return 0.0
    return float(total)


class Watcher:
    """Use as a context manager around a run on a stack of `home`. `generator`: its process ids; `beside`: as in `Target`."""

    def __init__(self, home: Path, *, generator: Iterable[int] = (), beside: Sequence[Mapping[str, Any]] = ()) -> None:
        self.samples: list[Sample] = []
        self.begun_at = 0.0
        self._home, self._beside = home, beside
        self._stack = self._read_stack()
        self._cpu = CpuClock(generator)
        self._last: dict[str, Scrape] = {}
        self._scanned: dict[str, float] = {}
        self._delays = RunQueue()
        self._took_s = _EVERY_S
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._watch()), name="watcher", daemon=True)

    def _read_stack(self) -> dict[str, Any]:
        stack = read_stack(self._home)
        own = [process for process in stack["processes"] if process["role"] != "api" or not self._beside]
        return {**stack, "processes": [*own, *self._beside]}

    def __enter__(self) -> Self:
        self.begun_at = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=10)

    def glance(self) -> str:
        """The latest sample in a few words, for the progress line."""
        if not self.samples:
            return ""
        s = self.samples[-1]
        cpu = f"CPU {s.get('cpu_machine'):.1f} (foreign {s.get('cpu_foreign'):.0%})"
        return f"   in flight {s.get('in_flight'):3.0f}  pool {s.get('pool_share'):4.0%}  lag {s.get('lag'):4.0f}  {cpu}"

    async def _watch(self) -> None:
        connection: Any = None
        async with httpx.AsyncClient(timeout=_SCRAPE_TIMEOUT_S) as http:
            before = time.monotonic() - _EVERY_S
            while not self._stop.is_set():
                due = time.monotonic() + _EVERY_S
                self._took_s, before = time.monotonic() - before, time.monotonic()
                sample = Sample(round(time.monotonic() - self.begun_at, 2))
                connection = await self._ask_postgres(connection, sample)
                await self._scrape_all(http, sample)
                self._look_at_cpu(sample)
                self.samples.append(sample)
                await asyncio.sleep(max(0.0, due - time.monotonic()))
        if connection is not None:
            await connection.close()

    def _look_at_cpu(self, sample: Sample) -> None:
        pids: dict[str, list[int]] = defaultdict(list)
        try:
            self._stack = self._read_stack()  # a killed process has a successor
        except Exception:  # noqa: BLE001 - being replaced at this moment
            return
        for process in self._stack["processes"]:
            pids[process["role"]].append(process["pid"])
        for role, cores in self._cpu.look(pids).items():
            sample.values[f"cpu_{role}"] = round(cores, 3)
        sample.values["starved_api"] = round(self._delays.look(pids["api"]), 3)
        memory = [psutil.Process(pid).memory_info().rss for pid in pids["api"] if psutil.pid_exists(pid)]
        sample.values["api_memory_mib"] = sum(memory) / 2**20
        sample.values["api_processes"] = len(pids["api"])

    async def _scrape_all(self, http: httpx.AsyncClient, sample: Sample) -> None:
        processes = [process for process in self._stack["processes"] if process["ops_url"]]
        answers = await asyncio.gather(*(_get(http, process["ops_url"]) for process in processes))
        # The other processes' pages are the control: on a busy machine everybody is late, not only the API.
        others = [late_ms for process, (late_ms, _) in zip(processes, answers, strict=True) if process["role"] != "api"]
        usual_ms = statistics.median(others) if others else 0.0
        for process, (late_ms, text) in zip(processes, answers, strict=True):
            if process["role"] == "api":
                sample.values["loop_ms"] = max(sample.get("loop_ms"), late_ms - usual_ms)
            if text:
                self._read(process, Scrape(text), sample)

    def _read(self, process: Mapping[str, Any], now: Scrape, sample: Sample) -> None:
        before, self._last[process["name"]] = self._last.get(process["name"]), now
        if process["role"] == "api":
            _api(sample, now, before, self._took_s)
        elif process["role"] == "relay":
            sample.values["outbox_rows"] = max(sample.get("outbox_rows"), now.totals["orders_outbox_rows"])
            sample.values["outbox_age_s"] = max(sample.get("outbox_age_s"), now.totals["orders_outbox_oldest_age_seconds"])
        elif process["role"] == "worker":
            for (_, group), value in now.by_group.items():
                sample.values[f"lag_{group}"] = sample.get(f"lag_{group}") + value
                sample.values["lag"] = sample.get("lag") + value

    async def _ask_postgres(self, connection: Any, sample: Sample) -> Any:
        try:
            if connection is None or connection.is_closed():
                connection = await asyncpg.connect(self._stack["urls"]["database"], timeout=2, command_timeout=2)
            row = await connection.fetchrow(_PG)
            sample.values |= {f"pg_{name}": float(row[name]) for name in ("active", "locked", "io", "connections")}
            tables = await connection.fetch(_SCANS)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return None if connection is None or connection.is_closed() else connection
        sample.values["pg_dead_rows"] = float(sum(row["n_dead_tup"] for row in tables))
        for row in tables:
            grown = row["rows_read"] - self._scanned.get(row["relname"], row["rows_read"])
            sample.rows_read[row["relname"]] = max(0.0, grown) / self._took_s
            self._scanned[row["relname"]] = row["rows_read"]
        return connection


async def _get(http: httpx.AsyncClient, ops_url: str) -> tuple[float, str]:
    """How long it took (ms) and what it said; empty when it did not answer."""
    begin = time.monotonic()
    try:
        text = (await http.get(f"{ops_url}/metrics")).text
    except httpx.HTTPError:
        text = ""
    return (time.monotonic() - begin) * 1000, text


def _api(sample: Sample, now: Scrape, before: Scrape | None, took_s: float) -> None:
    """Of several API processes the worst one's share counts: a queue in front of one is a queue."""

    def grown(name: str) -> float:
        return max(0.0, now.totals[name] - before.totals[name]) if before else 0.0

    size = now.totals["orders_db_pool_size"] or 1
    values = {
        "pool_share": now.totals["orders_db_pool_in_use"] / size,
        "pool_size": size,
        "pool_wait_ms": now.quantile_ms("orders_db_pool_wait_seconds", 0.99, before),
        "slots_share": now.totals["orders_admission_in_flight"] / (now.totals["orders_admission_limit"] or 1),
        "in_flight": now.totals["orders_http_in_flight"],
        "handler_ms": 1000 * grown("orders_http_request_duration_seconds_sum") / (grown("orders_http_request_duration_seconds_count") or 1),
    }
    lag = next((name for name in now.buckets if "loop_lag" in name), None)
    if lag is not None:
        values["loop_lag_ms"] = now.quantile_ms(lag, 0.99, before)
    for name, value in values.items():
        sample.values[name] = max(sample.get(name), value)
    for name, metric in (
        ("pool_waits", "orders_db_pool_wait_seconds_count"),
        ("shed", "orders_shed_total"),
        ("answered", "orders_http_requests_total"),
    ):
        sample.values[name] = sample.get(name) + grown(metric) / took_s
