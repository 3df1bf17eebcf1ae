"""Locust's own page: it opens, shows our options, starts a run of the open model, and the run ends in a verdict and its exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from service.dev.state import ROOT
from tests.support.load_runs import EASY
from tests.support.servers import free_base_port

pytestmark = pytest.mark.slow
_PATIENCE_S = 120.0


def test_a_run_started_in_the_browser_ends_in_the_same_verdict(stack_home: Path, tmp_path: Path) -> None:
    slo, log = tmp_path / "slo.toml", tmp_path / "locust.log"
    slo.write_text(EASY.format(slip=60_000, p95=60_000))
    port = free_base_port()
    command = [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", "--home", str(stack_home), "--objectives", str(slo)]
    command += ["--web-host", "127.0.0.1", "--web-port", str(port), "--seconds", "3", "--exit-code-on-error", "0"]
    with log.open("w") as output:
        locust = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as page:
            until(lambda: answers(page, locust, log), "the page answers", log)
            opened = page.get("/")
            assert "<title>Locust</title>" in opened.text
            assert all(f'"{option}"' in opened.text for option in ("rate", "seconds", "shape", "poisson")), "our options are in its form"
            form = {"user_count": "1", "spawn_rate": "1", "host": "http://192.0.2.7", "rate": "12", "seconds": "3", "shape": "steady"}
            assert page.post("/swarm", data=form).json()["success"]
            until(lambda: page.get("/stats/requests").json()["state"] == "stopped", "the run has ended", log)
            rows = {row["name"]: row["num_requests"] for row in page.get("/stats/requests").json()["stats"]}
        assert rows["Aggregated"] >= 36, "12 arrivals a second for three seconds, from sending"
        assert sum(count for name, count in rows.items() if name.endswith("(from intended)")) >= 36, "and each from when it was due"
        locust.send_signal(signal.SIGINT)
        code = locust.wait(timeout=60)
    finally:
        locust.kill()
        locust.wait()
    said = log.read_text()
    assert "http://192.0.2.7 is not this machine" in said, "a host from the form is refused as one from the command line is"
    assert "verdict: OK (exit 0)" in said, said
    assert code == 0, said


def answers(page: httpx.Client, locust: subprocess.Popen[bytes], log: Path) -> bool:
    assert locust.poll() is None, log.read_text()
    try:
        return page.get("/").status_code == 200
    except httpx.TransportError:
        return False


def until(question, what: str, log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not question():
        assert time.monotonic() < deadline, f"not within {_PATIENCE_S:g} s: {what}\n{log.read_text()}"
        time.sleep(0.05)
