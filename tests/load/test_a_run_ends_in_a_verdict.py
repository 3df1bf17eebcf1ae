"""`plumbline load` on a real stack: the same run is 0, 1, 2 or 3, as its objectives and the truth in the database want it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from loadtests import verdict
from loadtests.plan import SCENARIOS
from service.dev.state import ROOT, read_stack
from tests.support.load_runs import EASY, load

pytestmark = pytest.mark.slow  # a stack of its own; what a push runs of it is tests/stories/test_a_load_run_ends_in_a_verdict.py


def test_a_missed_objective_is_1(stack_home: Path, tmp_path: Path) -> None:
    code, text, _ = load(stack_home, tmp_path / "run", "--rate", "25", p95=0.001)  # of fewer than twenty answers no p95 is judged
    assert code == 1, text
    assert "verdict: OBJECTIVE MISSED (exit 1): GET /v1/products p95" in text


def test_a_late_generator_is_2(stack_home: Path, tmp_path: Path) -> None:
    code, text, _ = load(stack_home, tmp_path / "run", slip=0, p95=0.001)
    assert code == 2, text
    assert "verdict: INVALID (exit 2): dispatch slip p99" in text


async def test_a_broken_invariant_is_3_whatever_else_was(stack_home: Path, tmp_path: Path) -> None:
    connection = await asyncpg.connect(read_stack(stack_home)["urls"]["database"])
    try:
        await connection.execute("UPDATE stock SET available = available + 1 WHERE sku = 'SKU-0700'")
        code, text, said = load(stack_home, tmp_path / "run", slip=0, p95=0.001)
        await connection.execute("UPDATE stock SET available = available - 1 WHERE sku = 'SKU-0700'")
    finally:
        await connection.close()
    assert code == 3, text
    assert "verdict: INVARIANT BROKEN (exit 3): G1" in text
    assert "SKU-0700" in text
    assert said["exit"] == verdict.BROKEN


@pytest.mark.parametrize("name", sorted(SCENARIOS.keys() - {"smoke"}))
def test_every_scenario_runs_to_its_verdict(name: str, stack_home: Path, tmp_path: Path) -> None:
    """Small and with easy objectives: that each does what it is for is asked of the machine at hand, by a person."""
    plan = SCENARIOS[name]
    code, text, said = load(stack_home, tmp_path / "run", "--seconds", "12" if plan.cut else "4", scenario=name)
    assert code == 0, text
    assert (said["scenario"], said["plan"]["shape"], said["plan"]["mix"], said["plan"]["cut"]) == (name, plan.shape, plan.mix, plan.cut)
    assert said["extra"]["cuts"] == bool(plan.cut), "the dependency was away once, and nobody else's was"


def test_plain_locust_ends_in_the_same_verdict(stack_home: Path, tmp_path: Path) -> None:
    slo = tmp_path / "slo.toml"
    slo.write_text(EASY.format(slip=60_000, p95=60_000))
    base = [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", "--headless", "--home", str(stack_home), "--exit-code-on-error", "0"]
    base += ["--only-summary", "--rate", "8", "--seconds", "3", "--objectives", str(slo)]
    done = subprocess.run([*base, "-u", "1"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok    invariant  I2" in done.stdout
    assert "(from intended)" in done.stderr + done.stdout, "locust's own table has both rows"
    closed = subprocess.run([*base, "--model", "closed", "-u", "3"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert closed.returncode == 0, closed.stdout + closed.stderr
    assert "from sending" in closed.stdout


@pytest.mark.parametrize("words", [["--host", "http://192.0.2.7"], ["--host", "http://192.0.2.7", "--tokens", "/dev/null"]])
def test_a_strangers_host_is_refused(words: list[str], tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "service", "load", "smoke", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--i-own" in done.stderr
