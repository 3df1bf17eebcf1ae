"""The code stays small enough to be read: lines in all, by module, by function."""

from __future__ import annotations

import ast
import statistics
from pathlib import Path

import pytest

from tests.budgets.measure import ROOT, code_lines, functions, modules, parsed, written_lines

# 7,000 until signals (client spans, loop lag), settings for other issuers, and the lean wire took their lines,
# logins by IAM token with their refusals 130 (docs/adr/0404: botocore instead would be 30 MB), and an exporter of
# spans and a beginning of requests of our own 130 (docs/adr/0021: seven packages and a third of a request's instructions less).
# 7,750 until creates and reserves that come at once share a transaction (docs/adr/0022: half of PostgreSQL's work a create).
# 7,870 until one task a connection worked its requests off (docs/adr/0021: half of what a task a request costs).
# 7,890 until the relay looks sooner while there is work, and no span is made to be thrown away (docs/performance.md).
# 7,900 until all groups work side by side as inventory does (docs/adr/0022: a third of an order's CPU through the saga less).
# Tools: 2,900 until `plumbline capacity` (its arithmetic is a page of its own), the door to the load tests, and `plumbline watch`;
# 3,200 until migrations that run beside the traffic.
_PRODUCT_LINES, _DEV_LINES, _MODULE_LINES, _FUNCTION_LINES = 8_000, 3_450, 300, 50
_LATE_IMPORTS_ALLOWED = ("service/cli.py", "service/dev/")


def _is_dev(path: Path) -> bool:
    return str(path.relative_to(ROOT)).startswith(("service/dev/", "service/migrations/"))


def test_the_product_is_small(capsys: pytest.CaptureFixture[str]) -> None:
    paths = modules("service", "workers")
    product = sum(code_lines(path) for path in paths if not _is_dev(path))
    tools = sum(code_lines(path) for path in paths if _is_dev(path))
    with capsys.disabled():
        median = statistics.median(code_lines(path) for path in paths if path.stat().st_size)
        tests = sum(written_lines(path) for path in modules("tests"))
        print(f"\nservice + workers {product} lines, dev + migrations {tools}, module median {median:.0f}, tests ÷ source {tests / product:.2f}")
    assert product <= _PRODUCT_LINES
    assert tools <= _DEV_LINES


def test_no_module_is_long() -> None:
    long = {str(path.relative_to(ROOT)): lines for path in modules("service", "workers") if (lines := code_lines(path)) > _MODULE_LINES}
    assert not long, f"split by noun: {long}"


def test_no_function_is_long() -> None:
    found = [function for path in modules("service", "workers") if path.suffix == ".py" for function in functions(path)]
    long = {f.name: f.lines for f in found if f.lines > _FUNCTION_LINES and "migrations/versions" not in f.name}
    assert not long, f"one thing each: {long}"


def test_imports_stand_at_the_top() -> None:
    late = []
    for path in modules("service", "workers"):
        name = str(path.relative_to(ROOT))
        if path.suffix != ".py" or name.startswith(_LATE_IMPORTS_ALLOWED):
            continue
        for function in ast.walk(parsed(path)):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                late += [f"{name}:{node.lineno}" for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not late
