"""Spans on their way to the collector. A dead collector costs nothing: the queue is bounded and drops are counted.

OTLP over HTTP in its JSON form (OpenTelemetry Protocol specification, "JSON Protobuf Encoding"): the library's
exporter builds protobuf objects, which cost more than the request the spans are about (docs/adr/0310).
Tests: tests/unit/test_export.py, tests/unit/test_tracing.py, tests/stories/test_lost_telemetry_costs_nothing.py.
"""

from __future__ import annotations

import http.client
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from service.foundation import metrics, tracing
from service.foundation.log import get_logger

log = get_logger(__name__)

QUEUE_SPANS: Final = 4096
_TIMEOUT_S: Final = 2.0
_JSON: Final = {"content-type": "application/json"}


def send(provider: TracerProvider, *, to: str) -> None:
    """Send what `provider` and requests record to the OTLP address `to`, in the background."""
    processor = CountingProcessor(Exporter(to), max_queue_size=QUEUE_SPANS, schedule_delay_millis=1000)
    provider.add_span_processor(processor)
    tracing.hand_spans_to(processor)


class Exporter(SpanExporter):
    """One POST a batch on a connection that is kept; counts what the collector took and what it did not."""

    def __init__(self, endpoint: str, *, timeout_s: float = _TIMEOUT_S) -> None:
        place = urlsplit(endpoint)
        kind = http.client.HTTPSConnection if place.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(place.hostname or "", place.port, timeout=timeout_s)
        self._path = place.path

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Called by the exporter's own thread."""
        taken = self._deliver(encode(spans))
        (metrics.spans_exported if taken else metrics.spans_dropped.labels("export")).inc(len(spans))
        return SpanExportResult.SUCCESS if taken else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _deliver(self, body: bytes) -> bool:
        kept = self._connection.sock is not None
        try:
            return self._post(body)
        except ConnectionError:  # a kept connection may have been closed since, with nothing wrong: once more on a fresh one
            return kept and self._deliver(body)
        except (OSError, http.client.HTTPException) as error:
            log.debug("spans.not_sent", error=type(error).__name__)
            return False

    def _post(self, body: bytes) -> bool:
        try:
            self._connection.request("POST", self._path, body, _JSON)
            answer = self._connection.getresponse()
            answer.read()
        except BaseException:
            self._connection.close()
            raise
        return 200 <= answer.status < 300


def encode(spans: Sequence[ReadableSpan]) -> bytes:
    """`ExportTraceServiceRequest` of the spans of one process."""
    scopes: dict[str, list[dict[str, Any]]] = {}
    for span in spans:
        scopes.setdefault(span.instrumentation_scope.name if span.instrumentation_scope else "", []).append(_span(span))
    resource = {"attributes": _attributes(spans[0].resource.attributes)}
    made = [{"scope": {"name": name}, "spans": found} for name, found in scopes.items()]
    return orjson.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": made}]})


def _span(span: ReadableSpan) -> dict[str, Any]:
    context = span.context
    assert context is not None  # only of a span that never began
    form: dict[str, Any] = {
        "traceId": f"{context.trace_id:032x}", "spanId": f"{context.span_id:016x}", "name": span.name,
        "kind": span.kind.value + 1,  # the protocol counts from "unspecified"
        "startTimeUnixNano": str(span.start_time), "endTimeUnixNano": str(span.end_time),
        "attributes": _attributes(span.attributes or {}), "status": {"code": span.status.status_code.value},
    }  # fmt: skip
    if span.parent is not None:
        form["parentSpanId"] = f"{span.parent.span_id:016x}"
    if span.links:
        form["links"] = [{"traceId": f"{link.context.trace_id:032x}", "spanId": f"{link.context.span_id:016x}"} for link in span.links]
    return form


def _attributes(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in attributes.items()]


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"doubleValue": value} if isinstance(value, float) else {"stringValue": str(value)}


class CountingProcessor(BatchSpanProcessor):
    """The SDK drops the oldest span of a full queue without a word; this one counts it."""

    def on_end(self, span: ReadableSpan) -> None:
        if len(self._batch_processor._queue) >= QUEUE_SPANS:  # noqa: SLF001 - there is no other way to ask; test_tracing.py fails if it goes
            metrics.spans_dropped.labels("queue").inc()
        super().on_end(span)
