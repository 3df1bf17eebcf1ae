"""`plumbline capacity`: from business numbers to sizes, by arithmetic alone (docs/capacity.md explains each line).

Little's law for slots and connections, headroom for a lost process, partitions for the slowest group, bytes for a
day, and how long an outage takes to drain. No measurement is made here: what one process can do is an option with
a default that `plumbline load capacity` replaces. Test: `tests/unit/test_capacity.py`.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, fields
from typing import Final

_EVENTS_AN_ORDER: Final = 3  # placed, reserved, paid
_ROW_OVERHEAD: Final = 1.6  # tuple headers, indexes, fill factor: what a row costs above its payload
_ROWS_AN_ORDER: Final = 12  # order, line, key, 3 outbox_sent, 3 timeline, 2 ledger and payment, inbox shared
_ROW_BYTES: Final = 180
_POOL_SHARE: Final = 0.7  # a pool busier than this makes its callers wait
_SECONDS_A_DAY: Final = 86_400
_BACKLOG_CAP: Final = 200_000  # APP_ORDERS_BACKLOG_CAP: events waiting above which creates are shed


@dataclass(frozen=True, slots=True)
class Demand:
    """What the business says, and what one process and one statement take. Rates a second, times in ms, sizes in bytes."""

    tps: float
    peak: float
    payload_bytes: float = 600
    reads_an_order: float = 15
    order_ms: float = 8.0
    read_ms: float = 2.0
    order_connection_ms: float = 4.0
    process_orders: float = 300
    worker_orders: float = 120
    outage_s: float = 600
    pool: int = 10
    budget: int = 180
    slots: int = 64
    replication: int = 3
    retention_d: float = 7


@dataclass(frozen=True, slots=True)
class Size:
    """One line of the answer: the number, its unit, and how it was reached."""

    name: str
    value: float
    unit: str
    because: str
    warning: str = ""


def size(demand: Demand) -> list[Size]:
    """Every line. Raises `ValueError` naming the number that cannot be."""
    _refuse(demand)
    processes = _api_processes(demand)
    workers = math.ceil(demand.peak / demand.worker_orders)
    return [*_requests(demand), *_api(demand, processes), *_database(demand, processes, workers), *_pipeline(demand, workers), *_storage(demand)]


def _refuse(d: Demand) -> None:
    for name in ("tps", "payload_bytes", "order_ms", "process_orders", "worker_orders", "pool", "slots"):
        if getattr(d, name) <= 0:
            raise ValueError(f"{name} must be above 0")
    if d.peak < d.tps:
        raise ValueError(f"the peak ({d.peak:g}/s) is below the average ({d.tps:g}/s)")


def _api_processes(d: Demand) -> int:
    """Enough for the peak when one of them is gone; never fewer than two."""
    return max(2, math.ceil(d.peak / d.process_orders) + 1)


def in_flight(rate: float, took_ms: float) -> float:
    """Little's law: how many are inside at a time."""
    return rate * took_ms / 1000


def drain_s(backlog: float, worked_off: float, arriving: float) -> float:
    """Until a backlog is gone while more arrives; infinite when the workers are no faster than that."""
    return backlog / (worked_off - arriving) if worked_off > arriving else math.inf


def _requests(d: Demand) -> list[Size]:
    a_day = d.tps * _SECONDS_A_DAY
    return [
        Size("orders a day", a_day, "", f"{d.tps:g}/s × 86,400 s"),
        Size("requests at peak", d.peak * (1 + d.reads_an_order), "/s", f"{d.peak:g} orders/s, each with {d.reads_an_order:g} reads"),
    ]


def _api(d: Demand, processes: int) -> list[Size]:
    inside = in_flight(d.peak, d.order_ms) + in_flight(d.peak * d.reads_an_order, d.read_ms)
    a_process = inside / (processes - 1)
    full = "slots are the limit: raise APP_HTTP_IN_FLIGHT or add processes" if a_process > d.slots * _POOL_SHARE else ""
    return [
        Size("in flight at peak", inside, "", f"Little: {d.peak:g}/s × {d.order_ms:g} ms + {d.peak * d.reads_an_order:g}/s × {d.read_ms:g} ms"),
        Size("API processes", processes, "", f"⌈{d.peak:g} ÷ {d.process_orders:g}⌉ + 1, so that one may be lost at peak"),
        Size("slots used a process", a_process, f"of {d.slots}", f"{inside:.1f} ÷ {processes - 1} that are left", full),
    ]


def _database(d: Demand, processes: int, workers: int) -> list[Size]:
    used = in_flight(d.peak, d.order_connection_ms) / (processes - 1)
    opened = (processes + workers + 2) * d.pool
    small = f"the pool is busier than {_POOL_SHARE:.0%}: raise APP_DB_POOL_SIZE or add processes" if used > d.pool * _POOL_SHARE else ""
    above = f"above the budget of {d.budget:g}: smaller pools, a pooler in front, or a larger max_connections" if opened > d.budget else ""
    return [
        Size("connections used a process", used, f"of {d.pool:g}", f"Little: {d.peak:g}/s × {d.order_connection_ms:g} ms ÷ {processes - 1}", small),
        Size("connections opened", opened, f"of {d.budget:g}", f"({processes} API + {workers} workers + relay + reaper) × {d.pool:g}", above),
    ]


def _pipeline(d: Demand, workers: int) -> list[Size]:
    partitions = max(12, 2 ** math.ceil(math.log2(workers)))
    off = workers * d.worker_orders
    backlog = d.peak * d.outage_s
    takes_s = drain_s(backlog, off, d.tps)
    full = f"above the cap of {_BACKLOG_CAP:,} events: creates are refused after {_BACKLOG_CAP / d.peak:.0f} s" if backlog > _BACKLOG_CAP else ""
    never = "" if math.isfinite(takes_s) else "never: the workers are no faster than what arrives; add some"
    return [
        Size("worker processes a group", workers, "", f"⌈{d.peak:g} ÷ {d.worker_orders:g}⌉"),
        Size("partitions", partitions, "", "the next power of two at or above the workers a group, at least 12; more can be added, fewer cannot"),
        Size("backlog of an outage", backlog, "orders", f"{d.outage_s:g} s without Kafka at {d.peak:g}/s", full),
        Size("drained after", takes_s, "s", f"{backlog:g} ÷ ({off:g} − {d.tps:g}) while {d.tps:g}/s go on arriving", never),
    ]


def _storage(d: Demand) -> list[Size]:
    rows_gib = d.tps * _SECONDS_A_DAY * (_ROWS_AN_ORDER * _ROW_BYTES * _ROW_OVERHEAD + d.payload_bytes * (1 + _EVENTS_AN_ORDER)) / 2**30
    kafka_gib = d.tps * _SECONDS_A_DAY * _EVENTS_AN_ORDER * (d.payload_bytes + 400) * d.replication * d.retention_d / 2**30
    order = f"{_ROWS_AN_ORDER} rows × {_ROW_BYTES} B × {_ROW_OVERHEAD:g} + {1 + _EVENTS_AN_ORDER} copies of {d.payload_bytes:g} B"
    return [
        Size("PostgreSQL a day", rows_gib, "GiB", f"an order is {order}"),
        Size(
            "Kafka",
            kafka_gib,
            "GiB",
            f"{_EVENTS_AN_ORDER} events × ({d.payload_bytes:g} + 400 B of headers) × {d.replication} copies × {d.retention_d:g} days",
        ),
        Size(
            "network at peak",
            d.peak * (1 + d.reads_an_order) * (d.payload_bytes + 500) * 8 / 1e6,
            "Mbit/s",
            "every request with its answer and 500 B of headers",
        ),
    ]


def print_sizes(demand: Demand) -> int:
    """The table; 1 when a line has a warning."""
    lines = size(demand)
    for line in lines:
        print(f"{line.name:<28}{_readable(line.value):>12} {line.unit:<8} {line.because}")
        if line.warning:
            print(f"{'':<28}{'!':>12} {line.warning}")
    return int(any(line.warning for line in lines))


def _readable(value: float) -> str:
    if math.isinf(value):
        return "never"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"


def main(arguments: list[str]) -> None:
    """The command line: --tps and --peak, then every other field of `Demand` with its default. Exit 1 on a warning, 2 on nonsense."""
    parser = argparse.ArgumentParser(prog="plumbline capacity", description=__doc__.split("\n\n")[0] if __doc__ else None)
    for field in fields(Demand):
        needed = field.name in {"tps", "peak"}
        option = "--payload" if field.name == "payload_bytes" else f"--{field.name.replace('_', '-')}"
        note = "orders a second" if needed else f"default {field.default}"
        parser.add_argument(option, dest=field.name, type=float, required=needed, default=None if needed else field.default, help=note)
    try:
        raise SystemExit(print_sizes(Demand(**vars(parser.parse_args(arguments)))))
    except ValueError as error:
        parser.error(str(error))
