"""Traces: one trace from the HTTP request through the outbox and Kafka to the last worker.

Spans are made only where a wait happens (request, statement, record, provider call).
Context travels as a W3C `traceparent` in the outbox row and in Kafka headers.
How they leave the process: `service/foundation/export.py`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from random import randbytes, random
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context, attach
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.settings import TelemetrySettings

# What a statement does and to which table: all of its text that a span may hold.
_SQL_WORD: Final = re.compile(
    r"\b(INSERT INTO|(?<!FOR )(?<!KEY )(?<!DO )UPDATE|DELETE FROM|SELECT|BEGIN|COMMIT|ROLLBACK)\b(?:\s+(\w+))?", re.IGNORECASE
)
_SQL_COMMENT: Final = re.compile(r"--.*")
_propagator: Final = TraceContextTextMapPropagator()
_tracer: Final = trace.get_tracer("plumbline")
_SCOPE: Final = InstrumentationScope("plumbline")
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_FINE, _FAILED = Status(), Status(StatusCode.ERROR)
_provider: TracerProvider | None = None
# Where the spans of requests go, and what they say about the process; None until there is a collector.
_sink: SpanProcessor | None = None
_resource = Resource.get_empty()
# Share of the requests without a parent that are recorded; 0 until a provider is there.
_ratio = 0.0

# Within a request: its trace id and span id in hexadecimal, and whether it is recorded. Elsewhere the SDK's own context holds.
_request: Final[ContextVar[tuple[str, str, bool] | None]] = ContextVar("request", default=None)

Attributes = Mapping[str, str | int | float | bool]


def configure(settings: TelemetrySettings, *, process: str, version: str) -> TracerProvider:
    """Install the tracer provider and answer it. Call once a process; spans are made but not sent until `export.send` is called."""
    global _provider, _ratio, _resource  # noqa: PLW0603 - one provider a process, made once
    _ratio = settings.sample_ratio
    _resource = Resource.create({"service.name": process, "service.namespace": "orders", "service.version": version})
    _provider = TracerProvider(resource=_resource, sampler=ParentBased(TraceIdRatioBased(settings.sample_ratio)))
    trace.set_tracer_provider(_provider)
    return _provider


def hand_requests_to(sink: SpanProcessor) -> None:
    """The finished spans of recorded requests go there; the SDK's own go where the provider sends them."""
    global _sink  # noqa: PLW0603 - one a process
    _sink = sink


def shutdown() -> None:
    """Flush what is queued (bounded by the export timeout) and stop the exporter thread."""
    if _provider is not None:
        _provider.shutdown()


def traceparent() -> str | None:
    """The current context as a W3C header value; None outside a trace."""
    ids = current_ids()
    return None if ids is None else f"00-{ids[0]}-{ids[1]}-{ids[2]:02x}"  # W3C Trace Context, version 00


def current_ids() -> tuple[str, str, int] | None:
    """Trace id and span id in hexadecimal, and the flags, of what is being done; None outside a trace."""
    request = _request.get()
    if request is not None:
        return request
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}", context.trace_flags


@lru_cache(maxsize=4_096)
def remote(traceparent_value: str | None) -> Context | None:
    """The context a `traceparent` value names; None for none or a malformed one. All groups of a worker ask for the same ones."""
    if not traceparent_value:
        return None
    context = _propagator.extract({"traceparent": traceparent_value})
    return context if trace.get_current_span(context).get_span_context().is_valid else None


def link_to(context: Context | None) -> Sequence[Link]:
    """A link to the span of a context: retries and replays point at their first attempt."""
    found = trace.get_current_span(context).get_span_context()
    return (Link(found),) if found.is_valid else ()


def stand_at(context: Context | None) -> None:
    """What this task logs and sends from now on belongs to `context`; for tasks that work things off one after another."""
    attach(context or Context())


class server_span:  # noqa: N801 - reads as the verb it is
    """The span of one request: entered and left on every request, so it is a bare class instead of a generator.

    `parent`: a `traceparent` header or None. Entered it is itself, to be named and described, or None: most requests
    are not recorded, and ids to log and to pass on are all they need. The SDK's own span costs ten times as much.
    """

    __slots__ = ("_ids", "_parent", "_started_ns", "_token", "attributes", "error", "name")

    _parent: SpanContext | None
    attributes: Attributes

    def __init__(self, name: str, *, parent: bytes | None) -> None:
        self.name, self._parent = name, None
        if parent is not None and (context := remote(parent.decode("latin-1"))) is not None:
            self._parent = trace.get_current_span(context).get_span_context()

    @property
    def trace_id(self) -> str:
        """In hexadecimal."""
        return self._ids[0]

    def __enter__(self) -> server_span | None:
        parent = self._parent
        recorded = random() < _ratio if parent is None else parent.trace_flags.sampled  # noqa: S311 - a share, no secret
        made = randbytes(24).hex()  # noqa: S311 - names, no secrets; all zeros would not be valid, and do not happen
        self._ids = (made[:32] if parent is None else f"{parent.trace_id:032x}", made[32:], recorded)
        self._token = _request.set(self._ids)
        if not recorded:
            return None
        self._started_ns, self.attributes, self.error = time.time_ns(), {}, ""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        _request.reset(self._token)
        if self._ids[2]:
            failure = self.error if kind is None else kind.__name__
            times_ns = (self._started_ns, time.time_ns())
            _hand_over(self.name, self._ids, times_ns, kind=SpanKind.SERVER, parent=self._parent, attributes=self.attributes, failure=failure)


def _hand_over(
    name: str, ids: tuple[str, str, bool], times_ns: tuple[int, int], *,
    kind: SpanKind, parent: SpanContext | None, attributes: Attributes, failure: str,
) -> None:  # fmt: skip
    """Queue a finished span of a request for export. Of a failure it says the error's class or status only: messages may hold data."""
    if _sink is None:
        return
    context = _span_context(ids)
    if failure:
        attributes = {**attributes, "error.type": failure}
    _sink.on_end(
        ReadableSpan(
            name, context, parent, _resource, attributes, kind=kind, status=_FAILED if failure else _FINE,
            start_time=times_ns[0], end_time=times_ns[1], instrumentation_scope=_SCOPE,
        )
    )  # fmt: skip


def _hand_over_call(name: str, attributes: Attributes, times_ns: tuple[int, int], failure: str) -> None:
    """As `_hand_over`, for something the recorded request of this context waited for."""
    request = _request.get()
    assert request is not None  # only a recorded request asks
    ids = (request[0], randbytes(8).hex(), True)  # noqa: S311 - a name, no secret
    _hand_over(name, ids, times_ns, kind=SpanKind.CLIENT, parent=_span_context(request), attributes=attributes, failure=failure)


def _span_context(ids: tuple[str, str, bool]) -> SpanContext:
    return SpanContext(int(ids[0], 16), int(ids[1], 16), is_remote=False, trace_flags=_SAMPLED if ids[2] else TraceFlags())


def mark_failed(span: Span, error_type: str) -> None:
    """Say that the span failed, by the error's class or status only: messages may hold data."""
    span.set_attribute("error.type", error_type)
    span.set_status(Status(StatusCode.ERROR))


class client_span:  # noqa: N801 - reads as the verb it is
    """A span around one call to a dependency, only within a recorded trace: otherwise it costs two comparisons."""

    __slots__ = ("_attributes", "_name", "_span", "_started_ns")

    def __init__(self, name: str, attributes: Attributes) -> None:
        self._name, self._attributes = name, attributes

    def __enter__(self) -> None:
        self._span: Span | None = None
        request = _request.get()
        self._started_ns = time.time_ns() if request is not None and request[2] else 0
        if request is None and recording():
            self._span = _tracer.start_span(self._name, kind=SpanKind.CLIENT, attributes=self._attributes)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        failure = "" if kind is None else kind.__name__
        if self._started_ns:
            _hand_over_call(self._name, self._attributes, (self._started_ns, time.time_ns()), failure)
        elif self._span is not None:
            if failure:
                mark_failed(self._span, failure)
            self._span.end()


def recording() -> bool:
    """True inside a trace that is sent to a collector."""
    request = _request.get()
    return trace.get_current_span().is_recording() if request is None else request[2]


def note_statement(query: Any) -> None:
    """A client span for a statement that just ended: asyncpg calls it with what it did (`add_query_logger`). Never its values."""
    if _request.get() is None and _unrecorded(trace.get_current_span()):
        return
    name, summary = _statement_name(query.query)
    ended_ns = time.time_ns()
    started_ns = ended_ns - int(query.elapsed * 1e9)
    attributes = {"db.system.name": "postgresql", "db.operation.name": name.partition(" ")[0], "db.query.summary": summary}
    failure = "" if query.exception is None else type(query.exception).__name__
    if _request.get() is not None:
        _hand_over_call(name, attributes, (started_ns, ended_ns), failure)
        return
    made = _tracer.start_span(name, kind=SpanKind.CLIENT, start_time=started_ns, attributes=attributes)
    if failure:
        mark_failed(made, failure)
    made.end(ended_ns)


@lru_cache(maxsize=512)
def _statement_name(sql: str) -> tuple[str, str]:
    """`INSERT orders`, and all that the statement does to tables."""
    found = [(verb.upper().split()[0], table) for verb, table in _SQL_WORD.findall(_SQL_COMMENT.sub("", sql))]
    writes = [f"{verb} {table}".strip() for verb, table in found if verb != "SELECT"]
    if not writes:
        tables = re.findall(r"\bFROM (\w+)\b(?!\()", sql)
        writes = [f"SELECT {table}" for table in tables] or ["SELECT"]
    return writes[0], " ".join(dict.fromkeys(writes))[:255]


def _unrecorded(around: Span) -> bool:
    """True within a trace nobody records: the SDK would make a span to throw away, for ten times the work."""
    context = around.get_span_context()
    return context.is_valid and not context.trace_flags.sampled


@contextmanager
def span(
    name: str, kind: SpanKind = SpanKind.INTERNAL, *, parent: Context | None = None, links: Sequence[Link] = (),
    attributes: Attributes | None = None, linger: bool = False,
) -> Iterator[Span]:  # fmt: skip
    """A span around the block; an exception marks it failed with its class name only (messages may hold data).

    `linger`: when it failed, the task goes on standing at it, so that what is done about the failure belongs to it.
    """
    made: Span | None = None
    if parent is None and (request := _request.get()) is not None:
        parent = trace.set_span_in_context(NonRecordingSpan(_span_context(request)))
    quiet: Any = {"record_exception": False, "set_status_on_exception": False}
    if _unrecorded(around := trace.get_current_span(parent)):
        entered = trace.use_span(around, **quiet)
    else:
        entered = _tracer.start_as_current_span(name, context=parent, kind=kind, links=links, attributes=attributes, **quiet)
    try:
        with entered as made:
            try:
                yield made
            except Exception as error:
                mark_failed(made, type(error).__name__)
                raise
    except Exception:
        if linger and made is not None:
            stand_at(trace.set_span_in_context(made))
        raise
