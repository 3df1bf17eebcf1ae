"""Behind the API: relay ÷ raw produce, inventory group ÷ its SQL one by one, and what one order costs through the saga.

Relay, group and floors get the server's core in turn, and work on the same rows. Rates need a broker that is not
the bottleneck: a real Apache Kafka where there is one, else the in-memory broker (the report says which).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from bench.arms import Arm, place_once
from bench.cpu import family, snapshot
from bench.errors import BenchError
from bench.groups import run_groups
from bench.ladder import start_up
from bench.loadgen import run_load
from bench.report import Report
from bench.rounds import CONNECTIONS, measure, ratio
from bench.servers import Rig, await_port, await_ready, pin_others, run_apart, run_tool, start
from bench.statements import top_statements
from service.dev.children import stop
from service.dev.kafka import Broker, open_broker

_EVENTS: Final = 5_000
_RAW_RUNS: Final = 3
_BURST_S: Final = 1.0
_BURSTS: Final = 7
_READING_S: Final = 0.4
_PACED_S: Final = 5.0
_PACED_MOST: Final = 100
_WAIT_S: Final = 90.0
# Orders as the API would have written them, with their events.
_FILL: Final = """
WITH made AS (SELECT uuidv7() AS id, uuidv7() AS event_id, 3 + (n % 900) AS p FROM generate_series(1, {count}) n),
o AS (INSERT INTO orders (id, customer_id, status, version, currency, total_minor) SELECT id, '{owner}', 'placed', 1, 'EUR', 1000 FROM made),
l AS (INSERT INTO order_line (order_id, line_no, sku, quantity, unit_price_minor)
      SELECT id, 1, 'SKU-' || lpad(p::text, 4, '0'), 1, 1000 FROM made)
INSERT INTO outbox (event_id, aggregate_type, aggregate_id, version, type, topic, key, payload, headers)
SELECT event_id, 'order', id::text, 1, 'order.placed', 'orders.events.v1', id::text, convert_to(json_build_object(
    'order_id', id, 'customer_id', '{owner}', 'total_minor', 1000, 'currency', 'EUR',
    'lines', json_build_array(json_build_object('line_no', 1, 'sku', 'SKU-' || lpad(p::text, 4, '0'), 'quantity', 1, 'unit_price_minor', 1000))
)::text, 'UTF8'), '{{}}' FROM made WHERE {publish}
"""


def run_pipeline(rig: Rig, program: Path, report: Report, say: Callable[[str], None]) -> None:
    """Add the pipeline's ratios to the report."""
    broker = start_broker(rig)
    try:
        report.extra["broker is real (1) or in memory (0)"] = float(broker.kind == "real")
        _sql(rig, "TRUNCATE outbox")  # what the HTTP rounds left is not what is measured
        say("whole saga")
        _measure_saga(rig, program, report, say)
        say("relay against raw produce")
        _measure_relay(rig, report)
        say("inventory group against its SQL")
        _measure_group(rig, report)
        say("each group against the raw SQL of its effect")
        stop(rig.processes.pop("relay"), timeout_s=15)
        run_groups(rig, report)
        report.ratios["start_s"] = start_up(rig)
    finally:
        for name in ("worker", "relay", "psp"):
            if name in rig.processes:
                stop(rig.processes.pop(name), timeout_s=15)
        broker.stop()


def start_broker(rig: Rig) -> Broker:
    """A broker beside the rig; its address goes into the environment of what is started afterwards."""
    broker = open_broker("auto", rig.home, rig.base_port + 105)
    broker.start()
    kind = "kafka" if broker.kind == "real" else "memory"
    rig.environment |= {"KAFKA_BOOTSTRAP": broker.bootstrap, "APP_KAFKA_BROKER": kind}
    if broker.kind == "real":
        run_tool(rig, "topics", "topics", "apply")
    pin_others(rig, broker.running().pid)
    return broker


def _measure_relay(rig: Rig, report: Report) -> None:
    for name in ("worker", "relay"):
        stop(rig.processes.pop(name), timeout_s=15)
    _fill(rig, "events", publish=True)
    _sql(rig, "ANALYZE")
    start(rig, "relay", "service", "relay", env={"OPS_PORT": str(rig.base_port + 1001)}, core=rig.server_core)
    relay = _rate(rig, "SELECT count(*) FROM outbox_sent")
    raw = statistics.median(_raw(rig, "produce", _EVENTS) for _ in range(_RAW_RUNS))
    report.extra |= {"relay events/s": relay, "raw produce events/s": raw, "raw consume events/s": _raw(rig, "consume", _EVENTS)}
    report.ratios["relay_vs_raw"] = relay / raw


def _measure_group(rig: Rig, report: Report) -> None:
    start(rig, "worker", "service", "worker", "--group", "inventory", env={"OPS_PORT": str(rig.base_port + 1002)}, core=rig.server_core)
    group = _rate(rig, "SELECT count(*) FROM inbox WHERE consumer = 'inventory'")
    stop(rig.processes.pop("worker"), timeout_s=15)
    _fill(rig, "reserve", publish=False)
    _sql(rig, "ANALYZE")
    sql = _raw(rig, "reserve", _EVENTS)
    report.extra |= {"inventory group events/s": group, "its SQL one by one, events/s": sql}
    report.ratios["group_vs_sql"] = group / sql


def start_saga(rig: Rig) -> None:
    """Provider, relay and one worker of all groups, ready, with a first order through them."""
    start(rig, "relay", "service", "relay", env={"OPS_PORT": str(rig.base_port + 1001)}, core=rig.server_core)
    start(rig, "psp", "service", "fake-psp", "--port", str(rig.base_port + 104))
    await_port(rig, "psp", rig.base_port + 104)
    env = {"OPS_PORT": str(rig.base_port + 1003)}
    start(rig, "worker", "service", "worker", "--all", env=env, core=rig.server_core)
    await_ready(rig, "worker", rig.base_port + 1003)
    place_once(rig)  # groups have joined when the first order is through
    await_unfinished(rig)
    _sql(rig, "ANALYZE")  # plans made for nearly empty tables are not what is measured


def _measure_saga(rig: Rig, program: Path, report: Report, say: Callable[[str], None]) -> None:
    """In bursts, each between two looks at a floor that reads: w0 itself would add orders to the saga, so it is taken from the rounds."""
    start_saga(rig)
    arms = {arm.name: arm for arm in report.arms}
    create, reading = arms["create_all_on"], arms["p1"]
    reading_us = [measure(rig, program, reading, _READING_S).server_us]
    shares_ms: list[dict[str, float]] = []
    rates: list[float] = []
    for _ in range(_BURSTS):
        shares, per_s = _burst(rig, program, create)
        shares_ms.append(shares)
        rates.append(per_s)
        reading_us.append(measure(rig, program, reading, _READING_S).server_us)
    capacity, spent_ms = statistics.median(rates), [sum(shares.values()) for shares in shares_ms]
    in_readings = statistics.median(1000 * ms / statistics.mean(around) for ms, around in zip(spent_ms, pairwise(reading_us), strict=True))
    report.ratios["saga_cpu_ms"] = statistics.median(spent_ms)
    report.ratios["saga_vs_w0"] = in_readings / ratio(report.series["w0"], report.series["p1"])
    report.extra["CPU of one order, whole saga, ms"] = report.ratios["saga_cpu_ms"]
    report.extra |= {f"of it {name}, ms": statistics.median(shares[name] for shares in shares_ms) for name in shares_ms[0]}
    report.extra["saga orders/s, one worker process"] = capacity
    say("half load")
    _measure_half_load(rig, program, report, create, min(capacity / 2, _PACED_MOST))
    say("top statements")
    report.statements = top_statements(rig, lambda: _paced(rig, program, create, 20.0, 3.0), lambda: await_unfinished(rig))


def _burst(rig: Rig, program: Path, create: Arm) -> tuple[dict[str, float], float]:
    """Milliseconds of CPU an order by part, and orders a second, of a second's orders from the first to the last one paid."""
    before = _spent_ns(rig)
    begin = time.monotonic()
    load = run_load(program, port=create.port, connections=CONNECTIONS, seconds=_BURST_S, frames=create.frames, status=201, core=rig.other_core)
    await_unfinished(rig)
    per_s = load.good / (time.monotonic() - begin)
    return {name: (now - before.get(name, 0)) / 1e6 / load.good for name, now in _spent_ns(rig).items()}, per_s


def _spent_ns(rig: Rig) -> dict[str, int]:
    """CPU so far by part of the system; sessions that ended meanwhile are left out."""
    parts = {name: [rig.pid(name)] for name in ("api", "relay", "worker")}
    parts |= {"postgres": family(rig.postgres.running().pid), "redis": [rig.redis.running().pid]}
    return {name: sum(snapshot(pids).values()) for name, pids in parts.items()}


def _measure_half_load(rig: Rig, program: Path, report: Report, create: Arm, per_s: float) -> None:
    since = _sql(rig, "SELECT now()").strip()
    _paced(rig, program, create, per_s, _PACED_S)
    await_unfinished(rig)
    percentile = "percentile_cont({share}) WITHIN GROUP (ORDER BY extract(epoch FROM {span}) * 1000)"
    sent = percentile.format(share="ARRAY[0.5, 0.99]", span="sent_at - created_at")
    paid = percentile.format(share="0.5", span="updated_at - created_at")
    p50, p99 = _sql(rig, f"SELECT array_to_string({sent}, ' ') FROM outbox_sent WHERE created_at > '{since}'").split()
    report.ratios["commit_to_kafka_p50_ms"], report.ratios["commit_to_kafka_p99_ms"] = float(p50), float(p99)
    p50 = _sql(rig, f"SELECT {paid} FROM orders WHERE status = 'paid' AND created_at > '{since}'")
    report.ratios["placed_to_paid_p50_ms"] = float(p50)
    report.extra["half load, orders/s"] = per_s


def _paced(rig: Rig, program: Path, create: Arm, per_s: float, seconds: float) -> None:
    """Place orders at a steady rate, each on time whether or not the one before was answered."""
    run_load(
        program, port=create.port, connections=CONNECTIONS, seconds=seconds, frames=create.frames, status=create.status,
        core=rig.other_core, rate=per_s,
    )  # fmt: skip


def _fill(rig: Rig, owner: str, *, publish: bool) -> None:
    _sql(rig, _FILL.format(count=_EVENTS, owner=owner, publish=str(publish).lower()))


def _rate(rig: Rig, count: str) -> float:
    """Events a second while `count` grows by `_EVENTS`, from the first to the last growth seen."""
    start_count = int(_sql(rig, count))
    first: tuple[float, int] | None = None
    deadline = time.monotonic() + _WAIT_S
    while True:
        now, done = time.monotonic(), int(_sql(rig, count)) - start_count
        if first is None and done:
            first = (now, done)
        if first is not None and done >= _EVENTS:
            return (done - first[1]) / max(now - first[0], 1e-3) if done > first[1] else done / 0.1
        if now > deadline:
            raise BenchError(f"only {done} of {_EVENTS} events were handled in {_WAIT_S:g} s: see the logs of relay and worker")
        time.sleep(0.02)


def await_unfinished(rig: Rig) -> None:
    """Wait until no order is on its way and the outbox is empty."""
    time.sleep(0.2)  # an order that was just placed is in the outbox by now
    query = """SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM orders o WHERE o.status IN ('placed', 'reserved')
               AND EXISTS (SELECT FROM outbox_sent s WHERE s.aggregate_id = o.id::text))"""
    deadline = time.monotonic() + _WAIT_S
    while int(_sql(rig, query)):
        if time.monotonic() > deadline:
            raise BenchError(f"orders were still on their way after {_WAIT_S:g} s: see worker.log")
        time.sleep(0.1)


def _raw(rig: Rig, work: str, count: int) -> float:
    return float(run_apart(rig, "bench.raw", work, count, timeout_s=120))


def _sql(rig: Rig, query: str) -> Any:
    return rig.postgres.run("psql", "-XAtqc", query)
