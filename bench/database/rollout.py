"""A rolling update over revisions 0002 to 0004 on a table that is written to: two pods, old code and new, each step in turn.

Answers every write's outcome and time, the moments of the steps, the lock waits PostgreSQL logged, and the orders that are
not as their writer left them. Tests: tests/integration/test_online_migration.py; the plot is in docs/database.md.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from bench.errors import BenchError
from service.dev.postgres import EmbeddedPostgres
from service.dev.state import ROOT

_TRAFFIC: Final = Path(__file__).with_name("traffic.py")
_EXPAND: Final = "service/migrations/versions/0002_orders_closed_at.py"
_PATIENCE_S: Final = 900.0
# For the server under test: a wait for a lock that passes deadlock_timeout (200 ms) is a line in its log.
SERVER: Final = {"log_lock_waits": "on", "log_line_prefix": "%a "}
_WAITED: Final = re.compile(r"^(?P<who>\S+) .*still waiting for (?P<what>\w+) on (?P<where>.*?) after", re.MULTILINE)
_FILL: Final = """
INSERT INTO orders (id, customer_id, status, version, currency, total_minor, created_at, updated_at)
SELECT (lpad(to_hex(1700000000000 + n * 10), 12, '0') || '7' || lpad(to_hex(n % 4096), 3, '0') || '8' || lpad(to_hex(n), 15, '0'))::uuid,
    'customer-' || n % 10007, CASE n % 10 WHEN 0 THEN 'cancelled' WHEN 1 THEN 'paid' ELSE 'shipped' END, 2, 'EUR', 1000,
    now() - interval '30 days', now() - interval '29 days'
FROM generate_series(1, {count}) n
"""


@dataclass(slots=True)
class Rollout:
    """What one rolling update saw."""

    writes: list[tuple[float, str, int, float, str]] = field(default_factory=list)  # time, kind, status, ms, code version
    steps: list[tuple[float, str]] = field(default_factory=list)
    expected: dict[str, tuple[str, int]] = field(default_factory=dict)
    lock_waits: list[str] = field(default_factory=list)
    mismatches: int = -1
    complaints: list[str] = field(default_factory=list)

    @property
    def failed(self) -> list[tuple[float, str, int, float, str]]:
        """Writes answered by a 5xx."""
        return [write for write in self.writes if write[2] >= 500]

    @property
    def refused(self) -> list[tuple[float, str, int, float, str]]:
        """Writes answered by anything but success."""
        return [write for write in self.writes if write[2] not in {200, 201}]

    def between(self, first: str, second: str) -> list[tuple[float, str, int, float, str]]:
        """Writes between two steps."""
        moments = {name: at for at, name in reversed(self.steps)}  # the way forwards
        return [write for write in self.writes if moments[first] <= write[0] < moments[second]]


def old_code(target: Path, root: Path = ROOT) -> Path:
    """`service` and `workers` as they were before revision 0002, from the repository's history."""
    log = subprocess.run(["git", "log", "--diff-filter=A", "--format=%H", "--", _EXPAND], cwd=root, capture_output=True, text=True, check=False)
    if log.returncode or not log.stdout:
        raise BenchError("old code comes from the repository's history, which is not here: use a git clone, not an archive")
    before = f"{log.stdout.split()[-1]}^"
    archive = subprocess.run(["git", "archive", before, "service", "workers"], cwd=root, capture_output=True, check=False)
    if archive.returncode:
        raise BenchError("the commit before revision 0002 is not here: the clone is shallow, run `git fetch --unshallow`")
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as found:
        found.extractall(target, filter="data")
    # A package it imports and that no longer is among ours; nothing is exported here.
    stand_in = target / "opentelemetry" / "exporter" / "otlp" / "proto" / "http" / "trace_exporter.py"
    stand_in.parent.mkdir(parents=True)
    stand_in.write_text("class OTLPSpanExporter: ...\n")
    return target


class Pod:
    """A process of traffic.py on a code tree."""

    def __init__(self, rollout: Rollout, tree: Path, name: str, environment: dict[str, str], rate: float) -> None:
        self.name, self._rollout, self.count = name, rollout, 0
        env = os.environ | environment | {"PYTHONPATH": str(tree)}
        self._log = (Path(environment["PLUMBLINE_HOME"]) / f"{name}-{time.monotonic_ns()}.log").open("w+")
        command = [sys.executable, str(_TRAFFIC), str(rate)]
        self.process = subprocess.Popen(command, env=env, cwd=tree, stdout=subprocess.PIPE, stderr=self._log, text=True)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                said = json.loads(line)
            except ValueError:
                continue  # a log line of the service
            if isinstance(said, list):
                self.count += 1
                at, kind, status, took = said
                self._rollout.writes.append((at, kind, status, took, self.name))
            elif isinstance(said, dict) and "event" not in said:
                self._rollout.expected |= {order: (status, version) for order, (status, version) in said.items()}

    def await_writes(self, more: int) -> None:
        """Wait until this pod has written `more` times from now."""
        wanted, deadline = self.count + more, time.monotonic() + _PATIENCE_S
        while self.count < wanted:
            if self.process.poll() is not None or time.monotonic() > deadline:
                self._log.seek(0)
                raise BenchError(f"the {self.name} code stopped writing:\n{self._log.read()[-3000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Let it finish its write and say what it left."""
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self._reader.join()
        self._log.close()


@contextmanager
def _pods(rollout: Rollout, environment: dict[str, str], rate: float) -> Iterator[Callable[[Path, str], Pod]]:
    with ExitStack() as stack:

        def start(tree: Path, name: str) -> Pod:
            pod = Pod(rollout, tree, name, environment, rate)
            stack.callback(pod.stop)
            pod.await_writes(3)
            return pod

        yield start


def roll_out(
    postgres: EmbeddedPostgres, environment: dict[str, str], scratch: Path, *, orders: int, rate: float, writes: int, say: Callable[[str], None]
) -> Rollout:
    """Old pods write; 0002, 0003; new pods replace them one by one; 0004; and all the way back to 0001 under old pods."""
    made, before, now = Rollout(), old_code(scratch), ROOT
    env = environment | {"DATABASE_URL": postgres.url}

    def step(name: str) -> None:
        made.steps.append((time.time(), name))
        say(name)

    def migrate(to: str) -> None:
        step(f"migrate to {to}")
        command = [sys.executable, "-m", "service", "migrate", "--to", to]
        done = subprocess.run(command, env=os.environ | env, cwd=now, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
        if done.returncode:
            raise BenchError(f"migrate --to {to} ended with {done.returncode}: {done.stdout[-500:]} {done.stderr[-1500:]}")
        step(f"at {to}")

    migrate("0001")
    _prepare(postgres, env, before, orders)
    with _pods(made, env, rate / 2) as start:
        old = [start(before, "old"), start(before, "old")]
        step("old code on 0001")
        old[0].await_writes(writes)
        for revision in ("0002", "0003"):
            migrate(revision)
            old[0].await_writes(writes)
        step("one pod is new")
        new = [start(now, "new")]
        old[0].stop()
        for pod in (old[1], new[0]):
            pod.await_writes(writes)
        step("both pods are new")
        new.append(start(now, "new"))
        old[1].stop()
        new[0].await_writes(writes)
        migrate("0004")
        new[0].await_writes(writes)
        step("roll back")
        migrate("0003")
        old = [start(before, "old")]
        old[0].await_writes(writes)
        for pod in new:
            pod.stop()
        migrate("0001")
        old[0].await_writes(writes)
        step("end")
    _judge(made, postgres)
    return made


def _prepare(postgres: EmbeddedPostgres, env: dict[str, str], tree: Path, orders: int) -> None:
    """Rows as code of revision 0001 wrote them."""
    subprocess.run(
        [sys.executable, "-m", "service", "seed"], env=os.environ | env | {"PYTHONPATH": str(tree)}, cwd=tree, check=True, capture_output=True
    )
    script = Path(env["PLUMBLINE_HOME"]) / "fill.sql"
    script.write_text("SET synchronous_commit = off;\n" + _FILL.format(count=orders) + ";\nANALYZE orders;\n")
    subprocess.run([str(postgres.binaries / "psql"), "-XqAt", "-v", "ON_ERROR_STOP=1", "-f", str(script), postgres.url], check=True, timeout=900)


def _judge(made: Rollout, postgres: EmbeddedPostgres) -> None:
    """What every pod left behind must be there; and what PostgreSQL logged about waiting."""
    rows = postgres.run("psql", "-XAtqF,", "-c", "SELECT id, status, version FROM orders WHERE created_at > now() - interval '1 day'")
    found = {line.split(",")[0]: (line.split(",")[1], int(line.split(",")[2])) for line in rows.splitlines()}
    wrong = {order: (left, found.get(order)) for order, left in made.expected.items() if found.get(order) != left}
    made.mismatches = len(wrong)
    made.complaints = [f"{order}: left as {left}, found as {there}" for order, (left, there) in list(wrong.items())[:5]]
    log = postgres.log.read_text(errors="replace")
    made.lock_waits = [match[0] for match in _WAITED.finditer(log) if not match["who"].startswith("plumbline-migrate")]


def longest_ms(made: Rollout) -> dict[str, Any]:
    """The slowest write of each kind."""
    return {kind: max(write[3] for write in made.writes if write[1] == kind) for kind in sorted({write[1] for write in made.writes})}
