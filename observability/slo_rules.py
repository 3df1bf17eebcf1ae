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
# A case: so long failures come; the rules are evaluated once an hour, for nothing in them waits.
BURNING_MIN: Final = 300
SIDES: Final = {"just above": 1.02, "just below": 0.98}


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


def fires(severity: str, *, burn: float, a_minute: float) -> int:
    """How many halves of an alert see more than their factor and enough events, after `BURNING_MIN`."""
    windows = [(factor, min(SECONDS[long] / 60, BURNING_MIN), least) for factor, long, _, least in BURNS[severity]]
    return sum(burn > factor and a_minute * minutes >= least for factor, minutes, least in windows)


def case(slo: Slo, severity: str, *, title: str, burn: float, a_minute: float) -> dict[str, Any]:
    bad = a_minute * slo.budget * burn
    good = a_minute - bad
    rows = {slo.counter: good if slo.bad else a_minute, slo.bad or slo.good: bad if slo.bad else good}
    series = {str(name): f"0+{step:.8g}x{BURNING_MIN}" for name, step in rows.items()}
    found = fires(severity, burn=burn, a_minute=a_minute)
    return rule_case(f"Orders{slo.name.capitalize()}Burn{severity}", f"{title}: {found} fire", series, at=f"{BURNING_MIN}m", fires=found)


def over(slo: Slo, severity: str) -> dict[str, Any]:
    """Both long windows still hold enough failures, both short ones none: the alert ends with what caused it."""
    at, quiet = (300, 40) if severity == "Page" else (660, 380)
    bad = 10000 * slo.budget * BURNS[severity][0][0] * 4
    # Series → its steps while failures come, and afterwards.
    steps = {
        slo.counter: (10000 - bad, 10000.0) if slo.bad else (10000.0, 10000.0),
        slo.bad or slo.good: (bad, 0.0) if slo.bad else (10000 - bad, 10000.0),
    }
    series = {}
    for name, (before, after) in steps.items():
        series[str(name)] = f"0+{before:.8g}x{at - quiet} {before * (at - quiet) + after:.8g}+{after:.8g}x{quiet - 1}"
    return rule_case(f"Orders{slo.name.capitalize()}Burn{severity}", "when it is over: 0 fire", series, at=f"{at}m", fires=0)


def cases(slo: Slo, severity: str) -> list[dict[str, Any]]:
    """Each number of an alert from both sides: factors, fewest events, and the short windows that end it."""
    (fast, *_), (slow, *_) = BURNS[severity]
    plan = [(f"{side} the {name} factor", factor * by, 10000.0) for name, factor in (("fast", fast), ("slow", slow)) for side, by in SIDES.items()]
    for _, long, _, least in BURNS[severity]:
        plan += [(f"{side} the events of {long}", fast * 4, least * by / min(SECONDS[long] / 60, BURNING_MIN)) for side, by in SIDES.items()]
    return [case(slo, severity, title=title, burn=burn, a_minute=rate) for title, burn, rate in plan] + [over(slo, severity)]


def files() -> dict[Path, Any]:
    alerts = [burn_alert(slo, severity) for slo in SLOS for severity in BURNS]
    tests = [found for slo in SLOS for severity in BURNS for found in cases(slo, severity)]
    order = [*(f"orders-sli-{slo.name}" for slo in SLOS), "orders-slo"]
    sources = [f"../../deploy/helm/orders/files/rules/{name}.yaml" for name in ("recording", "slo")]
    return {
        RULES / "recording.yaml": {"groups": [recording(slo) for slo in SLOS]},
        RULES / "slo.yaml": {"groups": [{"name": "orders-slo", "rules": alerts}]},
        TESTS / "slo.yaml": {"rule_files": sources, "evaluation_interval": "1h", "group_eval_order": order, "tests": tests},
    }


if __name__ == "__main__":
    sys.exit(write(files(), sys.argv[1:], script="slo_rules.py"))
