"""What a collector is sent: read back by the published schema, on a connection that is kept and made anew."""

from __future__ import annotations

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode

from service.foundation import export, metrics
from tests.support.otlp import parsed, receiving

_FIRST, _OTHER = SpanContext(2**127 + 1, 2**63 + 1, is_remote=False), SpanContext(7, 8, is_remote=True)


def _span(name: str = "GET /v1/orders") -> ReadableSpan:
    attributes = {"text": "é", "whole": 2**53 + 1, "share": 0.5, "yes": True}
    return ReadableSpan(
        name, _FIRST, _OTHER, Resource({"service.name": "orders-api"}), attributes, kind=SpanKind.SERVER, links=[Link(_OTHER)],
        status=Status(StatusCode.ERROR), start_time=1_795_707_000_123_456_789, end_time=1_795_707_000_123_456_790,
    )  # fmt: skip


def test_every_field_of_a_span_arrives() -> None:
    [resource] = parsed(export.encode([_span()])).resource_spans
    assert resource.resource.attributes[0].value.string_value == "orders-api"
    [span] = resource.scope_spans[0].spans
    assert (span.name, span.kind, span.status.code) == ("GET /v1/orders", 2, 2)
    assert (int.from_bytes(span.trace_id, "big"), int.from_bytes(span.span_id, "big")) == (2**127 + 1, 2**63 + 1)
    assert (int.from_bytes(span.parent_span_id, "big"), int.from_bytes(span.links[0].span_id, "big")) == (8, 8)
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (1_795_707_000_123_456_789, 1_795_707_000_123_456_790)
    values = {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in span.attributes}
    assert values == {"text": "é", "whole": 2**53 + 1, "share": 0.5, "yes": True}
    assert type(values["yes"]) is bool


def test_spans_of_the_sdk_and_of_requests_share_a_batch() -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    made = provider.get_tracer("plumbline").start_span("publish", kind=SpanKind.PRODUCER)
    made.end()
    assert isinstance(made, ReadableSpan)
    [resource] = parsed(export.encode([_span(), made])).resource_spans
    assert sorted(span.name for scope in resource.scope_spans for span in scope.spans) == ["GET /v1/orders", "publish"]


def test_a_collector_that_was_restarted_loses_nothing_and_one_that_refuses_is_counted() -> None:
    with receiving() as (first, endpoint):
        exporter = export.Exporter(endpoint, timeout_s=2.0)
        assert exporter.export([_span("one")]) is SpanExportResult.SUCCESS
        port = int(endpoint.split(":")[2].partition("/")[0])
    assert exporter.export([_span("nobody there")]) is SpanExportResult.FAILURE
    with receiving(port) as (second, _):
        assert exporter.export([_span("two"), _span("three")]) is SpanExportResult.SUCCESS
        second.mode = "refuse"
        before = metrics.registry.get_sample_value("orders_spans_dropped_total", {"reason": "export"}) or 0.0
        assert exporter.export([_span("four")]) is SpanExportResult.FAILURE
        assert metrics.registry.get_sample_value("orders_spans_dropped_total", {"reason": "export"}) == before + 1
    exporter.shutdown()
    assert [span.name for span in (*first.spans, *second.spans)] == ["one", "two", "three"]
