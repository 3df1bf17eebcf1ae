"""A tiny server for experiments about measuring, and one real stack for runs that end in verdicts."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from loadtests.target import Target
from tests.stories.shop import running_shop


class Tiny:
    """A tiny server: its target, and its process to stop."""

    def __init__(self, process: subprocess.Popen[str], target: Target) -> None:
        self.process, self.target = process, target


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Callable[..., Tiny]]:
    processes: list[subprocess.Popen[str]] = []

    def start(delay_s: float = 0.0) -> Tiny:
        script = Path(__file__).with_name("tiny_server.py")
        process = subprocess.Popen([sys.executable, str(script), str(delay_s)], stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        claims = base64.urlsafe_b64encode(json.dumps({"sub": "c", "role": "customer", "exp": time.time() + 3_600}).encode()).decode().rstrip("=")
        tokens = tmp_path / "tokens"
        tokens.write_text(f"h.{claims}.s\n")
        return Tiny(process, Target(f"http://127.0.0.1:{int(process.stdout.readline())}", tokens=tokens))

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def stack_home() -> Iterator[Path]:
    with running_shop() as home:
        yield home
