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
from random import getrandbits, random
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.settings import TelemetrySettings

# What a statement does and to which table: all of its text that a span may hold.
_SQL_WORD: Final = re.compile(
    r"\b(INSERT INTO|(?<!FOR )(?<!KEY )(?<!DO )UPDATE|DELETE FROM|SELECT|BEGIN|COMMIT|ROLLBACK)\b(?:\s+(\w+))?", re.IGNORECASE
)
_SQL_COMMENT: Final = re.compile(r"--.*")
_propagator: Final = TraceContextTextMapPropagator()
_tracer: Final = trace.get_tracer("plumbline")
_provider: TracerProvider | None = None
# Share of the requests without a sampled parent that are recorded; 0 until a provider is there.
_ratio = 0.0

# Within a request, which asks at every statement and call: what its server span said. Elsewhere the span itself is asked.
_unrecorded: Final[ContextVar[tuple[int, int] | None]] = ContextVar("unrecorded", default=None)  # trace id, span id
_recording: Final[ContextVar[bool | None]] = ContextVar("recording", default=None)

Attributes = Mapping[str, str | int | float | bool]


class _Root(TraceIdRatioBased):
    """Traces that begin here: of requests, `server_span` has chosen already; the rest by ratio."""

    def should_sample(
        self, parent_context: Context | None, trace_id: int, name: str, kind: SpanKind | None = None, *rest: Any, **more: Any
    ) -> SamplingResult:
        if kind is SpanKind.SERVER:
            return SamplingResult(Decision.RECORD_AND_SAMPLE)
        return super().should_sample(parent_context, trace_id, name, kind, *rest, **more)


def configure(settings: TelemetrySettings, *, process: str, version: str) -> TracerProvider:
    """Install the tracer provider and answer it. Call once a process; spans are made but not sent until `export.send` is called."""
    global _provider, _ratio  # noqa: PLW0603 - one provider a process, made once
    _ratio = settings.sample_ratio
    resource = Resource.create({"service.name": process, "service.namespace": "orders", "service.version": version})
    _provider = TracerProvider(resource=resource, sampler=ParentBased(_Root(settings.sample_ratio)))
    trace.set_tracer_provider(_provider)
    return _provider


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
    light = _unrecorded.get()
    if light is not None:
        return f"{light[0]:032x}", f"{light[1]:016x}", 0
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}", context.trace_flags


def remote(traceparent_value: str | None) -> Context | None:
    """The context a `traceparent` value names; None for none or a malformed one."""
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

    `parent`: a `traceparent` header or None. The caller names and describes the span when it is recording.
    Most requests are not sampled and have no span: ids to log and to pass on are all they need (None is entered).
    """

    __slots__ = ("_light", "_name", "_parent", "_recorded", "_span", "_token")

    _span: Span | None

    def __init__(self, name: str, *, parent: bytes | None) -> None:
        self._name, self._parent = name, parent

    def __enter__(self) -> Span | None:
        parent = None if self._parent is None else remote(self._parent.decode("latin-1"))
        if parent is not None or random() < _ratio:  # noqa: S311 - a share, no secret
            self._span = _tracer.start_span(self._name, context=parent, kind=SpanKind.SERVER)
            self._token = attach(trace.set_span_in_context(self._span))
            self._recorded = _recording.set(self._span.is_recording())
        else:
            self._span = None
            self._light = _unrecorded.set((getrandbits(128) or 1, getrandbits(64) or 1))
            self._recorded = _recording.set(False)
        return self._span

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        _recording.reset(self._recorded)
        if self._span is None:
            _unrecorded.reset(self._light)
            return
        detach(self._token)
        if kind is not None:
            mark_failed(self._span, kind.__name__)
        self._span.end()


def mark_failed(span: Span, error_type: str) -> None:
    """Say that the span failed, by the error's class or status only: messages may hold data."""
    span.set_attribute("error.type", error_type)
    span.set_status(Status(StatusCode.ERROR))


class client_span:  # noqa: N801 - reads as the verb it is
    """A span around one call to a dependency, only within a recorded trace: otherwise it costs two comparisons."""

    __slots__ = ("_attributes", "_name", "_span")

    def __init__(self, name: str, attributes: Attributes) -> None:
        self._name, self._attributes = name, attributes

    def __enter__(self) -> None:
        self._span = _tracer.start_span(self._name, kind=SpanKind.CLIENT, attributes=self._attributes) if recording() else None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        if self._span is not None:
            if kind is not None:
                mark_failed(self._span, kind.__name__)
            self._span.end()


def recording() -> bool:
    """True inside a trace that is sent to a collector."""
    known = _recording.get()
    return trace.get_current_span().is_recording() if known is None else known


def note_statement(query: Any) -> None:
    """A client span for a statement that just ended: asyncpg calls it with what it did (`add_query_logger`). Never its values."""
    name, summary = _statement_name(query.query)
    ended_ns = time.time_ns()
    attributes = {"db.system.name": "postgresql", "db.operation.name": name.partition(" ")[0], "db.query.summary": summary}
    made = _tracer.start_span(name, kind=SpanKind.CLIENT, start_time=ended_ns - int(query.elapsed * 1e9), attributes=attributes)
    if query.exception is not None:
        mark_failed(made, type(query.exception).__name__)
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


@contextmanager
def span(
    name: str, kind: SpanKind = SpanKind.INTERNAL, *, parent: Context | None = None, links: Sequence[Link] = (),
    attributes: Attributes | None = None, linger: bool = False,
) -> Iterator[Span]:  # fmt: skip
    """A span around the block; an exception marks it failed with its class name only (messages may hold data).

    `linger`: when it failed, the task goes on standing at it, so that what is done about the failure belongs to it.
    """
    made: Span | None = None
    try:
        with _tracer.start_as_current_span(
            name, context=parent, kind=kind, links=links, attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as made:
            try:
                yield made
            except Exception as error:
                mark_failed(made, type(error).__name__)
                raise
    except Exception:
        if linger and made is not None:
            stand_at(trace.set_span_in_context(made))
        raise
