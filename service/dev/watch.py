"""`plumbline watch`: the running stack at a glance, from the metrics of its processes and the orders in PostgreSQL.

What it shows is what the dashboards show; it needs no Prometheus. A process that does not answer is named, not hidden.
Exit 0, or 2 when no stack runs here. Test: tests/stories/test_the_stack_can_be_watched.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from service.dev.state import read_stack

_EVERY_S: Final = 1.0
_CLEAR: Final = "\x1b[H\x1b[2J"
_STATES: Final = ("closed", "half-open", "OPEN")
_WATCHED: Final = frozenset({"api", "relay", "reaper", "worker"})
Labels = dict[str, str]


@dataclass(slots=True)
class Frame:
    """One look: samples of all processes, orders by status, who did not answer."""

    at: float
    samples: list[tuple[str, Labels, float]] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)
    silent: list[str] = field(default_factory=list)

    def pick(self, name: str, **wanted: str) -> list[float]:
        """The values of a metric whose labels match."""
        return [value for found, labels, value in self.samples if found == name and wanted.items() <= labels.items()]

    def total(self, name: str, **wanted: str) -> float:
        return sum(self.pick(name, **wanted))

    def most(self, name: str, **wanted: str) -> float:
        return max(self.pick(name, **wanted), default=0.0)

    def values(self, name: str, label: str) -> list[str]:
        """The values a label takes, sorted."""
        return sorted({labels[label] for found, labels, _ in self.samples if found == name and label in labels})


async def run_watch(home: Path, *, once: bool, say: Callable[[str], None] = print) -> int:
    """Draw every second until interrupted; `once`: two looks a second apart, one picture."""
    processes = [p for p in read_stack(home)["processes"] if p["role"] in _WATCHED and p["ops_url"]]
    database = await asyncpg.connect(read_stack(home)["urls"]["database"])
    try:
        async with httpx.AsyncClient(timeout=2) as http:
            before = await _look(http, database, processes)
            while True:
                await asyncio.sleep(_EVERY_S)
                now = await _look(http, database, processes)
                say(("" if once else _CLEAR) + "\n".join(picture(before, now)))
                if once:
                    return 0
                before = now
    finally:
        await database.close()


async def _look(http: httpx.AsyncClient, database: Any, processes: Iterable[dict[str, Any]]) -> Frame:
    frame = Frame(time.monotonic())
    frame.statuses = dict(await database.fetch("SELECT status, count(*) FROM orders GROUP BY status ORDER BY status"))
    for process in processes:
        try:
            page = (await http.get(f"{process['ops_url']}/metrics")).text
        except httpx.HTTPError:
            frame.silent.append(process["name"])
            continue
        for family in text_string_to_metric_families(page):  # type: ignore[no-untyped-call]
            frame.samples += [(sample.name, sample.labels, sample.value) for sample in family.samples]
    return frame


def picture(before: Frame, now: Frame) -> list[str]:
    """The lines of one picture; rates are between the two looks."""
    passed_s = max(0.001, now.at - before.at)

    def rate(name: str, **wanted: str) -> float:
        return max(0.0, now.total(name, **wanted) - before.total(name, **wanted)) / passed_s

    statuses = "  ".join(f"{status} {count}" for status, count in now.statuses.items()) or "none yet"
    return [
        f"plumbline watch  {time.strftime('%H:%M:%S')}" + (f"   ! no answer from {', '.join(now.silent)}" if now.silent else ""),
        f"orders    {statuses}",
        "",
        f"{'route':<40}{'a second':>10}{'5xx':>8}{'p50 ≤ ms':>9}{'p99 ≤ ms':>9}",
        *_routes(before, now, rate),
        "",
        _gates(now, rate),
        "cache     " + ("   ".join(_hits(now)) or "not used yet"),
        _outbox(now, rate),
        "",
        f"{'group':<22}{'handled/s':>10}{'lag':>7}{'oldest s':>10}{'held':>6}{'paused':>8}{'dead, open':>12}",
        *_groups(now, rate),
        "",
        _health(now, rate),
    ]


def _gates(now: Frame, rate: Callable[..., float]) -> str:
    parts = (
        f"in flight {now.total('orders_admission_in_flight'):.0f} of {now.total('orders_admission_limit'):.0f}",
        f"pool {now.total('orders_db_pool_in_use'):.0f} of {now.total('orders_db_pool_size'):.0f}",
        f"shed {rate('orders_shed_total'):.1f}/s",
        f"limited {rate('orders_limit_decisions_total', outcome='denied'):.1f}/s",
        f"replayed {rate('orders_idempotency_outcomes_total', outcome='replayed'):.1f}/s",
    )
    return "   ".join(parts)


def _outbox(now: Frame, rate: Callable[..., float]) -> str:
    waiting = f"{now.most('orders_outbox_rows'):.0f} waiting, oldest {now.most('orders_outbox_oldest_age_seconds'):.1f} s"
    return f"outbox    {waiting}   published {rate('orders_outbox_published_total'):.1f}/s   relays {now.total('orders_relay_active'):.0f}"


def _health(now: Frame, rate: Callable[..., float]) -> str:
    breakers = [
        f"{name} {_STATES[int(now.most('orders_breaker_state', dependency=name))]}" for name in now.values("orders_breaker_state", "dependency")
    ]
    lost = rate("orders_spans_dropped_total") + rate("orders_log_dropped_total")
    return "   ".join(("breakers ", *breakers, f"telemetry lost {lost:.1f}/s", f"heartbeat {now.most('orders_heartbeat_age_seconds'):.1f} s"))


def _routes(before: Frame, now: Frame, rate: Callable[..., float]) -> list[str]:
    name, lines = "orders_http_requests_total", []
    for route in now.values(name, "route"):
        for method in sorted({labels["method"] for found, labels, _ in now.samples if found == name and labels["route"] == route}):
            failed = sum(rate(name, route=route, method=method, status=status) for status in now.values(name, "status") if status[0] == "5")
            spread = [1000 * _quantile(q, before, now, route=route, method=method) for q in (0.5, 0.99)]
            lines.append(f"{method + ' ' + route:<40}{rate(name, route=route, method=method):>10.1f}{failed:>8.1f}{spread[0]:>9.1f}{spread[1]:>9.1f}")
    return lines


def _groups(now: Frame, rate: Callable[..., float]) -> list[str]:
    lines = []
    for group in now.values("orders_consumer_lag", "group"):
        base, _, tier = group.partition(".")
        handled = "" if tier else f"{rate('orders_records_total', group=base):.1f}"
        dead = "" if tier else f"{now.total('orders_dead_letters_total', group=base):.0f}, {now.most('orders_dead_letters_open', group=base):.0f}"
        numbers = f"{now.total('orders_consumer_lag', group=group):>7.0f}{now.most('orders_consumer_oldest_due_seconds', group=group):>10.1f}"
        paused = "yes" if now.most("orders_consumer_paused", group=group) else "no"
        lines.append(f"{group:<22}{handled:>10}{numbers}{now.total('orders_tier_held_partitions', group=group):>6.0f}{paused:>8}{dead:>12}")
    return lines


def _hits(now: Frame) -> list[str]:
    found = []
    for entity in now.values("orders_cache_requests_total", "entity"):
        asked = now.total("orders_cache_requests_total", entity=entity)
        hits = sum(now.total("orders_cache_requests_total", entity=entity, outcome=outcome) for outcome in ("hit", "stale", "negative"))
        found.append(f"{entity} {hits / asked:.0%} of {asked:.0f}")
    return found


def _quantile(q: float, before: Frame, now: Frame, **wanted: str) -> float:
    """The bucket bound under which `q` of the requests between the looks fell, in seconds; of all there ever were if none did."""
    name = "orders_http_request_duration_seconds_bucket"
    bounds = sorted(now.values(name, "le"), key=float)
    for counts in (
        [now.total(name, le=le, **wanted) - before.total(name, le=le, **wanted) for le in bounds],
        [now.total(name, le=le, **wanted) for le in bounds],
    ):
        if counts and counts[-1] > 0:
            bound = next(le for le, count in zip(bounds, counts, strict=True) if count >= q * counts[-1])
            return float(bound)
    return 0.0


def watch(home: Path, *, once: bool) -> int:
    """As a command: Ctrl-C ends it."""
    with suppress(KeyboardInterrupt):
        return asyncio.run(run_watch(home, once=once))
    return 0
