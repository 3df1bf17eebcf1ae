"""A pool of 1, a missing index, a sleep in a handler: each planted in a real stack, each named by the verdict; a healthy one is not accused."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from service.dev.state import ROOT
from tests.support.load_runs import load
from tests.support.servers import free_base_port

pytestmark = pytest.mark.slow
NAMED = {
    "pool-of-1": r"named: A pool that is too small: first to saturate: database pool wait \(after .* of 1 connections in use",
    "missing-index": r"named: A missing index: first to saturate: PostgreSQL reading orders without an index .* rows of `orders` a second",
    "blocked-loop": r"named: A handler that blocks the event loop: first to saturate: the API's event loop, blocked in a handler",
}


def test_three_of_three_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    environment = {**os.environ, "HTTP_PORT": str(free_base_port() - 300), "PLUMBLINE_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "service", "load", "sick", *NAMED, "--kafka", "memory", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    with capsys.disabled():
        print("\n" + "\n".join(line for line in done.stdout.splitlines() if "named: " in line.lower()))
    for name, words in NAMED.items():
        assert re.search(words, done.stdout), f"{name} was not named:\n{done.stdout}{done.stderr[-1_000:]}"
    assert done.returncode == 0
    assert "3 of 3 as they should be" in done.stdout


def test_a_healthy_stack_is_accused_of_none_of_them(stack_home: Path, tmp_path: Path) -> None:
    _, text, said = load(stack_home, tmp_path / "run", "--mix", "buy")
    accused = " ".join(said["saturated_all"])
    assert not re.search(r"pool wait|without an index|blocked in a handler", accused), text
