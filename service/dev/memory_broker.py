"""The in-memory Kafka: librdkafka's mock cluster in a process of its own, on a fixed port, with a control port.

Real wire protocol, no durability: everything is gone when it ends, and a partition is trimmed at 5 MiB.
One command a line on the control port (`control`): down, up, rtt, error, clear, topic, topic-error.
When it fails no event is delivered. Test: `tests/integration/test_embedded_servers.py`.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import socket
import socketserver
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from service.dev.children import StackError

_NODE, _REPLICAS = 1, 1


def control(port: int, command: str) -> None:
    """Send one command to the control port of a memory broker. Raises `StackError` with its answer when refused.

    `down` · `up` · `rtt <ms>` · `error <api key> <error code> <times>` · `clear <api key>` ·
    `topic <name> <partitions>` · `topic-error <name> <error code>`. Error code -195 closes the connection.
    """
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection, connection.makefile("rw") as stream:
            stream.write(command + "\n")
            stream.flush()
            answer = stream.readline().strip()
    except OSError as error:
        raise StackError(f"no memory broker answers on control port {port}: {error}; start it with `plumbline up --kafka memory`") from None
    if answer != "ok":
        raise StackError(f"the memory broker refused `{command}`: {answer or 'no answer'}")


class MockCluster:
    """One mock broker, node 1, listening on `port` of 127.0.0.1 and sending its clients to `advertised`."""

    def __init__(self, port: int, advertised: int) -> None:
        self._port = port
        self._library = _load()
        self._handle = ctypes.c_void_p(self._library.rd_kafka_new(0, ctypes.c_void_p(self._library.rd_kafka_conf_new()), None, 0))
        self._cluster = ctypes.c_void_p(self._library.rd_kafka_mock_cluster_new(self._handle, 1))
        if not self._cluster:
            raise StackError("librdkafka's mock cluster did not start: the confluent-kafka wheel is damaged: delete .venv and run `make setup`")
        # Its own default waits 3 s before the first assignment of every group.
        self._library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 0)
        self._inner_port = int(self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode().rsplit(":", 1)[1])
        self._take_port(backlog=128)
        # A full round through the library's loop: a poll under way still holds the old listener.
        self.rtt("0")
        # Keeps the inner port ours while nobody listens on it: `down` binds it again.
        self._reserved = _bound_socket(self._inner_port)
        self._library.rd_kafka_mock_broker_set_host_port(self._cluster, _NODE, b"127.0.0.1", advertised)
        self._up = True

    def down(self) -> None:
        """Close every connection and refuse new ones; data and offsets stay."""
        if self._up:
            self._call("broker_set_down", _NODE)
            self._up = False

    def up(self) -> None:
        """Accept connections again."""
        if not self._up:
            self._take_port(backlog=None, exclude=self._reserved.fileno())
            self._call("broker_set_up", _NODE)
            self._up = True

    def rtt(self, delay_ms: str) -> None:
        """Delay every answer."""
        self._call("broker_set_rtt", _NODE, int(delay_ms))

    def error(self, api_key: str, code: str, times: str) -> None:
        """Answer the next `times` requests of this kind with an error code."""
        codes = (ctypes.c_int * int(times))(*[int(code)] * int(times))
        self._library.rd_kafka_mock_push_request_errors_array(self._cluster, int(api_key), ctypes.c_size_t(len(codes)), codes)

    def clear(self, api_key: str) -> None:
        """Forget errors not yet answered."""
        self._library.rd_kafka_mock_clear_request_errors(self._cluster, int(api_key))

    def topic(self, name: str, partitions: str) -> None:
        """Create a topic; others appear on first use with 4 partitions."""
        self._call("topic_create", name.encode(), int(partitions), _REPLICAS)

    def topic_error(self, name: str, code: str) -> None:
        """Every request on this topic fails with `code`; 0 heals it."""
        self._library.rd_kafka_mock_topic_set_error(self._cluster, name.encode(), int(code))

    def _call(self, function: str, *arguments: int | bytes) -> None:
        code = getattr(self._library, f"rd_kafka_mock_{function}")(self._cluster, *arguments)
        if code:
            raise StackError(f"librdkafka's {function} answered error {code}")

    def _take_port(self, *, backlog: int | None, exclude: int = -1) -> None:
        """Put a socket bound to our port in the place of the library's own; it listens unless `backlog` is None.

        The library binds a port of the kernel's choice and can only *advertise* another, so its listening
        descriptor is replaced (`dup2`), which it cannot notice.
        """
        with _bound_socket(self._port) as ours:
            if backlog is not None:
                ours.listen(backlog)
            os.dup2(ours.fileno(), _descriptor_bound_to(self._inner_port, exclude=exclude), inheritable=False)


def _bound_socket(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.settimeout(0)  # librdkafka's loop must never block in accept
    bound.bind(("127.0.0.1", port))
    return bound


def _descriptor_bound_to(port: int, *, exclude: int) -> int:
    for descriptor in set(range(3, 1024)) - {exclude}:
        try:
            with socket.socket(fileno=os.dup(descriptor)) as copy:
                if copy.getsockname() == ("127.0.0.1", port):
                    return descriptor
        except OSError:
            continue
    raise StackError(f"librdkafka's own listener on port {port} was not found: use `--kafka real`")


def library() -> Path:
    """The wheel's librdkafka. Raises `StackError` with the cure when it is not there."""
    spec = find_spec("confluent_kafka")
    if spec is None or spec.origin is None:
        raise StackError("the confluent-kafka wheel is missing: run `make -B setup` (it installs plumbline[embedded] again)")
    package = Path(spec.origin).parent
    found = [*package.parent.glob("confluent_kafka.libs/librdkafka*.so*"), *package.glob(".dylibs/librdkafka*.dylib")]
    if not found:
        raise StackError(f"no librdkafka beside {package}: the confluent-kafka wheel is damaged: delete .venv and run `make setup`")
    return found[0]


def _load() -> ctypes.CDLL:
    loaded = ctypes.CDLL(str(library()))
    for name in ("conf_new", "new", "mock_cluster_new"):
        getattr(loaded, f"rd_kafka_{name}").restype = ctypes.c_void_p
    loaded.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    return loaded


class _Control(socketserver.StreamRequestHandler):
    server: _ControlServer

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(self._answer(line.decode(errors="replace").split()).encode() + b"\n")

    def _answer(self, words: list[str]) -> str:
        cluster = self.server.cluster
        known = (cluster.down, cluster.up, cluster.rtt, cluster.error, cluster.clear, cluster.topic, cluster.topic_error)
        commands: dict[str, Callable[..., None]] = {command.__name__.replace("_", "-"): command for command in known}
        if not words or words[0] not in commands:
            return f"unknown command; known: {', '.join(commands)}"
        try:
            commands[words[0]](*words[1:])
        except (TypeError, ValueError, OSError, StackError) as error:
            return f"{type(error).__name__}: {error}"
        return "ok"


class _ControlServer(socketserver.TCPServer):
    allow_reuse_address = True

    def __init__(self, port: int, cluster: MockCluster) -> None:
        self.cluster = cluster
        super().__init__(("127.0.0.1", port), _Control)


def main() -> int:
    """`python -m service.dev.memory_broker --port P --control-port C [--topic NAME=PARTITIONS …]`; ends on SIGTERM."""
    parser = argparse.ArgumentParser(description="Kafka's protocol in memory, for development")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--control-port", type=int, required=True)
    parser.add_argument("--advertised-port", type=int)
    parser.add_argument("--topic", action="append", default=[], metavar="NAME=PARTITIONS")
    options = parser.parse_args()
    # Nothing to save, and librdkafka's threads need no goodbye.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    try:
        cluster = MockCluster(options.port, options.advertised_port or options.port)
        for topic in options.topic:
            cluster.topic(*topic.split("=", 1))
        with _ControlServer(options.control_port, cluster) as server:
            server.serve_forever()
    except (StackError, OSError) as error:
        print(f"memory broker: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
