"""Writes the six dashboards into the chart's files. `--check`: only compare. Needs grafana-foundation-sdk.

Every expression here is run by observability/checks/live.py on a real Prometheus that scraped the running service.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from house import Panel, build

TARGET: Final = Path(__file__).resolve().parents[2] / "deploy/helm/orders/files/dashboards"
R: Final = "[$__rate_interval]"
OBJECTIVES: Final = (("availability", 0.001), ("latency", 0.01), ("freshness", 0.005), ("processing", 0.01))


def quantile(q: float, metric: str, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket{R})))"


def burn(slo: str, budget: float) -> Panel:
    queries = tuple((f'orders:sli_errors:ratio_rate{window}{{slo="{slo}"}} / {budget}', window) for window in ("5m", "1h", "6h", "1d", "3d"))
    page = f"Orders{slo.capitalize()}Burn"
    return Panel(f"{slo}: burn rate", "none", "1 spends the budget in exactly 30 days; 14.4 pages.", queries, page, 14.4)


SLO: Final = (
    (
        "Budget left of 30 days",
        [
            Panel(
                f"{slo}: budget left",
                "percentunit",
                f"1 − error ratio over 30 days ÷ {budget:g}. Below 0 the objective is missed.",
                ((f'1 - orders:sli_errors:ratio_rate30d{{slo="{slo}"}} / {budget}', "left"),),
                f"Orders{slo.capitalize()}Burn",
                single=True,
            )
            for slo, budget in OBJECTIVES
        ],
    ),
    ("Burn rate by window", [burn(slo, budget) for slo, budget in OBJECTIVES]),
    (
        "Events behind the ratios",
        [
            Panel(
                "events a second",
                "reqps",
                "What each objective counts; burn alerts need a minimum of it.",
                tuple((f'orders:sli_total:rate5m{{slo="{slo}"}}', slo) for slo, _ in OBJECTIVES),
            ),
            Panel(
                "alerts firing",
                "none",
                "Of this service.",
                (('count by (alertname, severity) (ALERTS{alertstate="firing",service="orders"})', "{{alertname}}"),),
            ),
        ],
    ),
)

API: Final = (
    (
        "Rate, errors, duration",
        [
            Panel(
                "requests",
                "reqps",
                "By route template.",
                ((f"sum by (route, method) (rate(orders_http_requests_total{R}))", "{{method}} {{route}}"),),
            ),
            Panel(
                "answers by status",
                "reqps",
                "429 and 503 are refusals that are safe to repeat.",
                ((f"sum by (status) (rate(orders_http_requests_total{R}))", "{{status}}"),),
                "OrdersAvailabilityBurn",
            ),
            Panel(
                "duration, p99 by route",
                "s",
                "Points are exemplars: click one to open its trace.",
                ((quantile(0.99, "orders_http_request_duration_seconds", "route"), "{{route}}"),),
                "OrdersLatencyBurn",
                0.3,
                exemplars=True,
            ),
            Panel(
                "duration, p50 and p95",
                "s",
                "Of all requests.",
                ((quantile(0.5, "orders_http_request_duration_seconds"), "p50"), (quantile(0.95, "orders_http_request_duration_seconds"), "p95")),
                exemplars=True,
            ),
        ],
    ),
    (
        "Gates",
        [
            Panel(
                "in flight and limit",
                "none",
                "Slots of all processes.",
                (("sum(orders_admission_in_flight)", "in flight"), ("sum(orders_admission_limit)", "limit")),
            ),
            Panel(
                "shed by lane",
                "reqps",
                "Refused because the process was full: lists first, writes last.",
                ((f"sum by (lane) (rate(orders_shed_total{R}))", "{{lane}}"),),
            ),
            Panel(
                "limiter decisions",
                "reqps",
                "degraded: decided by one process alone, Redis being away.",
                ((f"sum by (outcome, where) (rate(orders_limit_decisions_total{R}))", "{{outcome}} {{where}}"),),
                "OrdersRateLimiterFailOpen",
            ),
            Panel(
                "idempotency outcomes",
                "reqps",
                "replayed: a retry got its first answer.",
                ((f"sum by (outcome) (rate(orders_idempotency_outcomes_total{R}))", "{{outcome}}"),),
                "OrdersIdempotencyConflictsHigh",
            ),
            Panel(
                "input only the driver refused",
                "none",
                "Should stay 0: validation let something through.",
                (("sum(orders_validation_gap_total)", "gaps"),),
                single=True,
            ),
        ],
    ),
)

ASYNC: Final = (
    (
        "Outbox and relay",
        [
            Panel(
                "events waiting",
                "none",
                "Committed and not yet in Kafka (upper bound).",
                (("max(orders_outbox_rows)", "rows"),),
                "OrdersOutboxGrowing",
            ),
            Panel(
                "age of the oldest",
                "s",
                "The freshness objective is 5 s; a minute pages.",
                (("max(orders_outbox_oldest_age_seconds)", "age"),),
                "OrdersOutboxOldestAge",
                60,
            ),
            Panel("published", "ops", "Events Kafka acknowledged.", ((f"sum(rate(orders_outbox_published_total{R}))", "events"),)),
            Panel(
                "commit → Kafka",
                "s",
                "From commit to acknowledgement.",
                ((quantile(0.5, "orders_commit_to_kafka_seconds"), "p50"), (quantile(0.99, "orders_commit_to_kafka_seconds"), "p99")),
                "OrdersFreshnessBurn",
                5,
            ),
            Panel("active relays", "none", "Exactly one holds the lock.", (("sum(orders_relay_active)", "active"),), "OrdersNoRelay", single=True),
            Panel(
                "aggregates set aside",
                "none",
                "Kafka refuses their next event: a person has to decide.",
                (("sum(orders_outbox_blocked_aggregates)", "aggregates"),),
                "OrdersDlqNotEmpty",
                single=True,
            ),
        ],
    ),
    (
        "Groups",
        [
            Panel("lag", "none", "Records due and not finished.", (("sum by (group) (orders_consumer_lag)", "{{group}}"),), "OrdersConsumerLagHigh"),
            Panel(
                "oldest due record",
                "s",
                "Ten minutes page unless the group is paused.",
                (("max by (group) (orders_consumer_oldest_due_seconds)", "{{group}}"),),
                "OrdersConsumerStuck",
                600,
            ),
            Panel(
                "records by outcome",
                "ops",
                "duplicate: delivered again and absorbed.",
                ((f"sum by (group, outcome) (rate(orders_records_total{R})) > 0", "{{group}} {{outcome}}"),),
            ),
            Panel(
                "handler, p99", "s", "Time in one call of a handler.", ((quantile(0.99, "orders_handler_duration_seconds", "group"), "{{group}}"),)
            ),
            Panel(
                "event age when handled, p99",
                "s",
                "From event to the end of its handling; the objective is 30 s.",
                ((quantile(0.99, "orders_event_age_seconds", "group"), "{{group}}"),),
                "OrdersProcessingBurn",
                30,
            ),
            Panel(
                "paused, stopped, stuck",
                "none",
                "1: the group waits for its infrastructure, or stopped itself; seconds a record has been in hand.",
                (
                    ("max by (group) (orders_consumer_paused)", "paused {{group}}"),
                    ("max by (group) (orders_dead_letter_breaker_open)", "stopped {{group}}"),
                    ("max by (group) (orders_consumer_stalled_seconds)", "in hand {{group}}"),
                ),
                "OrdersDeadLetterBreakerOpen",
            ),
        ],
    ),
    (
        "Retries and dead letters",
        [
            Panel(
                "tier lateness, p99",
                "s",
                "Handled this long after it was due.",
                ((quantile(0.99, "orders_tier_lateness_seconds", "group"), "{{group}}"),),
            ),
            Panel(
                "held retry partitions",
                "none",
                "Their first record is not due yet: on purpose.",
                (("sum by (group) (orders_tier_held_partitions)", "{{group}}"),),
            ),
            Panel(
                "given up",
                "none",
                "In the last 15 minutes.",
                (("sum by (group) (increase(orders_dead_letters_total[15m]))", "{{group}}"),),
                "OrdersDlqNotEmpty",
            ),
            Panel(
                "dead letters open",
                "none",
                "Nobody has decided about them.",
                (("max by (group) (orders_dead_letters_open)", "{{group}}"),),
                "OrdersDlqNotEmpty",
            ),
            Panel(
                "provider breaker",
                "none",
                "0 closed, 1 half-open, 2 open.",
                (('max(orders_breaker_state{dependency="provider"})', "state"),),
                "OrdersProviderBreakerOpen",
            ),
            Panel(
                "errors loops went on from",
                "ops",
                "Errors a process loop caught, by loop.",
                ((f"sum by (loop) (rate(orders_loop_errors_total{R}))", "{{loop}}"),),
            ),
        ],
    ),
)

DATA: Final = (
    (
        "PostgreSQL, from here",
        [
            Panel(
                "connections in use",
                "percentunit",
                "Of the pool; above 0.9 requests will wait.",
                (("orders_db_pool_in_use / (orders_db_pool_size > 0)", "{{job}} {{instance}}"),),
                "OrdersDbPoolSaturated",
                0.9,
            ),
            Panel(
                "waiting for a connection, p99",
                "s",
                "Of those who had to wait; after 0.25 s they are shed.",
                ((quantile(0.99, "orders_db_pool_wait_seconds", "job"), "{{job}}"),),
                "OrdersDbPoolSaturated",
            ),
            Panel(
                "orders that commit together, p50",
                "none",
                "Where several waited; 1: nothing to group.",
                ((quantile(0.5, "orders_db_group_size", "job"), "{{job}}"),),
            ),
            Panel(
                "connections that failed",
                "ops",
                "Refused, timed out, failed over.",
                ((f"sum by (job) (rate(orders_db_connect_errors_total{R}))", "{{job}}"),),
                "OrdersDbConnectErrors",
                1,
            ),
            Panel("breakers", "none", "0 closed, 1 half-open, 2 open.", (("max by (dependency) (orders_breaker_state)", "{{dependency}}"),)),
        ],
    ),
    (
        "Redis and the cache",
        [
            Panel(
                "Redis errors",
                "ops",
                "Each was answered without Redis.",
                ((f"sum(rate(orders_redis_errors_total{R}))", "errors"),),
                "OrdersRedisDegraded",
            ),
            Panel(
                "reads by outcome",
                "reqps",
                "bypass: Redis away; negative: known not to exist.",
                ((f"sum by (entity, outcome) (rate(orders_cache_requests_total{R}))", "{{entity}} {{outcome}}"),),
            ),
            Panel(
                "hit ratio",
                "percentunit",
                "hit, stale and negative over all.",
                (
                    (
                        f'sum by (entity) (rate(orders_cache_requests_total{{outcome=~"hit|stale|negative"}}{R})) / (sum by (entity) (rate(orders_cache_requests_total{R})) > 0)',
                        "{{entity}}",
                    ),
                ),
            ),
            Panel(
                "loads, and reads that waited for one",
                "ops",
                "Single flight: many readers, one load.",
                (
                    (f"sum by (entity) (rate(orders_cache_loads_total{R}))", "loads {{entity}}"),
                    (f"sum by (entity) (rate(orders_cache_load_waits_total{R}))", "waited {{entity}}"),
                ),
            ),
            Panel(
                "invalidations Redis missed", "ops", "Repaired by the event.", ((f"sum(rate(orders_cache_invalidations_failed_total{R}))", "missed"),)
            ),
        ],
    ),
)

BUSINESS: Final = (
    (
        "Orders",
        [
            Panel("transitions a minute", "none", "Each order's step once.", ((f"sum by (status) (rate(orders_total{R})) * 60", "{{status}}"),)),
            Panel(
                "money a minute",
                "none",
                "Minor units, by what happened to it.",
                ((f"sum by (status, currency) (rate(orders_value_minor_total{R})) * 60", "{{status}} {{currency}}"),),
            ),
            Panel(
                "cancelled of placed",
                "percentunit",
                "Over an hour.",
                (('sum(increase(orders_total{status="cancelled"}[1h])) / (sum(increase(orders_total{status="placed"}[1h])) > 0)', "ratio"),),
            ),
            Panel(
                "oldest unfinished",
                "s",
                "Half an hour raises a ticket; after an hour the reaper expires it.",
                (("max by (status) (orders_unfinished_oldest_seconds)", "{{status}}"),),
                "OrdersUnfinishedTooLong",
                1800,
            ),
            Panel("expired by the reaper", "none", "In the last hour.", (("sum(increase(orders_reaper_expired_total[1h]))", "orders"),), single=True),
        ],
    ),
)

RUNTIME: Final = (
    (
        "Processes",
        [
            Panel("what runs", "none", "Processes by version.", (("count by (process, version) (orders_build_info)", "{{process}} {{version}}"),)),
            Panel("targets up", "percentunit", "Below 0.75 for 5 minutes pages.", (('avg by (job) (up{job=~"orders-.*"})', "{{job}}"),), "OrdersTargetDown"),
            Panel("memory", "bytes", "Resident; the limit is 512 MiB.", (('process_resident_memory_bytes{job=~"orders-.*"}', "{{job}} {{instance}}"),)),
            Panel("CPU", "percentunit", "Of one core.", ((f'rate(process_cpu_seconds_total{{job=~"orders-.*"}}{R})', "{{job}} {{instance}}"),)),
            Panel("open files", "none", "Sockets count.", (('process_open_fds{job=~"orders-.*"}', "{{job}} {{instance}}"),)),
            Panel("slowest loop's last turn", "s", "A minute makes the process not live.", (("max by (job, instance) (orders_heartbeat_age_seconds)", "{{job}} {{instance}}"),), "OrdersWorkerHeartbeatStale", 60),
        ],
    ),
    (
        "The interpreter",
        [
            Panel("event-loop lag, p99", "s", "How late the loop woke a sleeper.", ((quantile(0.99, "orders_event_loop_lag_seconds", "job, instance"), "{{job}} {{instance}}"),), "OrdersEventLoopLag", 0.1),
            Panel("event-loop tasks", "none", "Not done yet; a line that only rises is a leak.", (("orders_event_loop_tasks", "{{job}} {{instance}}"),)),
            Panel("time in the collector", "percentunit", "Share of each second, by generation.", ((f"sum by (generation) (rate(orders_gc_pause_seconds_sum{R}))", "gen {{generation}}"),)),
            Panel("telemetry lost", "ops", "Spans and lines; requests are not affected.",
                  ((f"sum by (job, reason) (rate(orders_spans_dropped_total{R}))", "spans {{job}} {{reason}}"), (f"sum by (job) (rate(orders_log_dropped_total{R}))", "lines {{job}}")), "OrdersTelemetryDropped"),
            Panel("spans exported", "ops", "That the collector took.", ((f"sum by (job) (rate(orders_spans_exported_total{R}))", "{{job}}"),)),
        ],
    ),
    (
        "The cluster (kube-state-metrics)",
        [
            Panel("replicas and maximum", "none", "At the maximum for 15 minutes: a ticket.",
                  (('kube_horizontalpodautoscaler_status_current_replicas{horizontalpodautoscaler=~".*orders-.*"}', "{{horizontalpodautoscaler}}"),
                   ('kube_horizontalpodautoscaler_spec_max_replicas{horizontalpodautoscaler=~".*orders-.*"}', "max {{horizontalpodautoscaler}}")), "OrdersHpaAtMax"),
            Panel("restarts in 15 minutes", "none", "More than three: a ticket.", (('sum by (pod) (increase(kube_pod_container_status_restarts_total{pod=~"orders-.*"}[15m]))', "{{pod}}"),), "OrdersPodRestarting", 3),
        ],
    ),
)  # fmt: skip

ALL: Final = {
    "orders-slo": ("Orders: objectives", "Budgets, burn rates, what fires.", SLO),
    "orders-api": ("Orders: API", "Rate, errors, duration by route, and the gates.", API),
    "orders-async": ("Orders: async path", "Outbox, relay, groups, retries, dead letters.", ASYNC),
    "orders-data": ("Orders: data", "Pools, waits, Redis, cache.", DATA),
    "orders-business": ("Orders: business", "What customers do.", BUSINESS),
    "orders-runtime": ("Orders: runtime", "Processes, event loop, collector, cluster.", RUNTIME),
}


def main(arguments: list[str]) -> int:
    stale = []
    for uid, (title, description, rows) in ALL.items():
        path, text = TARGET / f"{uid}.json", build(uid, title, description, rows)
        if arguments == ["--check"]:
            stale += [path.name] if not path.exists() or path.read_text(encoding="utf-8") != text else []
        else:
            path.write_text(text, encoding="utf-8")
    if stale:
        sys.stderr.write(f"{', '.join(stale)}: not what observability/dashboards/generate.py writes; run it and commit\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
