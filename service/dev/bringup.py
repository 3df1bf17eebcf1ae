"""The order in which an embedded stack comes up, each step with its elapsed time, and what it publishes about itself.

What can start early does: servers, issuer and provider at once; migrate and seed only when the database
needs them. When a step fails, `StackError` says which log to read. Test: `tests/integration/test_stack.py`.
"""

from __future__ import annotations

import http.client
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from service.dev import roster, selfcheck, state
from service.dev.children import StackError, last_line, require_free_port, spawn
from service.dev.kafka import Broker, open_broker
from service.dev.postgres import EmbeddedPostgres
from service.dev.redis import EmbeddedRedis
from service.dev.roster import Member, Ports, UpOptions
from service.dev.supervisor import Child, Supervisor

_RANK = {"api": 0, "relay": 1, "reaper": 1, "worker": 1, "psp": 2, "issuer": 2, "kafka": 3, "redis": 3, "postgres": 3}
_STOP_TIMEOUT_S = {"api": 25.0, "postgres": 10.0}  # the API may drain for 20 s
_SOURCES = ("*.py", "*.sql", "*.lua")


class BringUp:
    """Starts one stack into a supervisor and keeps `stack.json` true. Call `run` once, from the main thread."""

    def __init__(self, options: UpOptions) -> None:
        self._options, self._home = options, options.home
        self._ports = Ports.of(options)
        self._begin = time.monotonic()
        self._step = 0
        self._listener: socket.socket | None = None
        self._postgres = EmbeddedPostgres(self._home, self._ports.postgres)
        self._redis = EmbeddedRedis(self._home, self._ports.redis)

    def run(self, supervisor: Supervisor) -> None:
        """Bring everything up and print the banner. Raises `StackError`, `SelfCheckError`."""
        self._supervisor = supervisor
        if self._options.fresh:
            self._postgres.wipe()
            state.wipe(self._home, keep=("logs", "issuer.pem", "up.lock"))
        roster.require_ports(self._options, self._ports)
        self._servers()
        self._schema()
        if self._options.only == "all":
            self._service()
        self.publish()
        state.write_env(self._home, self._shell_values())
        if self._options.only == "all":
            seconds = selfcheck.place_and_pay(self._url(self._ports.http), self._home)
            self._done(f"self-check: one order placed and paid in {seconds:.1f} s")
        self._banner()

    def publish(self) -> None:
        """Write `stack.json` as the stack is now; called again whenever a process was replaced."""
        urls = {
            "api": self._url(self._ports.http),
            "ops": self._url(self._ports.ops),
            "database": self._postgres.url,
            "redis": self._redis.url,
            "kafka": self._broker.bootstrap,
            "psp": self._url(self._ports.psp),
            "issuer": self._url(self._ports.issuer),
        }
        processes = [
            {"name": child.name, "role": child.role, "pid": child.process.pid, "ops_url": child.ops_url}
            for child in self._supervisor.children
        ]
        state.write_stack(self._home, {"urls": urls, "broker": self._broker.kind, "processes": processes})

    def reloader(self) -> Callable[[], None]:
        """A function that restarts the service's processes when a source file changed since it last looked."""
        seen = _newest_change()

        def look() -> None:
            nonlocal seen
            newest = _newest_change()
            if newest != seen:
                seen = newest
                print("  a source file changed: restarting the service", flush=True)
                self._supervisor.restart(child for child in self._supervisor.children if child.ops_url)

        return look

    def _servers(self) -> None:
        """PostgreSQL, Redis, broker, issuer, provider: all launched, then waited for."""
        self._broker: Broker = open_broker(self._options.kafka, self._home, self._ports.kafka)
        for server, name in ((self._broker, "kafka"), (self._redis, "redis"), (self._postgres, "postgres")):
            server.launch()
            self._adopt_server(server, name)
        self._environment = roster.environment(
            self._options,
            self._ports,
            database=self._postgres.url,
            redis=self._redis.url,
            bootstrap=self._broker.bootstrap,
            memory=self._broker.kind == "memory",
        )
        companions = roster.companions(self._ports)
        for member in companions:
            self._start_member(member)
        self._postgres.wait_ready()
        self._server_child("postgres").process = _running(self._postgres.process)
        self._done(f"PostgreSQL {self._postgres.version} on port {self._ports.postgres}", note=self._postgres.note)
        self._redis.wait_ready()
        self._done(f"Redis on port {self._ports.redis}")
        self._broker.wait_ready()
        kinds = {"real": "Apache Kafka", "memory": "in-memory Kafka (records are lost when it stops)"}
        self._done(f"{kinds[self._broker.kind]} on port {self._ports.kafka}")
        self._companions = companions

    def _schema(self) -> None:
        """Migrate, topics, seed, republish: only what the state of the servers asks for."""
        topics = self._launch_tool("topics", "apply") if self._broker.kind == "real" else None
        head, current = _head_revision(), self._ask("SELECT version_num FROM alembic_version")
        if current >= head:
            self._done(f"schema is at {current}")
        else:
            self._run_tool("migrate")
            self._done(f"schema migrated to {head}")
        if self._ask("SELECT count(*) FROM (SELECT FROM product LIMIT 1) one") == "1":
            self._done("catalogue is seeded")
        else:
            self._run_tool("seed")
            self._done("catalogue seeded")
        if topics is not None:
            self._await_tool("topics", topics)
            self._done("topics applied")
        if self._broker.fresh and self._ask("SELECT count(*) FROM (SELECT FROM outbox_sent LIMIT 1) one") == "1":
            self._republish()
            self._done("events of unfinished orders published again: the broker started empty")
        self._await_members(self._companions)
        self._done(f"issuer and payment provider on ports {self._ports.issuer} and {self._ports.psp}")

    def _service(self) -> None:
        require_free_port(self._ports.http, owner="the API", setting="HTTP_PORT")
        # Bound here and inherited: connections queued on it survive the death of any API process.
        self._listener = socket.create_server(("127.0.0.1", self._ports.http), backlog=2048)
        members = roster.service_members(self._options, self._ports, listener=self._listener.fileno())
        for member in members:
            self._start_member(member)
        self._await_members(members)
        self._done(", ".join(member.name for member in members) + " ready")

    def _adopt_server(self, server: EmbeddedPostgres | EmbeddedRedis | Broker, name: str) -> None:
        def start() -> subprocess.Popen[bytes]:
            server.start()
            if name == "kafka" and self._broker.fresh:
                self._republish()
            return _running(server.process)

        how = signal.SIGINT if name == "postgres" else signal.SIGTERM
        self._adopt(Child(name, name, _RANK[name], start, _running(server.process), stop_signal=how))

    def _start_member(self, member: Member) -> None:
        environment = self._environment | ({"OPS_PORT": str(member.ops_port)} if member.ops_port else {})
        log = self._home / "logs" / f"{member.name}.log"

        def start() -> subprocess.Popen[bytes]:
            fds = (self._listener.fileno(),) if member.role == "api" and self._listener else ()
            return spawn(member.command, log=log, env=environment, pass_fds=fds)

        self._adopt(Child(member.name, member.role, _RANK[member.role], start, start(), ops_url=member.ops_url))

    def _adopt(self, child: Child) -> None:
        child.stop_timeout_s = _STOP_TIMEOUT_S.get(child.role, child.stop_timeout_s)
        self._supervisor.add(child)

    def _server_child(self, name: str) -> Child:
        return next(child for child in self._supervisor.children if child.name == name)

    def _await_members(self, members: Sequence[Member], timeout_s: float = 60.0) -> None:
        begin = time.monotonic()
        told = begin + 2
        waiting = list(members)
        while waiting := [member for member in waiting if not _answers(member.ready_url)]:
            self._supervisor.require_alive()
            now = time.monotonic()
            names = ", ".join(member.name for member in waiting)
            if now > begin + timeout_s:
                logs = ", ".join(f"logs/{member.name}.log" for member in waiting)
                raise StackError(f"{names} not ready within {timeout_s:g} s: see {logs} in {self._home}")
            if now > told:
                print(f"      waiting for {names} …", flush=True)
                told += 5
            time.sleep(0.03)

    def _republish(self) -> None:
        self._run_tool("republish", "--unfinished")

    def _run_tool(self, name: str, *words: str) -> None:
        self._await_tool(name, self._launch_tool(name, *words))

    def _launch_tool(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        return spawn(roster.tool(name, *words), log=self._home / "logs" / f"{name}.log", env=self._environment)

    def _await_tool(self, name: str, process: subprocess.Popen[bytes], timeout_s: float = 120.0) -> None:
        log = self._home / "logs" / f"{name}.log"
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise StackError(f"`plumbline {name}` did not end within {timeout_s:g} s: see {log}") from None
        if code:
            raise StackError(f"`plumbline {name}` failed (exit {code}): {last_line(log)} – see {log}")

    def _ask(self, query: str) -> str:
        """One value from the database; empty when the table does not exist yet."""
        try:
            return self._postgres.run("psql", "-XAtqc", query).strip()
        except StackError as error:
            if "does not exist" in str(error):
                return ""
            raise

    def _shell_values(self) -> dict[str, str]:
        shared = {name: value for name, value in self._environment.items() if name in _SHELL_SETTINGS}
        url = self._url
        return shared | {
            "API": url(self._ports.http),
            "OPS": url(self._ports.ops),
            "PSP": url(self._ports.psp),
            "ISSUER": url(self._ports.issuer),
        }

    def _done(self, text: str, *, note: str = "") -> None:
        self._step += 1
        print(f"[{self._step:>2}] {text:<66} {time.monotonic() - self._begin:5.1f} s", flush=True)
        if note:
            print(f"     {note}", flush=True)

    def _banner(self) -> None:
        url = self._url(self._ports.http)
        profile = "  load profile: rate limits are lifted\n" if self._options.profile == "load" else ""
        print(f"{profile}  API       {url}/v1   docs {url}/docs")
        print(f"  health    {self._url(self._ports.ops)}/health/ready   metrics {self._url(self._ports.ops)}/metrics")
        print(f"  provider  {self._url(self._ports.psp)}   issuer {self._url(self._ports.issuer)}   logs {self._home}/logs")
        print(f'  tokens    . {_shown(self._home / "env")}    then: curl -H "Authorization: Bearer $TOKEN" $API/v1/products')
        print(f"ready {url}", flush=True)

    def _url(self, port: int) -> str:
        return f"http://127.0.0.1:{port}"


_SHELL_SETTINGS = {
    *("PLUMBLINE_HOME", "HTTP_PORT", "OPS_PORT", "DATABASE_URL", "REDIS_URL", "KAFKA_BOOTSTRAP", "APP_ENV", "APP_KAFKA_BROKER"),
    *("APP_AUTH_ISSUER", "APP_AUTH_JWKS_URL", "APP_PAYMENTS_URL", "APP_WORKER_TIERS_S", "APP_KAFKA_SESSION_TIMEOUT_MS", "APP_PROFILE"),
}


def _running(process: subprocess.Popen[bytes] | None) -> subprocess.Popen[bytes]:
    if process is None:
        raise StackError("a server was not launched: start it before it is supervised")
    return process


def _answers(url: str) -> bool:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=2)
    try:
        connection.request("GET", parts.path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _head_revision() -> str:
    versions = (Path(__file__).parents[1] / "migrations" / "versions").glob("*.py")
    found = [match[0] for path in versions if (match := re.match(r"\d+", path.stem))]
    return max(found, default="")


def _newest_change() -> float:
    folders = (state.ROOT / "service", state.ROOT / "workers")
    return max(path.stat().st_mtime for folder in folders for pattern in _SOURCES for path in folder.rglob(pattern))


def _shown(path: Path) -> str:
    """Relative to the current folder where that is shorter to type."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
