"""Writes the cause and platform alerts and their promtool cases. `--check`: only compare.

A burn alert says that customers feel it; these say why, mostly earlier. Every alert has at least three cases:
it fires, it does not, and the value at which it just does not. Thresholds and their reasons: docs/slo.md.
Standard library only.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rule_files import RULES, TESTS, alert, case, write

PAGE, TICKET = "page", "ticket"


@dataclass(frozen=True)
class Case:
    """`series` maps a selector to promtool values; `fires` alerts are firing at `at`."""

    title: str
    series: dict[str, str]
    at: str
    fires: int


@dataclass(frozen=True)
class Cause:
    """One alert with its cases."""

    name: str
    severity: str
    expr: str
    wait: str
    summary: str
    description: str
    dashboard: str
    cases: tuple[Case, ...]


def steady(selector: str, value: float, *, minutes: int = 60) -> dict[str, str]:
    return {selector: f"{value:g}+0x{minutes}"}


def rising(selector: str, a_minute: float, *, minutes: int = 60, start: float = 0) -> dict[str, str]:
    return {selector: f"{start:g}{a_minute:+g}x{minutes}"}


def gauge(selector: str, *, fires: float, boundary: float, at: str, quiet: float = 0) -> tuple[Case, ...]:
    """Above for long enough; exactly at the limit; normal."""
    return (
        Case("fires above the limit", steady(selector, fires), at, 1),
        Case("silent at the limit", steady(selector, boundary), at, 0),
        Case("silent when all is well", steady(selector, quiet), at, 0),
    )


IN_USE, SIZE = 'orders_db_pool_in_use{job="orders-api",instance="a"}', 'orders_db_pool_size{job="orders-api",instance="a"}'
ACTIVE, AGE, ROWS = (
    f'{name}{{job="orders-relay",instance="a"}}' for name in ("orders_relay_active", "orders_outbox_oldest_age_seconds", "orders_outbox_rows")
)
LAG = [f'orders_consumer_lag{{job="orders-worker",instance="{pod}",group="payments"}}' for pod in "ab"]
DUE, PAUSED = (
    f'{name}{{job="orders-worker",instance="a",group="payments"}}' for name in ("orders_consumer_oldest_due_seconds", "orders_consumer_paused")
)
KEYED = 'orders_idempotency_outcomes_total{job="orders-api",outcome="%s"}'
REQUESTS = 'orders_http_requests_total{job="orders-api",status="200"}'
LOOP = 'orders_event_loop_lag_seconds_bucket{job="orders-api",instance="a",le="%s"}'
RESTARTS = 'kube_pod_container_status_restarts_total{namespace="orders",pod="orders-api-1"}'
UP = 'up{job="orders-api",instance="%s"}'
HPA = 'kube_horizontalpodautoscaler_%s{namespace="orders",horizontalpodautoscaler="orders-api"}'

APP: Final = (
    Cause(
        "OrdersDbPoolSaturated",
        TICKET,
        "orders_db_pool_in_use / (orders_db_pool_size > 0) > 0.9",
        "10m",
        "{{ $labels.instance }} uses {{ $value | humanizePercentage }} of its database connections",
        "Requests are about to wait for a connection and to be shed after 250 ms.",
        "orders-data",
        (
            Case("fires when all are in use", steady(IN_USE, 10) | steady(SIZE, 10), "15m", 1),
            Case("silent at nine of ten", steady(IN_USE, 9) | steady(SIZE, 10), "15m", 0),
            Case("silent after a short spike", {IN_USE: "10+0x5 2+0x20"} | steady(SIZE, 10), "15m", 0),
        ),
    ),
    Cause(
        "OrdersDbConnectErrors",
        PAGE,
        "sum by (job) (rate(orders_db_connect_errors_total[5m])) > 1",
        "5m",
        "{{ $labels.job }}: {{ $value | humanize }} failed database connections a second",
        "PostgreSQL cannot be reached or refuses connections: writes fail with 503.",
        "orders-data",
        (
            Case("fires above one a second", rising('orders_db_connect_errors_total{job="orders-api",instance="a"}', 62), "15m", 1),
            Case("silent at one a second", rising('orders_db_connect_errors_total{job="orders-api",instance="a"}', 60), "15m", 0),
            Case(
                "silent after a failover of a minute", {'orders_db_connect_errors_total{job="orders-api",instance="a"}': "0+0x4 200+0x20"}, "15m", 0
            ),
        ),
    ),
    Cause(
        "OrdersOutboxOldestAge",
        PAGE,
        "max(orders_outbox_oldest_age_seconds and on (job, instance) orders_relay_active == 1) > 60",
        "5m",
        "the oldest unpublished event is {{ $value | humanizeDuration }} old",
        "Twelve times the freshness objective: the relay cannot publish, or Kafka refuses.",
        "orders-async",
        (
            Case("silent when nothing waits", steady(AGE, 0) | steady(ACTIVE, 1), "10m", 0),
            Case("fires above a minute", steady(AGE, 61) | steady(ACTIVE, 1), "10m", 1),
            Case("silent at a minute", steady(AGE, 60) | steady(ACTIVE, 1), "10m", 0),
            Case("silent for what a relay that stands by last saw", steady(AGE, 500) | steady(ACTIVE, 0), "10m", 0),
        ),
    ),
    Cause(
        "OrdersOutboxGrowing",
        TICKET,
        "max(orders_outbox_rows) > 1000 and max(deriv(orders_outbox_rows[30m])) > 0",
        "30m",
        "{{ $value | humanize }} events wait for publication, and it becomes more",
        "Events are committed faster than they are published.",
        "orders-async",
        (
            Case("fires while it grows", rising(ROWS, 10, minutes=120, start=1001), "70m", 1),
            Case("silent when it is large and shrinks", rising(ROWS, -10, minutes=120, start=9000), "70m", 0),
            Case("silent at a thousand", steady(ROWS, 1000, minutes=120), "70m", 0),
        ),
    ),
    Cause(
        "OrdersNoRelay",
        PAGE,
        "sum(orders_relay_active) < 1 or absent(orders_relay_active)",
        "5m",
        "no relay holds the lock",
        "Nobody publishes events: orders stay placed.",
        "orders-async",
        (
            Case("fires when both stand by", steady(ACTIVE, 0), "10m", 1),
            Case("fires when there is none", steady('up{job="orders-api"}', 1), "10m", 1),
            Case("silent with one", steady(ACTIVE, 1), "10m", 0),
            Case("silent during a take-over", {ACTIVE: "1 1 0 0 0 1+0x20"}, "10m", 0),
        ),
    ),
    Cause(
        "OrdersConsumerLagHigh",
        TICKET,
        "sum by (group) (orders_consumer_lag) > 200 * count by (group) (orders_consumer_lag)",
        "15m",
        "group {{ $labels.group }} is {{ $value | humanize }} records behind",
        "More than the autoscaler's target of 200 a replica for 15 minutes.",
        "orders-async",
        (
            Case("fires above 200 a replica", steady(LAG[0], 401) | steady(LAG[1], 0), "20m", 1),
            Case("silent at 200 a replica", steady(LAG[0], 400) | steady(LAG[1], 0), "20m", 0),
            Case("silent while a burst is worked off", {LAG[0]: "5000-500x9 0+0x20"} | steady(LAG[1], 0), "20m", 0),
        ),
    ),
    Cause(
        "OrdersConsumerStuck",
        PAGE,
        "max by (group) (orders_consumer_oldest_due_seconds unless on (job, instance, group) orders_consumer_paused == 1) > 600",
        "1m",
        "group {{ $labels.group }} has had a due record in hand for {{ $value | humanizeDuration }}",
        "One record does not end, and its key waits behind it. More replicas do not help.",
        "orders-async",
        (
            Case("fires above ten minutes", steady(DUE, 601) | steady(PAUSED, 0), "5m", 1),
            Case("silent at ten minutes", steady(DUE, 600) | steady(PAUSED, 0), "5m", 0),
            Case("silent while the group is paused", steady(DUE, 5000) | steady(PAUSED, 1), "5m", 0),
        ),
    ),
    Cause(
        "OrdersDlqNotEmpty",
        TICKET,
        "sum by (group) (increase(orders_dead_letters_total[15m])) > 0 or max by (group) (orders_dead_letters_open) > 0",
        "",
        "group {{ $labels.group }} has dead letters ({{ $value | humanize }})",
        "Records a group gave up on: somebody has to replay or discard them.",
        "orders-async",
        (
            Case("fires for one new letter", {'orders_dead_letters_total{job="orders-worker",group="payments"}': "0+0x5 1+0x30"}, "10m", 1),
            Case("fires while one is open", steady('orders_dead_letters_open{job="orders-reaper",group="payments"}', 1), "10m", 1),
            Case("silent at none", steady('orders_dead_letters_open{job="orders-reaper",group="payments"}', 0), "10m", 0),
            Case(
                "silent half an hour after a decided one",
                {'orders_dead_letters_total{job="orders-worker",group="payments"}': "0+0x5 1+0x60"},
                "40m",
                0,
            ),
        ),
    ),
    Cause(
        "OrdersDeadLetterBreakerOpen",
        PAGE,
        "max by (group) (orders_dead_letter_breaker_open) == 1",
        "1m",
        "group {{ $labels.group }} stopped itself: it gave up on too many records",
        "More than 50 dead letters a minute and a fifth of all: probably a broken release.",
        "orders-async",
        (
            Case("fires when open", steady('orders_dead_letter_breaker_open{job="orders-worker",group="payments"}', 1), "5m", 1),
            Case("silent when closed", steady('orders_dead_letter_breaker_open{job="orders-worker",group="payments"}', 0), "5m", 0),
            Case("silent in its first minute", {'orders_dead_letter_breaker_open{job="orders-worker",group="payments"}': "0+0x4 1+0x9"}, "5m", 0),
        ),
    ),
    Cause(
        "OrdersWorkerHeartbeatStale",
        PAGE,
        "max by (job, instance) (orders_heartbeat_age_seconds) > 60",
        "3m",
        "a loop of {{ $labels.instance }} has not turned for {{ $value | humanizeDuration }}",
        "The liveness probe should have restarted it already.",
        "orders-runtime",
        gauge('orders_heartbeat_age_seconds{job="orders-worker",instance="a"}', fires=61, boundary=60, at="5m", quiet=1),
    ),
    Cause(
        "OrdersRedisDegraded",
        TICKET,
        "sum(rate(orders_redis_errors_total[5m])) / (sum(rate(orders_http_requests_total[5m])) > 0) > 0.01"
        ' or max(orders_breaker_state{dependency="redis"}) > 0',
        "5m",
        "Redis fails ({{ $value | humanize }})",
        "Answers go on without it: no cache, and limits are counted by each process for itself.",
        "orders-data",
        (
            Case(
                "fires above one error in a hundred requests",
                rising('orders_redis_errors_total{job="orders-api"}', 11) | rising(REQUESTS, 1000),
                "15m",
                1,
            ),
            Case("silent at one in a hundred", rising('orders_redis_errors_total{job="orders-api"}', 10) | rising(REQUESTS, 1000), "15m", 0),
            Case("fires while the breaker is open", steady('orders_breaker_state{job="orders-api",dependency="redis"}', 2), "15m", 1),
            Case("silent when closed", steady('orders_breaker_state{job="orders-api",dependency="redis"}', 0), "15m", 0),
        ),
    ),
    Cause(
        "OrdersRateLimiterFailOpen",
        TICKET,
        'sum(rate(orders_limit_decisions_total{where="degraded"}[5m])) > 0',
        "5m",
        "{{ $value | humanize }} requests a second are limited by one process alone",
        "Availability is kept, protection is weaker: each process grants its share of the quota.",
        "orders-data",
        (
            Case("fires for one a minute", rising('orders_limit_decisions_total{job="orders-api",where="degraded",outcome="allowed"}', 1), "15m", 1),
            Case("silent at none", steady('orders_limit_decisions_total{job="orders-api",where="degraded",outcome="allowed"}', 7), "15m", 0),
            Case(
                "silent when Redis decides", rising('orders_limit_decisions_total{job="orders-api",where="shared",outcome="allowed"}', 600), "15m", 0
            ),
        ),
    ),
    Cause(
        "OrdersIdempotencyConflictsHigh",
        TICKET,
        'sum(rate(orders_idempotency_outcomes_total{outcome=~"mismatch|in_flight"}[15m]))'
        " / (sum(rate(orders_idempotency_outcomes_total[15m])) > 0) > 0.02"
        " and sum(increase(orders_idempotency_outcomes_total[15m])) >= 100",
        "15m",
        "{{ $value | humanizePercentage }} of keyed requests met a conflict",
        "A client sends another request under a used key, or does not wait for its first answer.",
        "orders-api",
        (
            Case("fires above 2 %", rising(KEYED % "mismatch", 21) | rising(KEYED % "new", 979), "40m", 1),
            Case("silent at 2 %", rising(KEYED % "mismatch", 20) | rising(KEYED % "new", 980), "40m", 0),
            Case("silent with little traffic", rising(KEYED % "mismatch", 1) | rising(KEYED % "new", 1), "40m", 0),
        ),
    ),
    Cause(
        "OrdersProviderBreakerOpen",
        TICKET,
        'max(orders_breaker_state{dependency="provider"}) > 0',
        "5m",
        "the payment provider is not called",
        "It failed too often: orders stay reserved until it answers again.",
        "orders-async",
        (
            Case("fires while open", steady('orders_breaker_state{job="orders-worker",dependency="provider"}', 2), "10m", 1),
            Case("fires while it tries", {'orders_breaker_state{job="orders-worker",dependency="provider"}': "2 1 2 1 2 1 2 1 2 1 2 1 2"}, "10m", 1),
            Case("silent when closed", steady('orders_breaker_state{job="orders-worker",dependency="provider"}', 0), "10m", 0),
        ),
    ),
    Cause(
        "OrdersUnfinishedTooLong",
        TICKET,
        "max by (status) (orders_unfinished_oldest_seconds) > 1800",
        "10m",
        "an order has been {{ $labels.status }} for {{ $value | humanizeDuration }}",
        "Retries are over by then (15 minutes); after an hour the reaper expires it.",
        "orders-business",
        gauge('orders_unfinished_oldest_seconds{job="orders-reaper",status="reserved"}', fires=1801, boundary=1800, at="15m"),
    ),
    Cause(
        "OrdersEventLoopLag",
        TICKET,
        "histogram_quantile(0.99, sum by (job, instance, le) (rate(orders_event_loop_lag_seconds_bucket[5m]))) > 0.1",
        "10m",
        "{{ $labels.instance }} wakes {{ $value | humanizeDuration }} late",
        "Something blocks the event loop, or the process gets too little CPU.",
        "orders-runtime",
        (
            Case("fires when 2 % are late", rising(LOOP % "0.1", 98) | rising(LOOP % "0.25", 100) | rising(LOOP % "+Inf", 100), "20m", 1),
            Case("silent when 1 % are late", rising(LOOP % "0.1", 99) | rising(LOOP % "0.25", 100) | rising(LOOP % "+Inf", 100), "20m", 0),
            Case("silent when none is", rising(LOOP % "0.1", 100) | rising(LOOP % "0.25", 100) | rising(LOOP % "+Inf", 100), "20m", 0),
        ),
    ),
    Cause(
        "OrdersTelemetryDropped",
        TICKET,
        "sum by (job) (rate(orders_spans_dropped_total[15m])) + sum by (job) (rate(orders_log_dropped_total[15m])) > 0",
        "15m",
        "{{ $labels.job }} loses {{ $value | humanize }} spans and log lines a second",
        "The collector does not keep up or is away; requests are not affected.",
        "orders-runtime",
        (
            Case(
                "fires for lost spans",
                rising('orders_spans_dropped_total{job="orders-api",reason="export"}', 1) | steady('orders_log_dropped_total{job="orders-api"}', 0),
                "40m",
                1,
            ),
            Case(
                "fires for lost lines",
                steady('orders_spans_dropped_total{job="orders-api",reason="queue"}', 0) | rising('orders_log_dropped_total{job="orders-api"}', 1),
                "40m",
                1,
            ),
            Case(
                "silent at none",
                steady('orders_spans_dropped_total{job="orders-api",reason="queue"}', 9) | steady('orders_log_dropped_total{job="orders-api"}', 9),
                "40m",
                0,
            ),
        ),
    ),
)

PLATFORM: Final = (
    Cause(
        "OrdersMetricsAbsent", PAGE, 'absent(up{job="orders-api"})', "5m",
        "Prometheus knows no API process",
        "Every other alert is blind: scraping is broken, or nothing runs.", "orders-slo",
        (
            Case("fires without any", steady('up{job="orders-relay"}', 1), "10m", 1),
            Case("silent while one is known, even down", steady(UP % "a", 0), "10m", 0),
            Case("silent in the first minutes", {UP % "a": "1 1 1 1 _x20"}, "8m", 0),
        ),
    ),
    Cause(
        "OrdersTargetDown", PAGE, 'count by (job) (up{job=~"orders-.*"} == 0) / count by (job) (up{job=~"orders-.*"}) > 0.25', "5m",
        "{{ $value | humanizePercentage }} of {{ $labels.job }} cannot be scraped",
        "Processes are down or cut off.", "orders-runtime",
        (
            Case("fires at one of three", steady(UP % "a", 0) | steady(UP % "b", 1) | steady(UP % "c", 1), "10m", 1),
            Case("silent at one of four", steady(UP % "a", 0) | steady(UP % "b", 1) | steady(UP % "c", 1) | steady(UP % "d", 1), "10m", 0),
            Case("silent during a restart", {UP % "a": "1 0 0 0 1+0x20"}, "10m", 0),
        ),
    ),
    Cause(
        "OrdersMigrationFailed", PAGE, 'max by (namespace, job_name) (kube_job_status_failed{job_name=~".*-migrate-[0-9a-f]{8}"}) > 0', "",
        "the migration {{ $labels.job_name }} failed",
        "The release is half done: new pods wait for the schema, old ones go on.", "orders-runtime",
        (
            Case("fires for a failed one", steady('kube_job_status_failed{namespace="orders",job_name="orders-migrate-0a1b2c3d"}', 1), "5m", 1),
            Case("silent for none", steady('kube_job_status_failed{namespace="orders",job_name="orders-migrate-0a1b2c3d"}', 0), "5m", 0),
            Case("silent for another job", steady('kube_job_status_failed{namespace="orders",job_name="orders-topics-0a1b2c3d"}', 1), "5m", 0),
        ),
    ),
    Cause(
        "OrdersPodRestarting", TICKET, 'sum by (namespace, pod) (increase(kube_pod_container_status_restarts_total{pod=~"orders-.*"}[15m])) > 3', "",
        "{{ $labels.pod }} restarted {{ $value | humanize }} times in 15 minutes",
        "It crashes, is killed for memory, or fails its liveness probe.", "orders-runtime",
        (
            Case("fires above three", rising(RESTARTS, 0.27), "30m", 1),
            Case("silent just below four in twenty minutes", rising(RESTARTS, 0.199), "30m", 0),
            Case("silent for others", rising('kube_pod_container_status_restarts_total{namespace="orders",pod="billing-1"}', 2), "30m", 0),
        ),
    ),
    Cause(
        "OrdersHpaAtMax", TICKET,
        'kube_horizontalpodautoscaler_status_current_replicas{horizontalpodautoscaler=~".*orders-.*"} >= on (namespace, horizontalpodautoscaler)'
        " kube_horizontalpodautoscaler_spec_max_replicas", "15m",
        "{{ $labels.horizontalpodautoscaler }} runs {{ $value | humanize }} replicas, its maximum",
        "No room for more load, nor for a rollout's surge.", "orders-runtime",
        (
            Case("fires at the maximum", steady(HPA % "status_current_replicas", 30) | steady(HPA % "spec_max_replicas", 30), "20m", 1),
            Case("silent one below", steady(HPA % "status_current_replicas", 29) | steady(HPA % "spec_max_replicas", 30), "20m", 0),
            Case("silent after a short peak", {HPA % "status_current_replicas": "30+0x9 12+0x30"} | steady(HPA % "spec_max_replicas", 30), "20m", 0),
        ),
    ),
    Cause(
        "OrdersWatchdog", TICKET, "vector(1)", "",
        "always fires",
        "Proves the way from Prometheus to a person: the receiver complains when it stops.", "orders-slo",
        (
            Case("fires without any series", {}, "1m", 1),
            Case("fires when everything is down", steady(UP % "a", 0), "30m", 1),
            Case("fires when all is well", steady(UP % "a", 1), "30m", 1),
        ),
    ),
)  # fmt: skip


def rule(cause: Cause) -> dict[str, Any]:
    return alert(
        cause.name, cause.expr, severity=cause.severity, wait=cause.wait, summary=cause.summary, description=cause.description,
        runbook=f"{cause.name}.md", dashboard=cause.dashboard,
    )  # fmt: skip


def files() -> dict[Path, Any]:
    found: dict[Path, Any] = {}
    for name, causes in (("app", APP), ("platform", PLATFORM)):
        found[RULES / f"{name}.yaml"] = {"groups": [{"name": f"orders-{name}", "rules": [rule(cause) for cause in causes]}]}
        tests = [case(cause.name, c.title, c.series, at=c.at, fires=c.fires) for cause in causes for c in cause.cases]
        source = f"../../{(RULES / f'{name}.yaml').relative_to(RULES.parents[4])}"
        found[TESTS / f"{name}.yaml"] = {"rule_files": [source], "evaluation_interval": "1m", "tests": tests}
    return found


if __name__ == "__main__":
    sys.exit(write(files(), sys.argv[1:], script="cause_rules.py"))
