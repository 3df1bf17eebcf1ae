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
import string
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from service.dev import memory_broker
from service.dev.children import Server, StackError, require_free_port, spawn, stop, wait_until

VERSION: Final = "4.3.1"
TOPICS: Final[Mapping[str, int]] = {"orders.events.v1": 12, "catalog.events.v1": 6}  # as in service/events.py, held equal by a test
_HERE = Path(__file__).parent
# Measured with the class archive: 0.9-2.6 s to start and 160 MiB, instead of 5.5 s with the JVM's own choices.
_JVM = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
_NAMES = "names.txt"
_SECOND_PORT = 3  # controller (real) or control port (memory), counted from the broker's


class _BrokerServer(Server):
    name = "kafka"
    fresh = True
    advertised = 0  # another port that clients are sent to: a fault proxy's, when KAFKA_BOOTSTRAP names one

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    def answers(self) -> bool:
        return answers_metadata(self.port)

    def claim(self) -> None:
        """The port and the control port."""
        require_free_port(self.port, owner="Kafka", setting="HTTP_PORT + 102")
        require_free_port(self.port + _SECOND_PORT, owner="Kafka's control", setting="HTTP_PORT + 105")


class MemoryBroker(_BrokerServer):
    """librdkafka's mock cluster in its own process; `control` injects faults. Everything is lost when it stops."""

    kind: Final = "memory"

    @property
    def control_port(self) -> int:
        return self.port + _SECOND_PORT

    def claim(self) -> None:
        """The wheel too: said before anything runs."""
        super().claim()
        assert memory_broker.library()

    def answers(self) -> bool:
        """The control port opens last, when the topics are there."""
        if not super().answers():
            return False
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.control_port)) == 0

    def launch(self) -> None:
        self.claim()
        topics = [part for name, partitions in TOPICS.items() for part in ("--topic", f"{name}={partitions}")]
        command = [sys.executable, "-m", memory_broker.__name__, "--port", str(self.port), "--control-port", str(self.control_port), *topics]
        command += ["--advertised-port", str(self.advertised or self.port)]
        self.process = spawn(command, log=self.log, env=os.environ | {"PYTHONPATH": str(_HERE.parents[1])})

    def control(self, command: str) -> None:
        """Inject a fault; the commands are listed at `memory_broker.control`."""
        memory_broker.control(self.control_port, command)


class KafkaBroker(_BrokerServer):
    """One Apache Kafka node, broker and controller. Records and offsets survive a restart and a kill."""

    kind: Final = "real"

    def __init__(self, home: Path, port: int, *, distribution: Distribution) -> None:
        super().__init__(home, port)
        self._distribution = distribution
        self._data = self.home / "kafka"
        self.fresh = not (self._data / "meta.properties").exists()

    def launch(self) -> None:
        self.claim()
        self.fresh = not (self._data / "meta.properties").exists()
        if self.fresh:
            self._format()
        properties = _write_properties(self.home, self._data, port=self.port, advertised=self.advertised)
        self.process = spawn(self._distribution.command("kafka.Kafka", properties), log=self.log, death_signal=signal.SIGTERM)

    def _format(self) -> None:
        """What `kafka-storage format` would write, without its second of JVM; the checkpoint names the features."""
        shutil.rmtree(self._data, ignore_errors=True)
        self._data.mkdir(parents=True)
        shutil.copyfile(self._distribution.checkpoint, self._data / "bootstrap.checkpoint")
        # Last: its presence says that the folder is complete.
        (self._data / "meta.properties").write_text(f"version=1\nnode.id=1\ncluster.id={_uuid()}\ndirectory.id={_uuid()}\n")


Broker = KafkaBroker | MemoryBroker


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


class Distribution:
    """Apache Kafka's jars in the cache folder, a formatted checkpoint, and a class archive for this Java (it halves the start)."""

    def __init__(self, folder: Path, java: str) -> None:
        self._folder, self._java = folder, java
        self.libraries = folder / "libs"
        self.checkpoint = folder / "bootstrap.checkpoint"
        state = Path(java).resolve()
        key = hashlib.sha256(f"{state}:{state.stat().st_mtime_ns}".encode()).hexdigest()[:12]
        self.archive = folder / f"classes-{key}.jsa"

    def command(self, main_class: str, *arguments: str | Path, archive: str = "") -> list[str]:
        """A Java command line; `archive` replaces the option that reads the class archive."""
        jars = ":".join(str(jar) for jar in sorted(self.libraries.glob("*.jar")))
        return [self._java, *_JVM, archive or f"-XX:SharedArchiveFile={self.archive}", "-cp", jars, main_class, *map(str, arguments)]

    def complete(self) -> bool:
        """Are all jars there that were fetched? Cache folders are tidied by hand, and Java would only name a class it misses."""
        names = self.libraries / _NAMES
        listed = names.read_text().split() if names.exists() else [f"kafka_2.13-{VERSION}.jar"]  # fetched before there was a list
        return all((self.libraries / name).exists() for name in listed)

    def fetch(self) -> None:
        """Download the jars, in the place of what is there. Raises `StackError` without Maven or a network."""
        maven = shutil.which("mvn")
        if maven is None:
            raise StackError("Apache Kafka needs `mvn` once to fetch its jars: install Maven, or use --kafka memory")
        print(f"  fetching Apache Kafka {VERSION} (44 MB, once) …", flush=True)
        with tempfile.TemporaryDirectory(dir=self._folder) as partial:
            shutil.copyfile(_HERE / "kafka.pom.xml", f"{partial}/pom.xml")
            goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={partial}/libs"]
            done = subprocess.run([maven, "-q", "-B", "-f", f"{partial}/pom.xml", *goal], capture_output=True, text=True, timeout=600, check=False)
            if done.returncode or not list(Path(partial).glob("libs/kafka_*.jar")):
                reason = next((line for line in done.stdout.splitlines() if "ERROR" in line), done.stderr)[:200].strip()
                raise StackError(f"Maven could not fetch Apache Kafka {VERSION} ({reason}); try again online, or use --kafka memory")
            fetched = Path(partial, "libs")
            (fetched / _NAMES).write_text("\n".join(jar.name for jar in fetched.glob("*.jar")))
            shutil.rmtree(self.libraries, ignore_errors=True)
            self.archive.unlink(missing_ok=True)  # it is of those very files
            fetched.rename(self.libraries)

    def train(self) -> None:
        """Format once for the checkpoint, run once for the class archive."""
        print("  preparing Apache Kafka for a fast start (once, about 10 s) …", flush=True)
        log = self._folder / "prepare.log"
        log.unlink(missing_ok=True)
        port = _free_ports()
        with tempfile.TemporaryDirectory(dir=self._folder) as scratch:
            data, written = Path(scratch, "data"), Path(scratch, "classes.jsa")
            properties = _write_properties(Path(scratch), data, port=port)
            formatting = spawn(self.command("kafka.tools.StorageTool", "format", "-t", _uuid(), "-c", properties, archive="-Xshare:auto"), log=log)
            if formatting.wait(60) == 0:
                checkpoint = (data / "bootstrap.checkpoint").read_bytes()
                broker = spawn(self.command("kafka.Kafka", properties, archive=f"-XX:ArchiveClassesAtExit={written}"), log=log)
                try:
                    wait_until(lambda: answers_metadata(port), process=broker, log=log, timeout_s=60)
                finally:
                    stop(broker, timeout_s=60)
            if not written.exists():
                raise StackError(f"Apache Kafka's first run failed: see {log}; Java 17 or newer is needed")
            written.rename(self.archive)
            self.checkpoint.write_bytes(checkpoint)


def prepare() -> Distribution:
    """Apache Kafka ready to run from the cache (`PLUMBLINE_CACHE`, else ~/.cache/plumbline); fetched when absent.

    Raises `StackError` naming what is missing.
    """
    home = os.environ.get("JAVA_HOME")
    java = (shutil.which("java", path=f"{home}/bin") if home else None) or shutil.which("java")
    if java is None:
        raise StackError("Apache Kafka needs Java 17 or newer and none was found: install it, or use --kafka memory")
    folder = Path(os.environ.get("PLUMBLINE_CACHE") or Path.home() / ".cache" / "plumbline") / f"kafka-{VERSION}"
    distribution = Distribution(folder, java)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two stacks may start at once; the second finds the work done
            if not distribution.complete():
                distribution.fetch()
            if not (distribution.checkpoint.exists() and distribution.archive.exists()):
                distribution.train()
    except OSError as error:
        raise StackError(f"the cache folder {folder} cannot be written ({error.strerror}): set PLUMBLINE_CACHE to one that can") from None
    return distribution


def answers_metadata(port: int) -> bool:
    """Does a broker on 127.0.0.1:`port` answer a Metadata request (version 1, no topics) naming a broker?"""
    request = struct.pack(">hhih9si", 3, 1, 7, 9, b"plumbline", 0)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection, connection.makefile("rb") as stream:
            connection.sendall(struct.pack(">i", len(request)) + request)
            answer = stream.read(int.from_bytes(stream.read(4)))
    except OSError:
        return False
    return len(answer) >= 8 and struct.unpack_from(">i", answer, 4)[0] > 0


def _write_properties(folder: Path, data: Path, *, port: int, advertised: int = 0) -> Path:
    template = string.Template((_HERE / "kafka.properties").read_text())
    path = folder / "kafka.properties"
    path.write_text(template.substitute(port=port, advertised=advertised or port, controller=port + _SECOND_PORT, data=data))
    return path


def _uuid() -> str:
    """16 random bytes as Kafka writes them; a leading `-` would be taken for an option."""
    return "P" + secrets.token_urlsafe(16)[1:]


def _free_ports() -> int:
    for _ in range(100):
        port = 20_000 + secrets.randbelow(10_000)
        try:
            for candidate in (port, port + _SECOND_PORT):
                require_free_port(candidate, owner="Kafka", setting="chosen")
        except StackError:
            continue
        return port
    raise StackError("no free port between 20000 and 30000 was found for Kafka's first run: end what holds them")
