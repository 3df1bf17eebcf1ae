"""Revisions 0002 to 0004 run while two pods write, old code and new, forwards and back: no write fails, none is lost.

The long form does it on a million rows; its wait for locks is read from PostgreSQL's own log.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.database.rollout import SERVER, Rollout, longest_ms, old_code, roll_out
from bench.errors import BenchError
from service.dev.postgres import EmbeddedPostgres
from service.dev.state import ROOT
from tests.support.servers import Servers

pytestmark = pytest.mark.slow  # six processes in turn, and eight migrations: minutes where others are at work too


@pytest.fixture
def fresh(servers: Servers, tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """A server of its own that logs every wait for a lock longer than 200 ms."""
    server = EmbeddedPostgres(tmp_path, servers.base_port + 108, settings=SERVER)
    server.start()
    yield server
    server.stop()
    server.wipe()


@pytest.fixture
def rolled(servers: Servers, fresh: EmbeddedPostgres, tmp_path: Path) -> Callable[..., Rollout]:
    def run(**arguments: Any) -> Rollout:
        environment = servers.environment() | {"PLUMBLINE_HOME": str(tmp_path)}
        made = roll_out(fresh, environment, tmp_path / "old", say=lambda text: print(f"{time.strftime('%X')} {text}"), **arguments)
        print(f"{len(made.writes)} writes; slowest: {longest_ms(made)}; lock waits over 200 ms: {len(made.lock_waits)}")
        return made

    return run


def _assert_nobody_noticed(made: Rollout) -> None:
    assert made.failed == []
    assert made.mismatches == 0, made.complaints
    assert made.refused == [], "no write met anything but success"
    for first, second, versions in (
        ("migrate to 0002", "at 0002", set()), ("at 0002", "migrate to 0003", {"old"}), ("at 0003", "one pod is new", {"old"}),
        ("one pod is new", "both pods are new", {"old", "new"}), ("at 0004", "roll back", {"new"}), ("roll back", "end", {"old", "new"}),
    ):  # fmt: skip
        assert {write[4] for write in made.between(first, second)} >= versions, f"who wrote between {first} and {second}"
    assert {write[1] for write in made.writes} == {"place", "reserve", "pay", "ship", "cancel"}


def test_a_rolling_update_over_the_migration_fails_no_write_and_loses_none(rolled: Callable[..., Rollout]) -> None:
    _assert_nobody_noticed(rolled(orders=3_000, rate=60, writes=20))


def test_on_a_million_rows_at_100_writes_a_second_nobody_waits_200_ms_for_a_lock(rolled: Callable[..., Rollout]) -> None:
    made = rolled(orders=1_000_000, rate=100, writes=500)
    _assert_nobody_noticed(made)
    assert made.lock_waits == []


def test_a_change_that_cannot_have_its_lock_gives_way(servers: Servers, fresh: EmbeddedPostgres, tmp_path: Path) -> None:
    """Somebody reads for long; the ALTER waits for it at most 100 ms at a time, so writers behind it are not held up."""
    environment = servers.environment() | {"PLUMBLINE_HOME": str(tmp_path), "DATABASE_URL": fresh.url}
    migrate = [sys.executable, "-m", "service", "migrate", "--to"]
    subprocess.run([*migrate, "0001"], env=environment, check=True, capture_output=True)
    psql = [str(fresh.binaries / "psql"), "-XAtq", fresh.url]
    reader = subprocess.Popen(psql, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert reader.stdin is not None
    assert reader.stdout is not None
    reader.stdin.write("BEGIN; SELECT count(*) FROM orders;\n")
    reader.stdin.flush()
    assert reader.stdout.readline() == "0\n"
    change = subprocess.Popen([*migrate, "0002"], env=environment, stdout=subprocess.PIPE, text=True)
    assert change.stdout is not None
    heard: list[str] = []
    listener = threading.Thread(target=lambda: heard.extend(change.stdout))  # type: ignore[arg-type]
    listener.start()
    write = "INSERT INTO orders (id, customer_id, status, version, currency, total_minor) VALUES (gen_random_uuid(), 'x', 'placed', 1, 'EUR', 1)"
    deadline = time.monotonic() + 60
    while not any("giving way" in line for line in heard):
        # Behind a change that waited for as long as the reader reads, this would run into its own limit.
        subprocess.run([*psql, "-c", "SET lock_timeout = '5s'", "-c", write], check=True, capture_output=True)
        assert time.monotonic() < deadline
    reader.stdin.write("COMMIT;\n\\q\n")
    reader.stdin.flush()
    assert reader.wait(10) == 0
    assert change.wait(90) == 0
    listener.join()
    assert "schema is at 0002" in heard[-1]


def test_a_shallow_clone_is_told_what_to_do(tmp_path: Path) -> None:
    subprocess.run(["git", "clone", "-q", "--depth", "1", f"file://{ROOT}", str(tmp_path / "shallow")], check=True)
    with pytest.raises(BenchError, match="git fetch --unshallow"):
        old_code(tmp_path / "old", tmp_path / "shallow")


def test_the_old_code_is_the_one_before_the_migration(tmp_path: Path) -> None:
    tree = old_code(tmp_path)
    assert 'REQUIRED_REVISION: Final = "0001"' in (tree / "service/migrations/__init__.py").read_text()
