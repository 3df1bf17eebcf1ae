"""The order in which an embedded stack comes up, each step with its elapsed time, and what it publishes about itself.

What can start early does: servers, issuer and provider at once, API and reaper as soon as the schema is there, relay
and workers once the broker answers. When a step fails, `StackError` says which log to read.
Test: `tests/integration/test_stack.py`.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from service.dev import roster, selfcheck, state
from service.dev.children import Server, StackError, last_line, spawn, stop
from service.dev.kafka import open_broker
from service.dev.postgres import EmbeddedPostgres
from service.dev.redis import EmbeddedRedis
from service.dev.roster import Member, Ports, UpOptions
from service.dev.supervisor import Child, Supervisor

_WITHOUT_KAFKA = {"api", "reaper"}
_RANK = {"api": 0, "relay": 1, "reaper": 1, "worker": 1, "psp": 2, "issuer": 2, "kafka": 3, "redis": 3, "postgres": 3}
_API_STOP_S, _STOP_S = 25.0, 15.0  # the API may drain for 20 s
_SOURCES = ("*.py", "*.sql", "*.lua")
_FOR_THE_SHELL = re.compile(r"PLUMBLINE_HOME|HTTP_PORT|OPS_PORT|DATABASE_URL|REDIS_URL|KAFKA_BOOTSTRAP|APP_\w+")
_BROKERS = {"real": "Apache Kafka", "memory": "in-memory Kafka (records are lost when it stops)"}


class BringUp:
    """Starts one stack into a supervisor and keeps `stack.json` true. Call `run` once, from the main thread."""

    def __init__(self, options: UpOptions, supervisor: Supervisor) -> None:
        self._options, self._home, self._supervisor = options, options.home, supervisor
        self._ports = Ports.of(options)
        self._begin = time.monotonic()
        self._step = 0
        self._listener: socket.socket | None = None
        self._refills = False
        self._postgres = EmbeddedPostgres(self._home, self._ports.postgres)
        self._redis = EmbeddedRedis(self._home, self._ports.redis)

    def run(self) -> None:
        """Bring everything up and print the banner. Raises `StackError`, `SelfCheckError`."""
        if self._options.fresh:
            self._postgres.wipe()
            state.wipe(self._home, data_only=True)
        roster.require_ports(self._options, self._ports)
        self._start_servers()
        self._prepare_database()
        members = [] if self._options.only_deps else self._members()
        self._start_members(member for member in members if member.role in _WITHOUT_KAFKA)
        self._prepare_broker()
        self._start_members(member for member in members if member.role not in _WITHOUT_KAFKA)
        self._await_companions()
        if members:
            self._await_members(members)
            self._refills = False  # a relay that is started once more has nothing to fill
            self._done(", ".join(member.name for member in members) + " ready")
        self.publish()
        shell = {name: value for name, value in self._environment.items() if _FOR_THE_SHELL.fullmatch(name)}
        state.write_env(self._home, shell | {name: self._urls[name.lower()] for name in ("API", "OPS", "PSP", "ISSUER")})
        if not self._options.only_deps:
            seconds = selfcheck.place_and_pay(self._urls, self._home)
            self._done(f"self-check: one order placed and paid in {seconds:.1f} s")
        self._print_banner()

    def publish(self) -> None:
        """Write `stack.json` as the stack is now; called again whenever a process was replaced."""
        processes = [{"name": c.name, "role": c.role, "pid": c.process.pid, "ops_url": c.ops_url} for c in self._supervisor.children]
        state.write_stack(self._home, {"urls": self._urls, "broker": self._broker.kind, "processes": processes})

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

    def _start_servers(self) -> None:
        """PostgreSQL, Redis, broker, issuer, provider: all launched, none waited for."""
        self._broker = open_broker(self._options.kafka, self._home, self._ports.kafka)
        # A broker tells its clients where to come back to: through whatever the caller put in front of it.
        self._broker.advertised = int(self._options.env.get("KAFKA_BOOTSTRAP", "0").rpartition(":")[2])
        servers: list[Server] = [self._broker, self._redis, self._postgres]  # the slowest first
        for server in servers:
            server.claim()  # what cannot be had is said before anything runs
        for server in servers:
            server.launch()
            self._supervisor.add(
                Child(server.name, server.name, _RANK[server.name], self._starter(server), server.running(), stop_signal=server.stop_signal)
            )
        self._urls = {name: f"http://127.0.0.1:{port}" for name, port in self._ports._asdict().items() if name in {"ops", "psp", "issuer"}}
        self._urls |= {"api": f"http://127.0.0.1:{self._ports.http}", "kafka": self._broker.bootstrap}
        self._urls |= {"database": self._postgres.url, "redis": self._redis.url}
        addresses = {"DATABASE_URL": self._postgres.url, "REDIS_URL": self._redis.url, "KAFKA_BOOTSTRAP": self._broker.bootstrap}
        addresses["APP_KAFKA_BROKER"] = "kafka" if self._broker.kind == "real" else "memory"
        self._environment = roster.environment(self._options, self._ports, addresses)
        self._start_members(roster.companions(self._ports))

    def _prepare_database(self) -> None:
        """Migrate and seed: only what the database asks for."""
        self._await_server(self._postgres, f"PostgreSQL {self._postgres.version}")
        if self._postgres.note:
            print(f"     {self._postgres.note}", flush=True)
        head, current = _head_revision(), self._ask("SELECT version_num FROM alembic_version")
        if current < head:
            self._run_tool("migrate", "--to", "head", "--seed")  # nothing of the service runs yet, so no older code either
        self._done(f"schema is at {max(head, current)}")
        if not self._ask("SELECT 1 FROM product LIMIT 1"):
            self._run_tool("seed")
        self._done("catalogue is seeded")

    def _prepare_broker(self) -> None:
        """Topics, and events a broker that started empty has lost."""
        self._await_server(self._redis, "Redis")
        self._await_server(self._broker, _BROKERS[self._broker.kind])
        if self._broker.kind == "real":
            self._run_tool("topics", "apply")
            self._done("topics are there")
        if self._lost_events():
            self._refills = not self._options.only_deps  # by the relay, before it begins: a process less to start
            if not self._refills:
                self._run_tool("republish", "--unfinished")
            self._done("the broker started empty: what a group missed is published again")

    def _await_companions(self) -> None:
        self._await_members(roster.companions(self._ports))
        self._turn_dials()
        self._done(f"issuer and payment provider on ports {self._ports.issuer} and {self._ports.psp}")

    def _members(self) -> list[Member]:
        # Bound here and inherited: connections queued on it survive the death of any API process.
        self._listener = socket.create_server(("127.0.0.1", self._ports.http), backlog=2048)
        return roster.service_members(self._options, self._ports, listener=self._listener.fileno())

    def _start_members(self, members: Iterable[Member]) -> None:
        for member in members:
            self._start_member(member)

    def _starter(self, server: Server) -> Callable[[], subprocess.Popen[bytes]]:
        def start_again() -> subprocess.Popen[bytes]:
            if server.pid is None:  # it may run already, and only what follows failed
                server.start()
            if server is self._broker and self._lost_events():
                self._run_tool("republish", "--unfinished")
            return server.running()

        return start_again

    def _start_member(self, member: Member) -> None:
        environment = self._environment | ({"OPS_PORT": str(member.ops_port)} if member.ops_port else {})
        descriptors = (self._listener.fileno(),) if member.role == "api" and self._listener else ()
        log = self._home / "logs" / f"{member.name}.log"

        def start() -> subprocess.Popen[bytes]:
            refill = ("--refill",) if member.role == "relay" and self._refills else ()
            return spawn((*member.command, *refill), log=log, env=environment, pass_fds=descriptors)

        def start_again() -> subprocess.Popen[bytes]:
            process = start()
            if member.role == "psp":
                self._turn_dials()
            return process

        ops_url = f"http://127.0.0.1:{member.ops_port}" if member.ops_port else None
        patience_s = _API_STOP_S if member.role == "api" else _STOP_S
        self._supervisor.add(Child(member.name, member.role, _RANK[member.role], start_again, start(), ops_url=ops_url, stop_timeout_s=patience_s))

    def _await_server(self, server: Server, what: str) -> None:
        server.wait_ready()
        # PostgreSQL may have needed a second attempt while it waited.
        next(child for child in self._supervisor.children if child.name == server.name).process = server.running()
        self._done(f"{what} on port {server.port}")

    def _await_members(self, members: Sequence[Member], timeout_s: float = 180.0) -> None:
        begin = told = time.monotonic()
        waiting = list(members)
        while waiting := [member for member in waiting if not _answers(member.ready_url)]:
            self._supervisor.require_alive([member.name for member in waiting])
            names = ", ".join(member.name for member in waiting)
            if time.monotonic() > begin + timeout_s:
                raise StackError(f"{names} not ready within {timeout_s:g} s: see {self._home}/logs/{waiting[0].name}.log")
            if time.monotonic() > told + 2:
                told = time.monotonic()
                print(f"      waiting for {names} …", flush=True)
            time.sleep(0.03)

    def _turn_dials(self) -> None:
        """Totals ending in 13 and 17 make the provider decline and fail, for the demo; not under load."""
        dials = json.dumps({"magic_totals": self._options.profile == "default"})
        deadline = time.monotonic() + 60
        while not _answers(f"{self._urls['psp']}/dials", body=dials):
            if time.monotonic() > deadline:
                raise StackError(f"the payment provider does not take POST /dials: see {self._home}/logs/psp.log")
            time.sleep(0.03)

    def _lost_events(self) -> bool:
        """Did the broker start empty after it had events? Which of them are missing anywhere is for `republish` to find."""
        return bool(self._broker.fresh and self._ask("SELECT 1 FROM outbox_sent LIMIT 1"))

    def _run_tool(self, name: str, *words: str, timeout_s: float = 120.0) -> None:
        log = self._home / "logs" / f"{name}.log"
        process = spawn(roster.command(name, *words), log=log, env=self._environment)
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            stop(process)
            raise StackError(f"`plumbline {name}` did not end within {timeout_s:g} s: see {log}") from None
        if code:
            raise StackError(f"`plumbline {name}` failed (exit {code}): {last_line(log)}; see {log}")

    def _ask(self, query: str) -> str:
        """One value from the database; empty when there is no row, or no such table yet."""
        try:
            return self._postgres.run("psql", "-XAtqc", query).strip()
        except StackError as error:
            if "does not exist" in str(error):
                return ""
            raise

    def _done(self, text: str) -> None:
        self._step += 1
        print(f"[{self._step:>2}] {text:<66} {time.monotonic() - self._begin:5.1f} s", flush=True)

    def _print_banner(self) -> None:
        urls, here = self._urls, Path.cwd()
        env = self._home / "env"
        if self._options.profile == "load":
            print("  load profile: rate limits are lifted")
        print(f"  API       {urls['api']}/v1   docs {urls['api']}/docs")
        print(f"  health    {urls['ops']}/health/ready   metrics {urls['ops']}/metrics")
        print(f"  provider  {urls['psp']}   issuer {urls['issuer']}   logs {self._home}/logs")
        shown = env.relative_to(here) if env.is_relative_to(here) else env
        print(f'  shell     . {shown}   then: curl -H "Authorization: Bearer $TOKEN" $API/v1/products')
        print(f"ready {urls['api']}", flush=True)


def _answers(url: str, *, body: str | None = None) -> bool:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=2)
    try:
        connection.request("GET" if body is None else "POST", parts.path, body=body)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _head_revision() -> str:
    versions = (state.ROOT / "service" / "migrations" / "versions").glob("*.py")
    return max((match[0] for path in versions if (match := re.match(r"\d+", path.stem))), default="")


def _newest_change() -> float:
    folders = (state.ROOT / "service", state.ROOT / "workers")
    return max(path.stat().st_mtime for folder in folders for pattern in _SOURCES for path in folder.rglob(pattern))
