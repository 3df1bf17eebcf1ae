"""What ends a process that stays is the last line of its log, and one JSON object like every other line."""

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
    env = {
        **os.environ,
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
        "PLUMBLINE_HOME": str(tmp_path),
        "OPS_PORT": "0",
        "HTTP_PORT": "0",
    }
    done = subprocess.run([sys.executable, "-m", "service", *words], cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2, done.stderr
    said = [json.loads(line) for line in (done.stdout + done.stderr).splitlines()]
    assert said[-1]["event"] == "process.ended"
    assert "PostgreSQL cannot be reached" in said[-1]["error"]
