"""The HTTP ladder: floors and the service's arms in interleaved rounds, and pgbench on the same statement."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench import arms as arm_table
from bench.cpu import rss_mib
from bench.errors import BenchError
from bench.report import Report
from bench.rounds import ratio, run_pgbench, run_rounds
from bench.servers import Rig, await_ready, start
from service.dev.children import stop

FLOORS: Final = ("w0", "p1", "list_raw")
_PAIRS: Final = (("create_all_on", "w0"), ("get_cached_all_on", "p1"), ("get_304", "p1"), ("list_20", "list_raw"))


def climb(rig: Rig, program: Path, *, mode: str, rounds: int, seconds: float, pgbench_runs: int, say: Callable[[str], None]) -> Report:
    """Measure every arm; the report's ratios are medians of per-round ratios."""
    arms = arm_table.prepare(rig)
    missing = arm_table.missing_features(rig)
    say(f"{len(arms)} arms, {rounds} rounds of {seconds:g} s each")
    series = run_rounds(rig, program, arms, rounds=rounds, seconds=seconds, say=say)
    for arm in arms:
        if series[arm.name].median("generator_us") > series[arm.name].median("server_us"):
            raise BenchError(f"the load generator costs more than {arm.name}'s server: its figures would be worthless")
    report = Report(mode, arms, series, missing=missing)
    report.spreads = {name: series[name].spread() for name in FLOORS}
    report.ratios = {"self": ratio(series["w0_again"], series["w0"]), **{name: ratio(series[name], series[floor]) for name, floor in _PAIRS}}
    say(f"pgbench, {pgbench_runs} s")
    pgbench = statistics.median(run_pgbench(rig, 1) for _ in range(pgbench_runs))
    report.extra["pgbench orders/s"] = pgbench
    report.ratios["orders_vs_pgbench"] = series["create_all_on"].median("per_s") / pgbench
    report.ratios["api_rss_mib"] = rss_mib(rig.pid("api"))
    return report


def start_up(rig: Rig) -> float:
    """Seconds from `serve` to ready, a second API process beside the first; the least disturbed of five."""
    taken = []
    for number in range(5):
        name, port = f"start-{number}", rig.base_port + 109
        begin = time.monotonic()
        process = start(rig, name, "service", "serve", env={"HTTP_PORT": str(port), "OPS_PORT": str(port + 1000)}, core=rig.server_core)
        await_ready(rig, name, port + 1000)
        taken.append(time.monotonic() - begin)
        stop(process, timeout_s=10)
        del rig.processes[name]
    return min(taken)
