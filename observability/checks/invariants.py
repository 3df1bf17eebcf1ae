"""What holds between rules, cases, dashboards, runbooks and the service's own metrics. Closing line: `N passed, M failed`.

Run with the project's environment: it asks the registry which metrics there are.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Final

from prometheus_client import REGISTRY
from reading import ROOT, cases, names, panels, rules

import service.foundation.metrics  # noqa: F401 - defines them
import workers.signals  # noqa: F401 - defines the workers' own metrics

# Who else is scraped: kube-state-metrics, and what Prometheus and its client make themselves.
OTHERS: Final = re.compile(
    r"up|ALERTS|process_\w+|python_\w+|kube_(job_status_failed|pod_container_status_restarts_total|horizontalpodautoscaler_\w+)"
)
ALERTS: Final = {rule["alert"]: rule for rule in rules() if "alert" in rule}
RECORDED: Final = {rule["record"] for rule in rules() if "record" in rule}


def _known() -> set[str]:
    return {name for found in REGISTRY._collector_to_names.values() for name in found}  # noqa: SLF001 - there is no public list


def _panel_exprs() -> list[str]:
    return [target["expr"] for _, panel in panels() for target in panel["targets"]]


def every_alert_has_three_cases() -> list[str]:
    """It fires, it does not, the boundary."""
    found = []
    for name in ALERTS:
        mine = [case for case in cases() if case["name"].startswith(f"{name}:")]
        fires = [sum(test["exp_samples"][0]["value"] for test in case["promql_expr_test"]) > 0 for case in mine]
        if len(mine) < 3 or not any(fires) or (all(fires) and name != "OrdersWatchdog"):
            found.append(f"{name}: {len(mine)} cases, {sum(fires)} that fire")
    return found


def every_case_is_of_an_alert() -> list[str]:
    """A renamed alert leaves no case behind."""
    return [case["name"] for case in cases() if case["name"].partition(":")[0] not in ALERTS]


def every_alert_says_what_to_do() -> list[str]:
    """Severity, team, service, summary with the value, description, a runbook that exists, a dashboard that exists."""
    boards = {uid for uid, _ in panels()}
    found = []
    for name, rule in ALERTS.items():
        labels, notes = rule["labels"], rule["annotations"]
        valued = "{{ $value" in notes["summary"] + notes["description"] or name in {"OrdersWatchdog", "OrdersMetricsAbsent", "OrdersNoRelay"}
        named = valued or "{{ $labels" in notes["summary"] or name in {"OrdersProviderBreakerOpen", "OrdersDeadLetterBreakerOpen"}
        good = labels["severity"] in {"page", "ticket"} and labels["team"] and labels["service"] and notes["description"] and named
        page = ROOT / notes["runbook_url"]
        if not good or not page.exists() or notes["dashboard_url"].removeprefix("/d/") not in boards:
            found.append(f"{name}: {page.relative_to(ROOT)} {'is there' if page.exists() else 'is missing'}")
    return found


def every_recording_rule_is_used() -> list[str]:
    """By another rule or by a panel."""
    used = {name for rule in rules() for name in names(rule["expr"])} | {name for expr in _panel_exprs() for name in names(expr)}
    return sorted(RECORDED - used)


def every_metric_exists() -> list[str]:
    """In the service, as a recording rule, or in the listed exporters."""
    exprs = [*(rule["expr"] for rule in rules()), *_panel_exprs()]
    known = _known() | RECORDED
    return sorted({name for expr in exprs for name in names(expr) if name not in known and not OTHERS.fullmatch(name)})


def every_metric_is_looked_at() -> list[str]:
    """A metric of ours that no rule and no panel reads is a cost without a question."""
    exprs = " ".join([*(rule["expr"] for rule in rules()), *_panel_exprs()])
    ours = {metric.name for metric in REGISTRY.collect() if metric.name.startswith("orders_")}
    unread = {name for name in ours if not re.search(rf"\b{name}(_total|_bucket|_count|_sum)?\b", exprs)}
    return sorted(unread - {"orders_http_in_flight"})  # for `plumbline watch`: requests before they hold a slot


CHECKS: Final[tuple[Callable[[], list[str]], ...]] = (
    every_alert_has_three_cases, every_case_is_of_an_alert, every_alert_says_what_to_do, every_recording_rule_is_used,
    every_metric_exists, every_metric_is_looked_at,
)  # fmt: skip


def main() -> int:
    failed = 0
    for check in CHECKS:
        found = check()
        failed += bool(found)
        print(f"{'FAILED' if found else 'ok'}  {check.__name__.replace('_', ' ')}", *found, sep="\n    ")
    print(f"{len(ALERTS)} alerts, {len(cases())} cases, {len(RECORDED)} recording rules, {len(_panel_exprs())} panel expressions")
    print(f"{len(CHECKS) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
