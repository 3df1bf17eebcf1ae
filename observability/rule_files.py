"""What the rule scripts share: how an alert and a promtool case look, and writing files or comparing them with `--check`.

Standard library only (JSON is YAML). Used by slo_rules.py and cause_rules.py.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
RULES: Final = ROOT / "deploy/helm/orders/files/rules"
TESTS: Final = ROOT / "observability/tests"


def alert(name: str, expr: str, *, severity: str, summary: str, description: str, runbook: str, dashboard: str, wait: str = "") -> dict[str, Any]:
    """One alerting rule. `runbook` is a page of docs/runbooks, `dashboard` a uid."""
    return {
        "alert": name,
        "expr": expr,
        **({"for": wait} if wait else {}),
        "labels": {"severity": severity, "team": "orders", "service": "orders"},
        "annotations": {
            "summary": summary,
            "description": description,
            "runbook_url": f"docs/runbooks/{runbook}",
            "dashboard_url": f"/d/{dashboard}",
        },
    }


def case(name: str, title: str, series: Mapping[str, str], *, at: str, fires: int) -> dict[str, Any]:
    """A promtool case: `fires` alerts of this name are firing at `at`."""
    promql = f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) > 0 or vector(0)'
    return {
        "name": f"{name}: {title}",
        "interval": "1m",
        "input_series": [{"series": selector, "values": values} for selector, values in series.items()],
        "promql_expr_test": [{"expr": promql, "eval_time": at, "exp_samples": [{"labels": "{}", "value": fires}]}],
    }


def write(files: Mapping[Path, Any], arguments: list[str], *, script: str) -> int:
    """Write every file, or with `--check` say which are not what the script writes; answers the exit code."""
    stale = []
    for path, content in files.items():
        text = json.dumps(content, indent=1) + "\n"
        if arguments == ["--check"]:
            stale += [path.name] if not path.exists() or path.read_text() != text else []
        else:
            path.write_text(text)
    if stale:
        sys.stderr.write(f"{', '.join(stale)}: not what observability/{script} writes; run it and commit\n")
    return 1 if stale else 0
