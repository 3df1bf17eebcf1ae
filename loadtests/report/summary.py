"""`summary.json`: everything a later `diff` or reader needs — host, commit, settings, numbers, checks, timelines."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import psutil

from loadtests import saturation, verdict
from loadtests.run import Run

ROOT: Final = Path(__file__).resolve().parents[2]
_MARKS: Final = (0.5, 0.9, 0.95, 0.99, 0.999)


def summarise(run: Run, *, profile: str = "") -> dict[str, Any]:
    """Plain data of one judged run."""
    recorder, saturated = run.recorder, run.saturated
    routes = {}
    for name, route in recorder.routes.items():
        seen = route.intended if run.plan.open_model and route.intended.total else route.raw
        routes[name] = {
            "requests": route.raw.total, "failed": route.failed, "outcomes": dict(route.outcomes), "errors": route.errors,
            "ms": {f"p{mark * 100:g}": seen.percentile(mark) for mark in _MARKS} | {"max": seen.highest},
            "raw_ms": {f"p{mark * 100:g}": route.raw.percentile(mark) for mark in _MARKS} | {"max": route.raw.highest},
        }  # fmt: skip
    done = recorder.dispatch
    return {
        "scenario": run.plan.name, "exit": run.code, "verdict": verdict.NAMES[run.code], "began": run.began.isoformat(timespec="seconds"),
        "host": host(), "commit": commit(), "profile": profile, "plan": run.plan.to_json(),
        "latency_from": "intended" if run.plan.open_model else "sending",
        "dispatch": {"offered": done.offered, "started": done.started, "served": done.served, "dropped": done.dropped,
                     "slip_p99_ms": done.slip_ms.percentile(0.99), "generator_cpu": recorder.cpu_share, "foreign_cpu": run.foreign_cpu},
        "routes": routes, "truth": run.truth.to_json() if run.truth else None, "extra": run.extra,
        "checks": [check.to_json() for check in run.checks],
        "saturated": str(saturated) if saturated else None,
        "saturated_all": [str(found) for found in saturation.all_saturated(run.during, cores=os.cpu_count() or 1)],
        "timeline": recorder.timeline(), "samples": [{"t": s.at_s, **s.values, "rows_read": s.rows_read} for s in run.samples],
        "recorder": recorder.to_json(),
    }  # fmt: skip


def write(summary: dict[str, Any], folder: Path) -> Path:
    """Write `summary.json` into the folder."""
    path = folder / "summary.json"
    path.write_text(json.dumps(summary, indent=1, default=str))
    return path


def host() -> dict[str, Any]:
    """What it ran on, as far as it matters to a number."""
    model = next((line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    memory_gib = round(psutil.virtual_memory().total / 2**30, 1)
    return {"cpu": model, "cores": os.cpu_count(), "memory_gib": memory_gib, "kernel": platform.release(), "python": platform.python_version()}


def commit() -> str:
    """The work tree's commit, with + when it was changed."""
    try:
        head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
        dirty = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if dirty else "")


def _lines(path: str) -> Sequence[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return ()
