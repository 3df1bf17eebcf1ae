"""Flame graphs of the API and of a worker under load: where their CPU goes, by Python function.

py-spy samples from outside, so the measured process runs as it always does. It is installed once into `build/bench`
from requirements/bench.txt (pinned by hash). Writes `bench/results/profile-{api,worker}.svg`.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench import arms as arm_table
from bench.apart import installed
from bench.arms import Arm
from bench.errors import BenchError
from bench.loadgen import compile_generator, run_load
from bench.pipeline import await_unfinished, start_broker, start_saga
from bench.report import RESULTS
from bench.rounds import CONNECTIONS
from bench.servers import Rig, running_rig
from service.dev.children import stop

_RATE_HZ: Final = 250
_API_S: Final = 6.0
_ORDERS_S: Final = 2.0


def profile(say: Callable[[str], None]) -> list[Path]:
    """Make both pictures; answers their files. Raises `BenchError` when the profiler cannot be had or may not look."""
    profiler, program = installed("bench", "py-spy", say) / "py-spy", compile_generator()
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with running_rig() as rig:
        arms = {arm.name: arm for arm in arm_table.prepare(rig)}
        say("API: creates and cached reads")
        api = _record(profiler, rig.pid("api"), RESULTS.with_name("profile-api.svg"), lambda: _mixed_load(rig, program, arms))
        rig.postgres.run("psql", "-XAtqc", "TRUNCATE outbox")
        broker = start_broker(rig)
        try:
            start_saga(rig)
            say("worker: all groups, orders on their way to paid")
            target = RESULTS.with_name("profile-worker.svg")
            worker = _record(profiler, rig.pid("worker"), target, lambda: _orders(rig, program, arms["create_all_on"]))
        finally:
            for name in ("worker", "relay", "psp"):
                if name in rig.processes:
                    stop(rig.processes.pop(name), timeout_s=15)
            broker.stop()
    return [api, worker]


def _mixed_load(rig: Rig, program: Path, arms: dict[str, Arm]) -> None:
    for name in ("create_all_on", "get_cached_all_on"):
        _load(rig, program, arms[name], _API_S / 2)


def _orders(rig: Rig, program: Path, create: Arm) -> None:
    _load(rig, program, create, _ORDERS_S)
    await_unfinished(rig)


def _load(rig: Rig, program: Path, arm: Arm, seconds: float) -> None:
    run_load(program, port=arm.port, connections=CONNECTIONS, seconds=seconds, frames=arm.frames, status=arm.status, core=rig.other_core)


def _record(profiler: Path, pid: int, target: Path, act: Callable[[], None]) -> Path:
    """Sample `pid` while `act` runs; interrupted, py-spy writes its picture."""
    command = [str(profiler), "record", "--pid", str(pid), "--rate", str(_RATE_HZ), "--duration", "600", "--output", str(target), "--nonblocking"]
    sampling = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    act()
    stop(sampling, how=2, timeout_s=30)  # type: ignore[arg-type]
    said = sampling.communicate()[0]
    picture = target.read_text() if target.exists() else ""
    if "<svg" not in picture[:2000]:
        raise BenchError(f"py-spy made no picture: {said.strip()[-300:]}; it needs the right to trace (root, or kernel.yama.ptrace_scope=0)")
    # py-spy's title is its command line.
    target.write_text(re.sub(r'(<text id="title"[^>]*>)[^<]*', rf"\g<1>{target.stem}", picture))
    return target
