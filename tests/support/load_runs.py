"""`plumbline load` as a process of its own, with objectives that a starved machine meets too: what is asked is the verdict, not the speed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from service.dev.state import ROOT

EASY = """
[validity]
generator_cpu = 9.0
slip_p99_ms = {slip}
dropped = 1.0
foreign_cpu = 9.0
[run]
achieved = 0.5
errors = 0.5
shed = 0.5
[routes.default]
p95_ms = {p95}
p99_ms = 60000.0
[saga]
placed_to_paid_p99_s = 600.0
drain_s = 600.0
[spike]
recovery_s = 600.0
[outage]
drain_s = 600.0
[soak]
api_memory_mib = 1e9
connections = 1e9
lag = 1e9
"""


def load(home: Path, out: Path, *words: str, scenario: str = "smoke", slip: float = 60_000, p95: float = 60_000) -> tuple[int, str, dict[str, Any]]:
    """A short run against a running stack: its exit code, what it said, its summary."""
    out.mkdir()
    (out / "slo.toml").write_text(EASY.format(slip=slip, p95=p95))
    command = [sys.executable, "-m", "service", "load", scenario, "--home", str(home), "--rate", "10", "--seconds", "4", "--out", str(out)]
    done = subprocess.run([*command, "--objectives", str(out / "slo.toml"), *words], cwd=ROOT, capture_output=True, text=True, check=False)
    said = json.loads((out / "summary.json").read_text()) if (out / "summary.json").exists() else {}
    return done.returncode, done.stdout + done.stderr, said
