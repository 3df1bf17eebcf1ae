"""Traces: one trace from the HTTP request through the outbox and Kafka to the last worker.

Spans are made only where a wait happens (request, statement, record, provider call).
Context travels as a W3C `traceparent` in the outbox row and in Kafka headers.
A dead collector costs nothing: the export queue is bounded and drops are counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.settings import TelemetrySettings

_EXPORT_TIMEOUT_S: Final = 2
_propagator: Final = TraceContextTextMapPropagator()
_tracer: Final = trace.get_tracer("plumbline")
_provider: TracerProvider | None = None

Attributes = Mapping[str, str | int | float | bool]


def configure(settings: TelemetrySettings, *, process: str, version: str) -> None:
    """Install the tracer provider. Call once a process; without `otlp_url` spans are made but not sent."""
    global _provider  # noqa: PLW0603 - one provider a process, made once
    resource = Resource.create({"service.name": process, "service.namespace": "orders", "service.version": version})
    _provider = TracerProvider(resource=resource, sampler=ParentBased(TraceIdRatioBased(settings.sample_ratio)))
    if settings.otlp_url:
        exporter = OTLPSpanExporter(endpoint=settings.otlp_url, timeout=_EXPORT_TIMEOUT_S)
        _provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=4096, export_timeout_millis=_EXPORT_TIMEOUT_S * 1000))
    trace.set_tracer_provider(_provider)


def shutdown() -> None:
    """Flush what is queued (bounded by the export timeout) and stop the exporter thread."""
    if _provider is not None:
        _provider.shutdown()


def traceparent() -> str | None:
    """The current context as a W3C header value; None outside a trace."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier.get("traceparent")


def remote(traceparent_value: str | None) -> Context | None:
    """The context a `traceparent` value names; None for none or a malformed one."""
    if not traceparent_value:
        return None
    context = _propagator.extract({"traceparent": traceparent_value})
    return context if trace.get_current_span(context).get_span_context().is_valid else None


def link_to(traceparent_value: str | None) -> Sequence[Link]:
    """A link to the span a `traceparent` names: retries and replays point at their first attempt."""
    context = remote(traceparent_value)
    return () if context is None else (Link(trace.get_current_span(context).get_span_context()),)


class server_span:  # noqa: N801 - reads as the verb it is
    """The span of one request: entered and left on every request, so it is a bare class instead of a generator.

    `parent`: a `traceparent` header or None. The caller names and describes the span when it is recording.
    """

    __slots__ = ("_name", "_parent", "_span", "_token")

    def __init__(self, name: str, *, parent: str | None) -> None:
        self._name, self._parent = name, parent

    def __enter__(self) -> Span:
        self._span = _tracer.start_span(self._name, context=remote(self._parent), kind=SpanKind.SERVER)
        self._token = attach(trace.set_span_in_context(self._span))
        return self._span

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        detach(self._token)
        if kind is not None:
            mark_failed(self._span, kind.__name__)
        self._span.end()


def mark_failed(span: Span, error_type: str) -> None:
    """Say that the span failed, by the error's class or status only: messages may hold data."""
    span.set_attribute("error.type", error_type)
    span.set_status(Status(StatusCode.ERROR))


@contextmanager
def span(
    name: str, kind: SpanKind = SpanKind.INTERNAL, *, parent: Context | None = None, links: Sequence[Link] = (), attributes: Attributes | None = None
) -> Iterator[Span]:
    """A span around the block; an exception marks it failed with its class name only (messages may hold data)."""
    with _tracer.start_as_current_span(
        name, context=parent, kind=kind, links=links, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield current
        except Exception as error:
            mark_failed(current, type(error).__name__)
            raise
