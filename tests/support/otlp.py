"""An OTLP/HTTP receiver for tests: it decodes what real exporters send, and can be slow, refuse, or go away.

Spans are kept as plain values. Test of itself: the stories that use it fail without a single span.
"""

from __future__ import annotations

import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import orjson
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

Mode = Literal["ok", "slow", "refuse"]
SLOW_S = 30.0
_KINDS = {1: "internal", 2: "server", 3: "client", 4: "producer", 5: "consumer"}


@dataclass(frozen=True, slots=True)
class Seen:
    """One span as it arrived."""

    trace: str
    id: str
    parent: str
    process: str
    name: str
    kind: str
    attributes: dict[str, Any]
    links: tuple[str, ...]
    failed: bool
    started_ns: int
    ended_ns: int


class Receiver:
    """What arrived, and how the next requests are answered."""

    def __init__(self) -> None:
        self.mode: Mode = "ok"
        self.spans: list[Seen] = []
        self.raw: list[bytes] = []
        self.requests = 0
        self.ending = threading.Event()
        self.stop: Callable[[], None] = lambda: None

    def of(self, trace: str) -> list[Seen]:
        """The spans of a trace, by their beginning."""
        return sorted((span for span in list(self.spans) if span.trace == trace), key=lambda span: span.started_ns)

    def take(self, body: bytes) -> None:
        """Decode one export."""
        self.raw.append(body)
        for resource in parsed(body).resource_spans:
            process = _plain(resource.resource.attributes).get("service.name", "")
            self.spans += [_seen(process, span) for scope in resource.scope_spans for span in scope.spans]


def parsed(body: bytes) -> Any:
    """An export in OTLP's JSON form, by the published schema: a field it does not know is refused."""
    document = orjson.loads(body)
    for resource in document["resourceSpans"]:
        for span in (span for scope in resource["scopeSpans"] for span in scope["spans"]):
            for part in (span, *span.get("links", ())):
                # Where protobuf's JSON has base64, OTLP's has ids in hexadecimal.
                part |= {name: b64encode(bytes.fromhex(part[name])).decode() for name in ("traceId", "spanId", "parentSpanId") if name in part}
    return json_format.ParseDict(document, ExportTraceServiceRequest())


def tree(spans: Iterable[Seen]) -> str:
    """The trace as a person reads it: children under parents, links named."""
    spans = list(spans)
    names = {span.id: span.name for span in spans}
    lines: list[str] = []

    def show(span: Seen, depth: int) -> None:
        linked = "".join(f"  ↷ {names.get(link, link)}" for link in span.links)
        failed = f"  ! {span.attributes.get('error.type', '')}" if span.failed else ""
        lines.append(f"{'  ' * depth}{span.name}  [{span.process} {span.kind}] {(span.ended_ns - span.started_ns) / 1e6:.1f} ms{failed}{linked}")
        for child in spans:
            if child.parent == span.id:
                show(child, depth + 1)

    for span in spans:
        if span.parent not in names:
            show(span, 0)
    return "\n".join(lines)


@contextmanager
def receiving(port: int = 0) -> Iterator[tuple[Receiver, str]]:
    """A receiver on loopback and its traces endpoint."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.requests += 1
            if receiver.mode == "slow":
                receiver.ending.wait(SLOW_S)
            if receiver.mode == "ok":
                receiver.take(body)
            self.send_response(200 if receiver.mode == "ok" else 503)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()

    def stop() -> None:
        """Go away: the port refuses from now on."""
        receiver.ending.set()
        server.shutdown()
        server.server_close()

    receiver.stop = stop
    try:
        yield receiver, f"http://127.0.0.1:{server.server_address[1]}/v1/traces"
    finally:
        stop()
        thread.join(5)


def wait_for(receiver: Receiver, trace: str, names: set[str], *, root: str, deadline_s: float = 60.0) -> list[Seen]:
    """The spans of `trace` once all `names` are among them and each one's parent is, up to the client's own span `root`.

    Processes export each in its own time: what a worker did last may arrive before the request that began it.
    Raises `AssertionError` naming what is missing.
    """
    deadline = time.monotonic() + deadline_s
    while missing := _missing(receiver.of(trace), names, root):
        assert time.monotonic() < deadline, f"{missing} did not arrive; there is\n{tree(receiver.of(trace))}"
        time.sleep(0.1)
    return receiver.of(trace)


def _missing(spans: list[Seen], names: set[str], root: str) -> list[str]:
    known = {root} | {span.id for span in spans}
    orphans = {f"the parent of {span.name}" for span in spans if span.parent not in known}
    return sorted(orphans | (names - {span.name for span in spans}))


def _seen(process: str, span: Any) -> Seen:
    return Seen(
        span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(), process, span.name, _KINDS.get(span.kind, "?"),
        _plain(span.attributes), tuple(link.span_id.hex() for link in span.links), span.status.code == 2,
        span.start_time_unix_nano, span.end_time_unix_nano,
    )  # fmt: skip


def _plain(attributes: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in attributes}
