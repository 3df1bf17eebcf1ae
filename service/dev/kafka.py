"""The broker of the embedded stack: a real Apache Kafka where Java can run it, else one in memory.

Promises: the same address across restarts; a real broker keeps its records. When it fails, orders stay
`placed` and wait in the outbox. The first use of the real one downloads its jars with Maven, once.
Test: `tests/integration/test_embedded_servers.py`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Protocol

from service.dev import memory_broker
from service.dev.children import StackError, require_free_port, spawn, stop, wait_until

VERSION = "4.3.1"
TOPICS: Mapping[str, int] = {"orders.events.v1": 12, "catalog.events.v1": 6}
_POM = Path(__file__).with_name("kafka.pom.xml")
# Measured: 1.3–2.6 s to start and 160 MiB, instead of 5.5 s with the JVM's own choices.
_JVM = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
_SECOND_PORT = 3  # controller (real) or control port (memory), counted from the broker's


class Broker(Protocol):
    """What `up` and the tests need of a broker. `fresh`: it started without records."""

    kind: Literal["real", "memory"]
    port: int
    log: Path
    process: subprocess.Popen[bytes] | None
    fresh: bool

    @property
    def bootstrap(self) -> str: ...
    @property
    def pid(self) -> int | None: ...
    def launch(self) -> None: ...
    def wait_ready(self, timeout_s: float = 60.0) -> None: ...
    def start(self) -> None: ...
    def stop(self, timeout_s: float = 10.0) -> None: ...


def open_broker(kind: Literal["auto", "real", "memory"], home: Path, port: int) -> Broker:
    """Choose a broker; nothing is started. `auto` is real where Java and (prepared jars or Maven) are found.

    May take half a minute the first time (a line says so). Raises `StackError` when `real` cannot be had.
    """
    if kind == "memory":
        return MemoryBroker(home, port)
    try:
        return KafkaBroker(home, port, distribution=prepare())
    except StackError as error:
        if kind == "real":
            raise
        print(f"  in-memory broker, because: {error}", flush=True)
        return MemoryBroker(home, port)


class _Process:
    """What both brokers share: one process, one port, ready when it answers a Metadata request."""

    def __init__(self, home: Path, port: int) -> None:
        self.home, self.port = home.absolute(), port
        self.log = self.home / "logs" / "kafka.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.fresh = True

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process and self.process.poll() is None else None

    def start(self) -> None:
        """Launch and wait until a client can use it. Raises `StackError` with the cure."""
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        raise NotImplementedError

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Wait until a Metadata request names a broker; a listening port alone proves nothing."""
        if self.process is None:
            raise StackError("the broker was not launched: call launch() first")
        wait_until(lambda: answers_metadata(self.port), process=self.process, what="Kafka", log=self.log, timeout_s=timeout_s)

    def stop(self, timeout_s: float = 10.0) -> None:
        """Stop it; killed after `timeout_s`."""
        stop(self.process, how=signal.SIGTERM, timeout_s=timeout_s)

    def _require_ports(self) -> None:
        require_free_port(self.port, owner="Kafka", setting="HTTP_PORT + 102")
        require_free_port(self.port + _SECOND_PORT, owner="Kafka's controller", setting="HTTP_PORT + 105")


class MemoryBroker(_Process):
    """librdkafka's mock cluster in its own process; `control` injects faults. Everything is lost when it stops."""

    kind: Literal["real", "memory"] = "memory"

    def launch(self) -> None:
        """Start it without waiting."""
        self._require_ports()
        topics = [part for name, partitions in TOPICS.items() for part in ("--topic", f"{name}={partitions}")]
        ports = ["--port", str(self.port), "--control-port", str(self.control_port)]
        self.process = spawn(
            [sys.executable, "-m", memory_broker.__name__, *ports, *topics],
            log=self.log,
            env={**os.environ, "PYTHONPATH": str(_POM.parents[2])},
        )

    @property
    def control_port(self) -> int:
        return self.port + _SECOND_PORT

    def control(self, command: str) -> None:
        """Inject a fault; the commands are listed at `memory_broker.control`."""
        memory_broker.control(self.control_port, command)


class KafkaBroker(_Process):
    """One Apache Kafka node, broker and controller. Records and offsets survive a restart and a kill."""

    kind: Literal["real", "memory"] = "real"

    def __init__(self, home: Path, port: int, *, distribution: Distribution) -> None:
        super().__init__(home, port)
        self._distribution = distribution
        self._data = self.home / "kafka"
        self.fresh = not (self._data / "meta.properties").exists()

    def launch(self) -> None:
        """Format the data folder if it is fresh and start the node, without waiting."""
        self._require_ports()
        self.fresh = not (self._data / "meta.properties").exists()
        if self.fresh:
            self._format()
        properties = self.home / "kafka.properties"
        _write_properties(properties, self._data, port=self.port)
        command = self._distribution.command("kafka.Kafka", str(properties), archive="use")
        self.process = spawn(command, log=self.log, death_signal=signal.SIGTERM)

    def _format(self) -> None:
        """What `kafka-storage format` would write, without its second of JVM; the checkpoint names the features."""
        shutil.rmtree(self._data, ignore_errors=True)
        self._data.mkdir(parents=True)
        shutil.copyfile(self._distribution.checkpoint, self._data / "bootstrap.checkpoint")
        # Last: its presence says that the folder is complete.
        (self._data / "meta.properties").write_text(f"version=1\nnode.id=1\ncluster.id={_uuid()}\ndirectory.id={_uuid()}\n")


class Distribution:
    """Apache Kafka's jars in the cache folder, a formatted checkpoint and a class archive for this Java."""

    def __init__(self, folder: Path, java: str) -> None:
        self.folder, self.java = folder, java
        self.libraries = folder / "libs"
        self.checkpoint = folder / "bootstrap.checkpoint"
        state = Path(java).resolve()
        key = hashlib.sha256(f"{state}:{state.stat().st_mtime_ns}".encode()).hexdigest()[:12]
        self._archive = folder / f"classes-{key}.jsa"

    @property
    def complete(self) -> bool:
        return self.libraries.is_dir() and self.checkpoint.exists() and self._archive.exists()

    def command(self, main_class: str, *arguments: str, archive: Literal["none", "write", "use"]) -> list[str]:
        """The Java command line; `archive` reads or writes the class archive, which halves the start."""
        option = {
            "none": (),
            "write": (f"-XX:ArchiveClassesAtExit={self._archive}.new",),
            "use": (f"-XX:SharedArchiveFile={self._archive}",),
        }
        jars = ":".join(str(jar) for jar in sorted(self.libraries.glob("*.jar")))
        return [self.java, *_JVM, *option[archive], "-cp", jars, main_class, *arguments]

    def fetch(self, maven: str) -> None:
        """Download the jars (about 44 MB)."""
        with tempfile.TemporaryDirectory(dir=self.folder) as partial:
            shutil.copyfile(_POM, Path(partial) / "pom.xml")
            goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={partial}/libs"]
            command = [maven, "-q", "-B", "-f", f"{partial}/pom.xml", *goal]
            done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
            if done.returncode or not list(Path(partial).glob("libs/kafka_*.jar")):
                reason = next((line for line in done.stdout.splitlines() if "ERROR" in line), done.stderr.strip()[-200:])
                raise StackError(f"Maven could not fetch Apache Kafka {VERSION} ({reason[:200]}); try again online, or use --kafka memory")
            (Path(partial) / "libs").rename(self.libraries)

    def train(self) -> None:
        """Format once for the checkpoint, run once for the class archive."""
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            home, log = Path(scratch), self.folder / "prepare.log"
            log.unlink(missing_ok=True)
            port = _free_port_pair()
            properties = home / "kafka.properties"
            _write_properties(properties, home / "data", port=port)
            storage = self.command("kafka.tools.StorageTool", "format", "-t", _uuid(), "-c", str(properties), archive="none")
            if spawn(storage, log=log).wait(60) != 0:
                raise StackError(f"Kafka's storage tool failed: see {log}; Java 17 or newer is needed")
            broker = spawn(self.command("kafka.Kafka", str(properties), archive="write"), log=log)
            try:
                wait_until(lambda: answers_metadata(port), process=broker, what="Kafka's first run", log=log, timeout_s=60)
            finally:
                stop(broker, timeout_s=60)
            written = Path(f"{self._archive}.new")
            if not written.exists():
                raise StackError(f"this Java wrote no class archive: see {log}; Java 17 or newer is needed")
            written.replace(self._archive)
            (home / "data" / "bootstrap.checkpoint").replace(self.checkpoint)


def prepare() -> Distribution:
    """Apache Kafka ready to run from the cache (`PLUMBLINE_CACHE`, else ~/.cache/plumbline); fetched when absent.

    Raises `StackError` naming what is missing.
    """
    java = _java()
    folder = Path(os.environ.get("PLUMBLINE_CACHE") or Path.home() / ".cache" / "plumbline") / f"kafka-{VERSION}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StackError(f"the cache folder {folder} cannot be written ({error.strerror}): set PLUMBLINE_CACHE to one that can") from None
    distribution = Distribution(folder, java)
    if distribution.complete:
        return distribution
    with _exclusive(folder / "lock"):  # two stacks may start at once; the second finds the work done
        if not distribution.libraries.is_dir():
            maven = shutil.which("mvn")
            if maven is None:
                raise StackError("Apache Kafka needs `mvn` once to fetch its jars: install Maven, or use --kafka memory")
            print(f"  fetching Apache Kafka {VERSION} (44 MB, once) …", flush=True)
            distribution.fetch(maven)
        if not distribution.complete:
            print("  preparing Apache Kafka for a fast start (once, about 10 s) …", flush=True)
            distribution.train()
    return distribution


def answers_metadata(port: int, *, timeout_s: float = 1.0) -> bool:
    """Does a broker on 127.0.0.1:`port` answer a Metadata request (version 1, no topics) naming a broker?"""
    client = b"\x00\x09plumbline"
    request = struct.pack(">hhi", 3, 1, 7) + client + struct.pack(">i", 0)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            with connection.makefile("rb") as stream:
                size = int.from_bytes(stream.read(4))
                answer = stream.read(size)
    except OSError:
        return False
    return len(answer) >= 8 and struct.unpack_from(">ii", answer)[0] == 7 and struct.unpack_from(">i", answer, 4)[0] > 0


def _write_properties(path: Path, data: Path, *, port: int) -> None:
    controller = port + _SECOND_PORT
    properties = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "log.dirs": str(data),
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "8",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        "auto.create.topics.enable": "false",
        "broker.session.timeout.ms": "1000",  # with the heartbeat: a restart after a kill takes 2–3 s, not 12.5
        "broker.heartbeat.interval.ms": "200",
        "log.cleaner.dedupe.buffer.size": "2097152",  # the default would cost 128 MiB of heap
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    found = (shutil.which("java", path=f"{home}/bin") if home else None) or shutil.which("java")
    if found is None:
        raise StackError("Apache Kafka needs Java 17 or newer and none was found: install it, or use --kafka memory")
    return found


def _uuid() -> str:
    """16 random bytes as Kafka writes them; a leading `-` would be taken for an option."""
    return "P" + secrets.token_urlsafe(16)[1:]


def _free_port_pair() -> int:
    for _ in range(100):
        port = 20_000 + secrets.randbelow(10_000)
        try:
            for offset in (0, _SECOND_PORT):
                require_free_port(port + offset, owner="Kafka", setting="chosen")
        except StackError:
            continue
        return port
    raise StackError("no free port between 20000 and 30000 was found for Kafka's first run: end what holds them")


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
