"""What ends a process that stays is the last line of its log, and one JSON object like every other line; what ends a tool says what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.dev.state import ROOT


@pytest.mark.longer
@pytest.mark.parametrize("words", [("relay",), ("worker", "--all")])
def test_a_process_without_its_database_says_so_in_json(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = _without_database(tmp_path, *words)
    assert done.returncode == 2, done.stderr
    said = [json.loads(line) for line in (done.stdout + done.stderr).splitlines()]
    assert said[-1]["event"] == "process.ended"
    assert "PostgreSQL cannot be reached" in said[-1]["error"]


@pytest.mark.longer
def test_a_tool_without_its_database_says_what_to_do(tmp_path: Path) -> None:
    done = _without_database(tmp_path, "seed")
    assert done.returncode == 2
    assert "`plumbline up` starts a stack" in done.stderr
    assert len(done.stderr.splitlines()) == 1, "a sentence, no traceback"


def _without_database(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {
        **os.environ,
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
        "PLUMBLINE_HOME": str(home),
        "OPS_PORT": "0",
        "HTTP_PORT": "0",
    }
    return subprocess.run([sys.executable, "-m", "service", *words], cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)
