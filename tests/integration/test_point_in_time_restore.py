"""The restore drill, executed: a base backup, archived WAL, an accident, and the database as it was a moment before it.

The steps are those of docs/consistency.md; a backup nobody restored is a hope.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from service.dev.postgres import EmbeddedPostgres
from service.migrations import upgrade
from tests.support.servers import Servers

ORDER = """
    INSERT INTO orders (id, customer_id, status, version, currency, total_minor) VALUES (gen_random_uuid(), '{}', 'placed', 1, 'EUR', 1)
"""


def wait_until(true: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "the restored server did not leave recovery"
        time.sleep(0.05)


def _hand_over(server: EmbeddedPostgres, *paths: Path) -> None:
    """PostgreSQL may run as another account than this test."""
    for path in paths:
        for found in (path, *path.rglob("*")):
            if server.account:
                os.chown(found, *server.account)


@pytest.fixture
def archive(servers: Servers) -> Iterator[tuple[EmbeddedPostgres, Path]]:
    """A server whose finished WAL is copied away, and where to."""
    home = servers.home / "archived"
    home.mkdir()
    server = EmbeddedPostgres(home, servers.base_port + 106)
    kept = server.folder.with_name(f"{server.folder.name}-wal")
    kept.mkdir(mode=0o700)
    _hand_over(server, kept)
    server._settings |= {"archive_mode": "on", "archive_command": f"test ! -f {kept}/%f && cp %p {kept}/%f"}
    server.start()
    with ExitStack() as stack:
        for step in (lambda: shutil.rmtree(kept), server.wipe, server.stop):
            stack.callback(step)
        yield server, kept


@pytest.mark.alone  # a backup, an archive and a second server
def test_the_database_comes_back_as_it_was_before_the_accident(servers: Servers, archive: tuple[EmbeddedPostgres, Path]) -> None:
    server, kept = archive
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", server.url)
        upgrade()
    server.run("psql", "-Xqc", ORDER.format("before the backup"))
    restored = EmbeddedPostgres(servers.home / "restored", servers.base_port + 107)
    with ExitStack() as stack:
        stack.callback(restored.wipe)
        restored.folder.mkdir(mode=0o700, parents=True)
        server.run("pg_basebackup", "--pgdata", str(restored.data), "--checkpoint=fast", "--wal-method=none")

        server.run("psql", "-Xqc", ORDER.format("after the backup"))
        server.run("psql", "-XAtqc", "SELECT pg_create_restore_point('all is well')")
        server.run("psql", "-Xqc", "DELETE FROM orders")  # the accident
        last = server.run("psql", "-XAtqc", "SELECT pg_walfile_name(pg_switch_wal())").strip()
        assert re.fullmatch(r"[0-9A-F]{24}", last)
        server.stop()  # PostgreSQL archives what it has before it ends
        assert (kept / last).exists(), "the WAL that holds the last hour is in the archive"

        shutil.copy(server._password_file, restored._password_file)
        restored._created.touch()
        (restored.data / "recovery.signal").touch()
        _hand_over(restored, restored.folder)
        restored._settings |= {
            "restore_command": f"cp {kept}/%f %p", "recovery_target_name": "all is well", "recovery_target_action": "promote",
        }  # fmt: skip
        stack.callback(restored.stop)
        restored.start()  # answers as soon as it is consistent; it is open for writes when it has promoted itself
        wait_until(lambda: restored.run("psql", "-XAtqc", "SELECT pg_is_in_recovery()").strip() == "f")
        found = restored.run("psql", "-XAtqc", "SELECT customer_id FROM orders ORDER BY 1").split("\n")
        assert found[:2] == ["after the backup", "before the backup"], "what was committed before the moment is there, the accident is not"
        assert restored.run("psql", "-XAtqc", "SELECT version_num FROM alembic_version").strip() == "0005"
        restored.run("psql", "-Xqc", ORDER.format("life goes on"))
