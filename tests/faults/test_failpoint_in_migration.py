"""A migration that crashes leaves the schema as it was; one that hangs makes a second one wait, and both end well."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.foundation.failpoints import CRASH_EXIT
from tests.faults.control import wait_for
from tests.support.servers import Servers, running_servers


@pytest.fixture(scope="module")
def empty() -> Iterator[Servers]:
    """Servers without a schema."""
    with running_servers() as found:
        yield found


@pytest.fixture(autouse=True)
def _dropped(empty: Servers) -> None:
    empty.postgres.run("psql", "-Xqc", "DROP SCHEMA public CASCADE; CREATE SCHEMA public")


def _migrate(servers: Servers, points: str = "") -> subprocess.Popen[str]:
    env = {**os.environ, **servers.environment(), "APP_FAILPOINTS": points}
    return subprocess.Popen([sys.executable, "-m", "service", "migrate"], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _tables(servers: Servers) -> int:
    return int(servers.postgres.run("psql", "-XAtqc", "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"))


def test_a_crash_leaves_nothing_and_the_next_run_succeeds(empty: Servers) -> None:
    crashed = _migrate(empty, "inside-migration=crash")
    assert crashed.wait(60) == CRASH_EXIT
    wait_for(lambda: _tables(empty) == 0, "half a migration was left")
    again = _migrate(empty)
    assert again.wait(60) == 0, again.communicate()[0]
    assert _tables(empty) > 10


def test_a_hang_makes_the_second_one_wait_and_both_succeed(empty: Servers, tmp_path: Path) -> None:
    token = tmp_path / "hang"
    token.touch()
    first = _migrate(empty, f"inside-migration=hang@{token}")
    wait_for(lambda: not token.exists(), "the migration did not reach the point")
    second = _migrate(empty)
    for process in (first, second):
        assert process.wait(60) == 0, process.communicate()[0][-1500:]
    assert _tables(empty) > 10
