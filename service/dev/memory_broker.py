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

_NODE = 1
_DEFAULT_PARTITIONS_RF = 1


def control(port: int, command: str, *, timeout_s: float = 5.0) -> None:
    """Send one command to the control port of a memory broker. Raises `StackError` with its answer when refused.

    `down` · `up` · `rtt <ms>` · `error <api key> <error code> <times>` · `clear <api key>` ·
    `topic <name> <partitions>` · `topic-error <name> <error code>`. Error code -195 closes the connection.
    """
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection, connection.makefile("rw") as stream:
            stream.write(command + "\n")
            stream.flush()
            answer = stream.readline().strip()
    except OSError as error:
        raise StackError(f"no memory broker answers on control port {port}: {error}; start it with `plumbline up --kafka memory`") from None
    if answer != "ok":
        raise StackError(f"the memory broker refused `{command}`: {answer or 'no answer'}")


class MockCluster:
    """One mock broker, node 1, listening on `port` of 127.0.0.1."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._library = _load()
        text = ctypes.create_string_buffer(512)
        handle = self._library.rd_kafka_new(0, self._library.rd_kafka_conf_new(), text, len(text))
        if not handle:
            raise StackError(f"librdkafka refused to start: {text.value.decode()}; reinstall it with `make setup`")
        self._cluster = self._library.rd_kafka_mock_cluster_new(handle, 1)
        # Its own default waits 3 s before the first assignment of every group.
        self._library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 0)
        self._inner_port = int(self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode().rsplit(":", 1)[1])
        self._take_port(listening=True)
        # A full round through the library's loop: a poll under way still holds the old listener.
        self.rtt("0")
        # Keeps the inner port ours while nobody listens on it: `down` binds it again.
        self._reserved = _bound_socket(self._inner_port)
        self._library.rd_kafka_mock_broker_set_host_port(self._cluster, _NODE, b"127.0.0.1", port)
        self._up = True

    def down(self) -> None:
        """Close every connection and refuse new ones; data and offsets stay."""
        if self._up:
            self._check(self._library.rd_kafka_mock_broker_set_down(self._cluster, _NODE))
            self._up = False

    def up(self) -> None:
        """Accept connections again."""
        if not self._up:
            self._take_port(listening=False)
            self._check(self._library.rd_kafka_mock_broker_set_up(self._cluster, _NODE))
            self._up = True

    def rtt(self, delay_ms: str) -> None:
        """Delay every answer."""
        self._check(self._library.rd_kafka_mock_broker_set_rtt(self._cluster, _NODE, int(delay_ms)))

    def error(self, api_key: str, code: str, times: str) -> None:
        """Answer the next `times` requests of this kind with an error code."""
        codes = (ctypes.c_int * int(times))(*[int(code)] * int(times))
        self._library.rd_kafka_mock_push_request_errors_array(self._cluster, int(api_key), len(codes), codes)

    def clear(self, api_key: str) -> None:
        """Forget errors not yet answered."""
        self._library.rd_kafka_mock_clear_request_errors(self._cluster, int(api_key))

    def topic(self, name: str, partitions: str) -> None:
        """Create a topic; others appear on first use with 4 partitions."""
        self._check(self._library.rd_kafka_mock_topic_create(self._cluster, name.encode(), int(partitions), _DEFAULT_PARTITIONS_RF))

    def topic_error(self, name: str, code: str) -> None:
        """Every request on this topic fails with `code`; 0 heals it."""
        self._library.rd_kafka_mock_topic_set_error(self._cluster, name.encode(), int(code))

    def _take_port(self, *, listening: bool) -> None:
        """Put a socket bound to our port in the place of the library's own.

        The library binds a port of the kernel's choice and can only *advertise* another, so its listening
        descriptor is replaced (`dup2`), which it cannot notice.
        """
        descriptor = _descriptor_bound_to(self._inner_port, exclude=getattr(self, "_reserved", None))
        with _bound_socket(self._port) as ours:
            if listening:
                ours.listen(128)
            os.dup2(ours.fileno(), descriptor, inheritable=False)

    def _check(self, code: int) -> None:
        if code:
            raise StackError(f"librdkafka answered error {code}")


def _bound_socket(port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setblocking(False)
    bound.bind(("127.0.0.1", port))
    return bound


def _descriptor_bound_to(port: int, *, exclude: socket.socket | None) -> int:
    for descriptor in range(3, 1024):
        if exclude is not None and descriptor == exclude.fileno():
            continue
        try:
            with socket.socket(fileno=os.dup(descriptor)) as copy:
                if copy.family == socket.AF_INET and copy.getsockname()[1] == port and not _connected(copy):
                    return descriptor
        except OSError:
            continue
    raise StackError(f"librdkafka's own listener on port {port} was not found: use `--kafka real`")


def _connected(endpoint: socket.socket) -> bool:
    try:
        endpoint.getpeername()
    except OSError:
        return False
    return True


def _load() -> ctypes.CDLL:
    spec = find_spec("confluent_kafka")
    if spec is None or spec.origin is None:
        raise StackError("the confluent-kafka wheel is missing: run `make setup` (it installs plumbline[embedded])")
    package = Path(spec.origin).parent
    found = [*package.parent.glob("confluent_kafka.libs/librdkafka*.so*"), *package.glob(".dylibs/librdkafka*.dylib")]
    if not found:
        raise StackError(f"no librdkafka beside {package}: reinstall the confluent-kafka wheel with `make setup`")
    library = ctypes.CDLL(str(found[0]))
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    signatures = {
        "conf_new": (pointer, []),
        "new": (pointer, [number, pointer, text, ctypes.c_size_t]),
        "mock_cluster_new": (pointer, [pointer, number]),
        "mock_cluster_bootstraps": (text, [pointer]),
        "mock_group_initial_rebalance_delay_ms": (None, [pointer, ctypes.c_int32]),
        "mock_broker_set_host_port": (None, [pointer, ctypes.c_int32, text, number]),
        "mock_broker_set_down": (number, [pointer, ctypes.c_int32]),
        "mock_broker_set_up": (number, [pointer, ctypes.c_int32]),
        "mock_broker_set_rtt": (number, [pointer, ctypes.c_int32, number]),
        "mock_topic_create": (number, [pointer, text, number, number]),
        "mock_topic_set_error": (None, [pointer, text, number]),
        "mock_clear_request_errors": (None, [pointer, ctypes.c_int16]),
        "mock_push_request_errors_array": (None, [pointer, ctypes.c_int16, ctypes.c_size_t, pointer]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, f"rd_kafka_{name}")
        function.restype, function.argtypes = result, arguments
    return library


class _Control(socketserver.StreamRequestHandler):
    server: _ControlServer

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(self._answer(line.decode(errors="replace").split()).encode() + b"\n")

    def _answer(self, words: list[str]) -> str:
        cluster = self.server.cluster
        commands: dict[str, Callable[..., None]] = {
            **{"down": cluster.down, "up": cluster.up, "rtt": cluster.rtt, "error": cluster.error, "clear": cluster.clear},
            **{"topic": cluster.topic, "topic-error": cluster.topic_error},
        }
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
    parser.add_argument("--topic", action="append", default=[], metavar="NAME=PARTITIONS")
    options = parser.parse_args()
    # Nothing to save, and librdkafka's threads need no goodbye.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    try:
        cluster = MockCluster(options.port)
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
