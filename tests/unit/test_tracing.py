"""Spans: what a statement is called, what a full queue and a refusing collector cost, and what a failed attempt leaves behind."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from service.foundation import export, metrics, tracing
from service.foundation.sql import load_sql
from service.orders import placing


def _lost(reason: str) -> float:
    return metrics.registry.get_sample_value("orders_spans_dropped_total", {"reason": reason}) or 0.0


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    kept = InMemorySpanExporter()
    monkeypatch.setattr(tracing, "_sink", SimpleSpanProcessor(kept))
    monkeypatch.setattr(tracing, "_ratio", 1.0)
    return kept


@pytest.mark.parametrize(
    ("sql", "name", "summary"),
    [
        ("SELECT a, b FROM orders WHERE id = $1 FOR UPDATE SKIP LOCKED", "SELECT orders", "SELECT orders"),
        ("UPDATE orders SET status = $1", "UPDATE orders", "UPDATE orders"),
        ("INSERT INTO inbox VALUES ($1) ON CONFLICT DO UPDATE SET x = 1", "INSERT inbox", "INSERT inbox"),
        ("BEGIN;", "BEGIN", "BEGIN"),
        ("SELECT 'secret'", "SELECT", "SELECT"),
        (
            load_sql(placing.__file__, "place_order.sql"),
            "INSERT idempotency_key",
            "INSERT idempotency_key INSERT orders INSERT order_line INSERT outbox",
        ),
    ],
)
def test_a_statement_is_named_by_what_it_does(sql: str, name: str, summary: str) -> None:
    assert tracing._statement_name(sql) == (name, summary)


def test_a_statement_span_holds_no_values(spans: InMemorySpanExporter) -> None:
    query = SimpleNamespace(query="UPDATE orders SET note = 'canary' WHERE id = $1", args=("canary",), elapsed=0.25, exception=ValueError("canary"))
    with tracing.span("request"):
        tracing.note_statement(query)
    statement, request = spans.get_finished_spans()
    assert statement.parent is not None
    assert statement.parent.span_id == request.context.span_id
    assert statement.end_time - statement.start_time == 250_000_000
    assert statement.attributes["error.type"] == "ValueError"
    assert "canary" not in statement.to_json()


def test_a_dependency_is_a_span_only_inside_a_trace(spans: InMemorySpanExporter) -> None:
    with tracing.client_span("redis", {}):
        pass
    assert spans.get_finished_spans() == ()
    with tracing.span("request"), tracing.client_span("redis", {}):
        pass
    assert [span.name for span in spans.get_finished_spans()] == ["redis", "request"]


def test_what_is_done_about_a_failure_belongs_to_the_first_attempt(spans: InMemorySpanExporter) -> None:
    with pytest.raises(KeyError), tracing.span("first", linger=True):
        raise KeyError("secret")
    standing = tracing.current_ids()
    tracing.stand_at(None)
    (first,) = spans.get_finished_spans()
    assert standing == (f"{first.context.trace_id:032x}", f"{first.context.span_id:016x}", True)
    assert first.attributes["error.type"] == "KeyError"
    assert tracing.current_ids() is None
    assert "secret" not in first.to_json()


def test_a_collector_that_refuses_is_counted() -> None:
    exporter = export.Exporter("http://127.0.0.1:9/v1/traces", timeout_s=0.2)
    provider = TracerProvider(shutdown_on_exit=False)
    processor = export.CountingProcessor(exporter, max_queue_size=export.QUEUE_SPANS, schedule_delay_millis=10)
    provider.add_span_processor(processor)
    before = _lost("export")
    for _ in range(3):
        provider.get_tracer("test").start_span("lost").end()
    provider.shutdown()
    assert _lost("export") - before == 3


def test_a_full_queue_is_counted() -> None:
    exporter = export.Exporter("http://127.0.0.1:9/v1/traces", timeout_s=0.2)
    exporter.export = lambda spans: (_ for _ in ()).throw(AssertionError)  # type: ignore[method-assign]  # never reached
    processor = export.CountingProcessor(
        exporter, max_queue_size=export.QUEUE_SPANS, schedule_delay_millis=60_000, max_export_batch_size=export.QUEUE_SPANS
    )
    processor._batch_processor._worker_awaken.set = lambda: None  # type: ignore[method-assign]  # a collector that never answers
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    before = _lost("queue")
    for _ in range(export.QUEUE_SPANS + 5):
        provider.get_tracer("test").start_span("queued").end()
    assert _lost("queue") - before == 5
    assert len(processor._batch_processor._queue) == export.QUEUE_SPANS


def test_a_request_that_is_not_recorded_has_ids_to_log_and_to_pass_on_and_leaves_none_behind(
    spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "_ratio", 0.0)
    with tracing.server_span("GET", parent=None) as span:
        assert span is None
        assert not tracing.recording()
        ids = tracing.current_ids()
        assert ids is not None
        assert tracing.traceparent() == f"00-{ids[0]}-{ids[1]}-00"
        assert tracing.remote(tracing.traceparent()) is not None, "a worker can go on from it"
        with tracing.client_span("redis call", {}):
            pass
    assert (tracing.current_ids(), tracing.traceparent()) == (None, None)
    assert spans.get_finished_spans() == ()


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_a_callers_trace_is_gone_on_with_whatever_the_share(spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch, ratio: float) -> None:
    monkeypatch.setattr(tracing, "_ratio", ratio)
    with tracing.server_span("GET", parent=b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01") as span:
        assert span is not None
        assert tracing.recording()
        ids = tracing.current_ids()
        assert ids is not None
        assert (ids[0], ids[2], span.trace_id) == ("a" * 32, 1, "a" * 32)
    [request] = spans.get_finished_spans()
    assert request.parent is not None
    assert request.parent.span_id == int("b" * 16, 16)
    assert f"{request.context.span_id:016x}" == ids[1]
    assert tracing.current_ids() is None


def test_a_caller_who_does_not_record_is_gone_on_with_and_not_recorded(spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_ratio", 1.0)
    with tracing.server_span("GET", parent=b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-00") as span:
        assert span is None
        ids = tracing.current_ids()
        assert ids is not None
        assert (ids[0], ids[2]) == ("a" * 32, 0)
        assert ids[1] != "b" * 16
    assert spans.get_finished_spans() == ()


def test_a_traceparent_longer_than_the_standards_is_neither_followed_nor_remembered(spans: InMemorySpanExporter) -> None:
    tracing.remote.cache_clear()
    with tracing.server_span("GET", parent=b"01-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01-" + b"c" * 8_000):
        ids = tracing.current_ids()
        assert ids is not None
        assert ids[0] != "a" * 32
    assert tracing.remote.cache_info().currsize == 0


def test_what_a_recorded_request_waits_for_is_below_it_whoever_makes_the_span(spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_ratio", 1.0)
    query = SimpleNamespace(query="SELECT 1 FROM orders", args=(), elapsed=0.25, exception=None)
    with pytest.raises(KeyError), tracing.server_span("GET", parent=None) as request:  # noqa: PT012 - what is below the span, then its end
        assert request is not None
        request.name = "GET /v1/orders"
        tracing.note_statement(query)
        with tracing.client_span("redis call", {"a": 1}):
            pass
        with tracing.span("of the SDK"):
            pass
        raise KeyError("secret")
    *below, top = spans.get_finished_spans()
    assert [span.name for span in below] == ["SELECT orders", "redis call", "of the SDK"]
    assert {span.parent.span_id for span in below if span.parent} == {top.context.span_id}
    assert {span.context.trace_id for span in below} == {top.context.trace_id}
    assert len({span.context.span_id for span in below}) == 3
    assert (top.name, top.parent, top.status.is_ok, dict(top.attributes or {})) == ("GET /v1/orders", None, False, {"error.type": "KeyError"})
    assert "secret" not in top.to_json()
