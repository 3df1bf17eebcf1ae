"""Traces: one trace from the HTTP request through the outbox and Kafka to the last worker.

Spans are made only where a wait happens (request, statement, record, provider call).
Context travels as a W3C `traceparent` in the outbox row and in Kafka headers.
How they leave the process: `service/foundation/export.py`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from functools import lru_cache
from random import randbytes, random
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Self, TypeAlias

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.settings import TelemetrySettings

# What a statement does and to which table: all of its text that a span may hold.
_SQL_WORD: Final = re.compile(
    r"\b(INSERT INTO|(?<!FOR )(?<!KEY )(?<!DO )UPDATE|DELETE FROM|SELECT|BEGIN|COMMIT|ROLLBACK)\b(?:\s+(\w+))?", re.IGNORECASE
)
_SQL_COMMENT: Final = re.compile(r"--.*")
_propagator: Final = TraceContextTextMapPropagator()
_TRACEPARENT_BYTES: Final = 55  # of version 00; what a stranger sends is remembered, so no more than that
_SCOPE: Final = InstrumentationScope("plumbline")
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_FINE, _FAILED = Status(), Status(StatusCode.ERROR)
_provider: TracerProvider | None = None
# Where spans go, and what they say about the process; None until there is a collector.
_sink: SpanProcessor | None = None
_resource = Resource.get_empty()
# Share of the spans without a parent that are recorded; 0 until a provider is there.
_ratio = 0.0

Ids: TypeAlias = tuple[str, str, bool]  # trace id and span id in hexadecimal, and whether the trace is recorded
# What is being done, by a request or about a record; None outside a trace.
_current: Final[ContextVar[Ids | None]] = ContextVar("span", default=None)

Attributes = Mapping[str, str | int | float | bool]


def configure(settings: TelemetrySettings, *, process: str, version: str) -> TracerProvider:
    """Install the tracer provider and answer it. Call once a process; spans are made but not sent until `export.send` is called."""
    global _provider, _ratio, _resource  # noqa: PLW0603 - one provider a process, made once
    _ratio = settings.sample_ratio
    _resource = Resource.create({"service.name": process, "service.namespace": "orders", "service.version": version})
    _provider = TracerProvider(resource=_resource, sampler=ParentBased(TraceIdRatioBased(settings.sample_ratio)))
    trace.set_tracer_provider(_provider)
    return _provider


def hand_spans_to(sink: SpanProcessor) -> None:
    """Finished spans go there; those a library makes by the SDK go where the provider sends them."""
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


def current_ids() -> Ids | None:
    """Of what is being done; None outside a trace."""
    return _current.get()


@lru_cache(maxsize=4_096)
def remote(traceparent_value: str | None) -> Ids | None:
    """What a `traceparent` value names; None for none or a malformed one. All groups of a worker ask for the same ones."""
    if not traceparent_value:
        return None
    found = trace.get_current_span(_propagator.extract({"traceparent": traceparent_value})).get_span_context()
    return (f"{found.trace_id:032x}", f"{found.span_id:016x}", found.trace_flags.sampled) if found.is_valid else None


def link_to(ids: Ids | None) -> Sequence[Link]:
    """A link to that span: retries and replays point at their first attempt."""
    return () if ids is None else (Link(_span_context(ids)),)


def stand_at(ids: Ids | None) -> None:
    """What this task logs and sends from now on belongs to that span; for tasks that work things off one after another."""
    _current.set(ids)


class _How(NamedTuple):
    kind: SpanKind
    links: Sequence[Link]
    attributes: Attributes
    linger: bool


_REQUEST: Final = _How(SpanKind.SERVER, links=(), attributes={}, linger=False)


class span:  # noqa: N801 - reads as the verb it is
    """Something that is done, from entering to leaving: a bare class, since every request and every record pays for it.

    `parent`: where it belongs if not to what is being done. Entered it is itself, to be named and described, or None: most
    traces are not recorded, and ids to log and to pass on are all they need (docs/adr/0310: the SDK's span costs ten times as
    much). An error marks it failed, by its class only: messages may hold data. `linger`: when it failed, the task goes on
    standing at it, so that what is done about the failure belongs to it.
    """

    __slots__ = ("_how", "_ids", "_parent", "_started_ns", "_token", "attributes", "error", "name")

    _ids: Ids
    attributes: Attributes

    def __init__(
        self, name: str, kind: SpanKind = SpanKind.INTERNAL, *, parent: Ids | None = None, links: Sequence[Link] = (),
        attributes: Attributes = MappingProxyType({}), linger: bool = False,
    ) -> None:  # fmt: skip
        self.name, self._parent, self._how = name, parent, _How(kind, links, attributes, linger)

    @property
    def trace_id(self) -> str:
        """In hexadecimal."""
        return self._ids[0]

    def __enter__(self) -> Self | None:
        parent = self._parent = self._parent or _current.get()
        recorded = random() < _ratio if parent is None else parent[2]  # noqa: S311 - a share, no secret
        if parent is None or recorded or self._how is _REQUEST:
            made = randbytes(24).hex()  # noqa: S311 - names, no secrets; all zeros would not be valid, and do not happen
            self._ids = (made[:32] if parent is None else parent[0], made[32:], recorded)
        else:
            self._ids = parent
        self._token = _current.set(self._ids)
        if not recorded:
            return None
        self._started_ns, self.attributes, self.error = time.time_ns(), self._how.attributes, ""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        if kind is None or not self._how.linger:
            _current.reset(self._token)
        if self._ids[2]:
            how, failure = self._how, self.error if kind is None else kind.__name__
            times_ns = (self._started_ns, time.time_ns())
            _hand_over(
                self.name, self._ids, times_ns, kind=how.kind, parent=self._parent, attributes=self.attributes, failure=failure, links=how.links
            )


class server_span(span):  # noqa: N801 - as `span`
    """The span of one request; `parent`: its `traceparent` header, or None."""

    __slots__ = ()

    def __init__(self, name: str, *, parent: bytes | None) -> None:
        self.name, self._how = name, _REQUEST
        self._parent = None if parent is None or len(parent) > _TRACEPARENT_BYTES else remote(parent.decode("latin-1"))


def _hand_over(
    name: str, ids: Ids, times_ns: tuple[int, int], *,
    kind: SpanKind, parent: Ids | None, attributes: Attributes, failure: str, links: Sequence[Link] = (),
) -> None:  # fmt: skip
    """Queue a finished span for export. Of a failure it says the error's class or status only: messages may hold data."""
    if _sink is None:
        return
    if failure:
        attributes = {**attributes, "error.type": failure}
    _sink.on_end(
        ReadableSpan(
            name, _span_context(ids), None if parent is None else _span_context(parent), _resource, attributes, links=links, kind=kind,
            status=_FAILED if failure else _FINE, start_time=times_ns[0], end_time=times_ns[1], instrumentation_scope=_SCOPE,
        )
    )  # fmt: skip


def _hand_over_call(name: str, attributes: Attributes, times_ns: tuple[int, int], failure: str) -> None:
    """As `_hand_over`, for something that what is being done has waited for."""
    around = _current.get()
    assert around is not None  # only within a recorded trace
    ids = (around[0], randbytes(8).hex(), True)  # noqa: S311 - a name, no secret
    _hand_over(name, ids, times_ns, kind=SpanKind.CLIENT, parent=around, attributes=attributes, failure=failure)


def _span_context(ids: Ids) -> SpanContext:
    return SpanContext(int(ids[0], 16), int(ids[1], 16), is_remote=False, trace_flags=_SAMPLED if ids[2] else TraceFlags())


class client_span:  # noqa: N801 - reads as the verb it is
    """A span around one call to a dependency, only within a recorded trace: otherwise it costs two comparisons."""

    __slots__ = ("_attributes", "_name", "_started_ns")

    def __init__(self, name: str, attributes: Attributes) -> None:
        self._name, self._attributes = name, attributes

    def __enter__(self) -> None:
        around = _current.get()
        self._started_ns = time.time_ns() if around is not None and around[2] else 0

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        if self._started_ns:
            _hand_over_call(self._name, self._attributes, (self._started_ns, time.time_ns()), "" if kind is None else kind.__name__)


def recording() -> bool:
    """True inside a trace that is sent to a collector."""
    around = _current.get()
    return around is not None and around[2]


def note_statement(query: Any) -> None:
    """A client span for a statement that just ended: asyncpg calls it with what it did (`add_query_logger`). Never its values."""
    if not recording():
        return
    name, summary = _statement_name(query.query)
    ended_ns = time.time_ns()
    attributes = {"db.system.name": "postgresql", "db.operation.name": name.partition(" ")[0], "db.query.summary": summary}
    _hand_over_call(
        name, attributes, (ended_ns - int(query.elapsed * 1e9), ended_ns), "" if query.exception is None else type(query.exception).__name__
    )


@lru_cache(maxsize=512)
def _statement_name(sql: str) -> tuple[str, str]:
    """`INSERT orders`, and all that the statement does to tables."""
    found = [(verb.upper().split()[0], table) for verb, table in _SQL_WORD.findall(_SQL_COMMENT.sub("", sql))]
    writes = [f"{verb} {table}".strip() for verb, table in found if verb != "SELECT"]
    if not writes:
        tables = re.findall(r"\bFROM (\w+)\b(?!\()", sql)
        writes = [f"SELECT {table}" for table in tables] or ["SELECT"]
    return writes[0], " ".join(dict.fromkeys(writes))[:255]
