"""Writes the recording rules, the eight burn-rate alerts and their promtool cases. `--check`: only compare.

Errors and totals are recorded apart, so that a window's ratio is a ratio of sums. When a written file is edited by
hand, `--check` fails; change the table here. Cases: observability/tests/slo.yaml. Standard library only (JSON is YAML).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rule_files import RULES, TESTS, alert, write
from rule_files import case as rule_case

WINDOWS: Final = ("5m", "30m", "1h", "2h", "6h", "1d", "3d", "30d")
# Factor, long window, short window, least events in the long one: below that, one failure is no burn.
BURNS: Final = {"Page": ((14.4, "1h", "5m", 50), (6, "6h", "30m", 200)), "Ticket": ((3, "1d", "2h", 500), (1, "3d", "6h", 1000))}
SECONDS: Final = {"1h": 3600, "6h": 21600, "1d": 86400, "3d": 259200}


@dataclass(frozen=True)
class Slo:
    """`total` and `errors` are PromQL with W for the window; `series` makes the raw series of a case."""

    name: str
    budget: float
    total: str
    errors: str
    counter: str
    bad: str | None
    good: str | None


def histogram(name: str, budget: float, metric: str, *, good: str, le: str, labels: str) -> Slo:
    total = f"sum(rate({metric}_count[W]))"
    return Slo(name, budget, total, f"{total} - sum({good})", f"{metric}_count{{{labels}}}", None, f'{metric}_bucket{{{labels},le="{le}"}}')


HTTP: Final = "orders_http_request_duration_seconds"
READS_AND_WRITES: Final = f'rate({HTTP}_bucket{{method="GET",le="0.15"}}[W]) or rate({HTTP}_bucket{{method!="GET",le="0.3"}}[W])'
REQUESTS: Final = "sum(rate(orders_http_requests_total[W]))"
SLOS: Final = (
    Slo(
        "availability",
        0.001,
        REQUESTS,
        f'sum(rate(orders_http_requests_total{{status=~"5.."}}[W])) or 0 * {REQUESTS}',
        'orders_http_requests_total{status="200"}',
        'orders_http_requests_total{status="503"}',
        None,
    ),
    histogram("latency", 0.01, HTTP, good=READS_AND_WRITES, le="0.3", labels='method="POST"'),
    histogram(
        "freshness",
        0.005,
        "orders_commit_to_kafka_seconds",
        good='rate(orders_commit_to_kafka_seconds_bucket{le="5.0"}[W])',
        le="5.0",
        labels='job="orders-relay"',
    ),
    histogram(
        "processing",
        0.01,
        "orders_event_age_seconds",
        good='rate(orders_event_age_seconds_bucket{le="30.0"}[W])',
        le="30.0",
        labels='group="payments"',
    ),
)


def recording(slo: Slo) -> dict[str, Any]:
    rules = []
    for window in WINDOWS:
        for kind, text in (("errors", slo.errors), ("total", slo.total)):
            rules.append({"record": f"orders:sli_{kind}:rate{window}", "labels": {"slo": slo.name}, "expr": text.replace("W", window)})
        ratio = f'orders:sli_errors:rate{window}{{slo="{slo.name}"}} / (orders:sli_total:rate{window}{{slo="{slo.name}"}} > 0)'
        rules.append({"record": f"orders:sli_errors:ratio_rate{window}", "labels": {"slo": slo.name}, "expr": ratio})
    return {"name": f"orders-sli-{slo.name}", "rules": rules}


def burn_alert(slo: Slo, severity: str) -> dict[str, Any]:
    parts = []
    for factor, long, short, least in BURNS[severity]:
        limit = f"{factor * slo.budget:.6g}"
        enough = f'orders:sli_total:rate{long}{{slo="{slo.name}"}} * {SECONDS[long]} >= {least}'
        sides = [f'orders:sli_errors:ratio_rate{window}{{slo="{slo.name}"}} > {limit}' for window in (long, short)]
        parts.append(f'label_replace({sides[0]} and {sides[1]} and {enough}, "window", "{long}", "", "")')
    objective = f"Orders{slo.name.capitalize()}Burn"
    return alert(
        f"{objective}{severity}",
        " or ".join(parts),
        severity=severity.lower(),
        summary=f"{slo.name}: {{{{ $value | humanizePercentage }}}} failed over {{{{ $labels.window }}}}",
        description=f"Budget {slo.budget:.2%} over 30 days; spent at {{{{ $value | humanizePercentage }}}} over {{{{ $labels.window }}}}.",
        runbook=f"{objective}.md",
        dashboard="orders-slo",
    )


def case(slo: Slo, severity: str, *, title: str, burn: float, a_minute: float, fires: bool) -> dict[str, Any]:
    bad = a_minute * slo.budget * burn
    good = a_minute - bad
    rows = {slo.counter: good if slo.bad else a_minute, slo.bad or slo.good: bad if slo.bad else good}
    name = f"Orders{slo.name.capitalize()}Burn{severity}"
    found = len([1 for factor, *_ in BURNS[severity] if burn > factor]) if fires else 0
    return rule_case(name, title, {str(series): f"0+{step:.8g}x310" for series, step in rows.items()}, at="5h", fires=found)


def cases(slo: Slo, severity: str) -> list[dict[str, Any]]:
    slow = BURNS[severity][1][0]
    plan = (
        ("fires just above", slow * 1.02, 10000, True),
        ("silent just below", slow * 0.98, 10000, False),
        ("silent with too few events", slow * 4, 0.1, False),
    )
    return [case(slo, severity, title=title, burn=burn, a_minute=rate, fires=fires) for title, burn, rate, fires in plan]


def files() -> dict[Path, Any]:
    alerts = [burn_alert(slo, severity) for slo in SLOS for severity in BURNS]
    tests = [found for slo in SLOS for severity in BURNS for found in cases(slo, severity)]
    sources = [f"../../deploy/helm/orders/files/rules/{name}.yaml" for name in ("recording", "slo")]
    return {
        RULES / "recording.yaml": {"groups": [recording(slo) for slo in SLOS]},
        RULES / "slo.yaml": {"groups": [{"name": "orders-slo", "rules": alerts}]},
        TESTS / "slo.yaml": {"rule_files": sources, "evaluation_interval": "5m", "tests": tests},
    }


if __name__ == "__main__":
    sys.exit(write(files(), sys.argv[1:], script="slo_rules.py"))
