"""Spans on their way to the collector. A dead collector costs nothing: the queue is bounded and drops are counted.

Apart from `tracing`, because only a process that has a collector needs the exporter, protobuf and requests: a
tenth of a second and 10 MB. Tests: tests/unit/test_tracing.py, tests/stories/test_lost_telemetry_costs_nothing.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult

from service.foundation import metrics

QUEUE_SPANS: Final = 4096
_TIMEOUT_S: Final = 2


def send(provider: TracerProvider, *, to: str) -> None:
    """Send what `provider` records to the OTLP address `to`, in the background."""
    exporter = CountingExporter(endpoint=to, timeout=_TIMEOUT_S)
    provider.add_span_processor(CountingProcessor(exporter, max_queue_size=QUEUE_SPANS, schedule_delay_millis=1000))


class CountingExporter(OTLPSpanExporter):
    """Counts what the collector took and what it did not."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        counter = metrics.spans_exported if result is SpanExportResult.SUCCESS else metrics.spans_dropped.labels("export")
        counter.inc(len(spans))
        return result


class CountingProcessor(BatchSpanProcessor):
    """The SDK drops the oldest span of a full queue without a word; this one counts it."""

    def on_end(self, span: ReadableSpan) -> None:
        if len(self._batch_processor._queue) >= QUEUE_SPANS:  # noqa: SLF001 - there is no other way to ask; test_tracing.py fails if it goes
            metrics.spans_dropped.labels("queue").inc()
        super().on_end(span)
