"""Every metric of every process, with its meaning above it. One registry a process (docs/adr/0013).

Labels are bounded: route templates, groups, outcomes; never an id, a key or a subject.
Callers on the hot path bind label values once (`.labels()` costs four times the increment).
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, disable_created_metrics

registry: Final = REGISTRY
disable_created_metrics()  # type: ignore[no-untyped-call]  # a third more series, and nobody asks when a counter was made


class LoopCounter(Counter):
    """For what only the event loop counts: no lock, an eighth of the cost. tests/unit/test_metrics.py holds it to the library's own."""

    def inc(self, amount: float = 1, exemplar: dict[str, str] | None = None) -> None:
        if exemplar is not None:
            super().inc(amount, exemplar)
            return
        self._value._value += amount  # noqa: SLF001 - the number without its lock


class LoopHistogram(Histogram):
    """The same for durations; one with an exemplar goes the library's way."""

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        if exemplar is not None:
            super().observe(amount, exemplar)
            return
        self._sum._value += amount  # noqa: SLF001
        self._buckets[bisect_left(self._upper_bounds, amount)]._value += 1  # noqa: SLF001


# The SLO limits (150 ms reads, 300 ms writes) are bucket bounds, so that burn rates are exact.
_LATENCY_S: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.3, 0.6, 1.2, 2.5, 5.0)
_ASYNC_S: Final = (0.01, 0.03, 0.1, 0.3, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0)

# HTTP, by route template ("unmatched" for paths that are none of ours).
http_requests = LoopCounter("orders_http_requests_total", "Requests answered.", ["route", "method", "status"])
http_duration = LoopHistogram("orders_http_request_duration_seconds", "Time to the last byte.", ["route", "method"], buckets=_LATENCY_S)
http_in_flight = Gauge("orders_http_in_flight", "Requests being worked on.")
# Should stay 0: input that passed validation and was refused by the database driver.
validation_gap = Counter("orders_validation_gap_total", "Input that only the database refused.")
# Idempotency: what a keyed request met (new, replayed, mismatch, in_flight).
idempotency = Counter("orders_idempotency_outcomes_total", "Keyed requests by outcome.", ["outcome"])
for _outcome in ("new", "replayed", "mismatch", "in_flight"):
    idempotency.labels(_outcome)  # 0 is a value: a rate must see the step from 0 to 1

# Database pool of this process.
db_pool_size = Gauge("orders_db_pool_size", "Connections the pool may hold.")
db_pool_in_use = Gauge("orders_db_pool_in_use", "Connections handed out.")
db_pool_wait = Histogram(
    "orders_db_pool_wait_seconds", "Wait for a connection, of those who had to wait.", buckets=(0.001, 0.005, 0.02, 0.1, 0.25, 1.0)
)
grouped_size = Histogram("orders_db_group_size", "Callers that committed together, where several waited.", buckets=(1, 2, 4, 8, 16, 32))
db_connect_errors = Counter("orders_db_connect_errors_total", "Connections that could not be opened.")

# Breakers: 0 closed, 1 half-open, 2 open.
breaker_state = Gauge("orders_breaker_state", "0 closed, 1 half-open, 2 open.", ["dependency"])
# Redis calls that failed (each is answered without Redis).
redis_errors = Counter("orders_redis_errors_total", "Redis calls that failed.")

# Cache by entity: hit, stale (served, being refreshed), miss, negative, bypass (Redis away).
cache_requests = LoopCounter("orders_cache_requests_total", "Cache reads by outcome.", ["entity", "outcome"])
cache_loads = Counter("orders_cache_loads_total", "Loads from PostgreSQL for the cache.", ["entity"])
cache_joined = Counter("orders_cache_load_waits_total", "Reads that waited for a load another one had begun.", ["entity"])
for _entity in ("order", "product"):
    cache_joined.labels(_entity)
cache_invalidations_failed = Counter("orders_cache_invalidations_failed_total", "Writers' invalidations Redis missed; the event repairs them.")

# Rate limit: allowed or denied, by where it was decided (shared, degraded, address).
limit_decisions = LoopCounter("orders_limit_decisions_total", "Charges by outcome.", ["outcome", "where"])
# Admission: slots of this process, and what was shed by lane.
admission_limit = Gauge("orders_admission_limit", "Requests worked on at once, at most.")
admission_in_flight = Gauge("orders_admission_in_flight", "Requests holding a slot.")
shed = Counter("orders_shed_total", "Requests refused because the process was full.", ["lane"])

# Outbox, seen by the relay.
outbox_rows = Gauge("orders_outbox_rows", "Events committed and not yet in Kafka.")
outbox_age = Gauge("orders_outbox_oldest_age_seconds", "Age of the oldest such event.")
outbox_published = Counter("orders_outbox_published_total", "Events acknowledged by Kafka.")
outbox_blocked = Gauge("orders_outbox_blocked_aggregates", "Aggregates set aside because Kafka refuses their event.")
commit_to_kafka = Histogram("orders_commit_to_kafka_seconds", "From commit to acknowledgement.", buckets=_ASYNC_S)
relay_active = Gauge("orders_relay_active", "1 if this relay holds the lock.")

# Consumers, by group; outcome: applied, duplicate, superseded, ignored, retried, dead.
records = Counter("orders_records_total", "Records finished.", ["group", "outcome"])
handler_duration = Histogram("orders_handler_duration_seconds", "Time in one handler call.", ["group"], buckets=_LATENCY_S)
event_age = Histogram("orders_event_age_seconds", "From event to the end of its handling.", ["group"], buckets=_ASYNC_S)
consumer_lag = Gauge("orders_consumer_lag", "Records not yet finished and due.", ["group"])
consumer_oldest_due = Gauge("orders_consumer_oldest_due_seconds", "Age of the oldest record that is due.", ["group"])
consumer_paused = Gauge("orders_consumer_paused", "1 while the group waits for its infrastructure.", ["group"])
tier_lateness = Histogram("orders_tier_lateness_seconds", "Handled this long after it was due.", ["group"], buckets=_ASYNC_S)
dead_letters = Counter("orders_dead_letters_total", "Records given up on.", ["group"])
heartbeat_age = Gauge("orders_heartbeat_age_seconds", "Since the slowest loop of this process last turned.")
caught = Counter("orders_loop_errors_total", "Errors a process loop caught and went on from.", ["loop"])

# Business: every transition once, counted where its timeline row is written.
orders_moved = Counter("orders_total", "Order transitions.", ["status"])
orders_value = Counter("orders_value_minor_total", "Money of those transitions, in minor units.", ["status", "currency"])
dead_letters_open = Gauge("orders_dead_letters_open", "Dead letters nobody has decided about.", ["group"])
unfinished_age = Gauge("orders_unfinished_oldest_seconds", "Since the oldest order in this state last moved.", ["status"])
expired_orders = Counter("orders_reaper_expired_total", "Orders expired by the reaper.")

# Logs and spans that could not be written without blocking.
log_dropped = Counter("orders_log_dropped_total", "Log lines dropped because the writer was behind.")
spans_exported = Counter("orders_spans_exported_total", "Spans the collector took.")
spans_dropped = Counter("orders_spans_dropped_total", "Spans lost: the queue was full, or the collector did not take them.", ["reason"])
for _reason in ("queue", "export"):
    spans_dropped.labels(_reason)

# The process itself (service/foundation/pulse.py).
loop_lag = Histogram("orders_event_loop_lag_seconds", "How late the event loop woke a sleeper.", buckets=(0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 1.0))
loop_tasks = Gauge("orders_event_loop_tasks", "Tasks of the event loop that are not done.")
gc_pause = Histogram("orders_gc_pause_seconds", "Collections by generation.", ["generation"], buckets=(0.0005, 0.002, 0.01, 0.05, 0.2))
build_info = Gauge("orders_build_info", "1, with what runs.", ["process", "version", "python"])


def show_breaker(name: str, state: str) -> None:
    """Callback for `Breaker(changed=…)`."""
    breaker_state.labels(name).set({"closed": 0, "half-open": 1}.get(state, 2))
