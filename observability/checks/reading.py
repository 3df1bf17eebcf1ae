"""Reads the committed rules and dashboards: alerts, recording rules, panel expressions, and the metrics they name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
RULES: Final = ROOT / "deploy/helm/orders/files/rules"
DASHBOARDS: Final = ROOT / "deploy/helm/orders/files/dashboards"
TESTS: Final = ROOT / "observability/tests"
_STRING: Final = re.compile(r'"[^"]*"')
_SELECTOR: Final = re.compile(r"(?<![\w:$.])([a-zA-Z_][\w:]*)(\{[^{}]*\})?(?!\s*\()")
_GROUPING: Final = re.compile(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\([^()]*\)")
_WORDS: Final = frozenset({"and", "or", "unless", "by", "on", "without", "offset", "bool", "ignoring", "group_left", "group_right", "inf", "nan"})


def rules() -> list[dict[str, Any]]:
    """Every rule of every file (the files are JSON, which is YAML)."""
    return [rule for path in sorted(RULES.glob("*.yaml")) for group in json.loads(path.read_text())["groups"] for rule in group["rules"]]


def cases() -> list[dict[str, Any]]:
    """Every promtool case."""
    return [case for path in sorted(TESTS.glob("*.yaml")) if path.name != "routes.yaml" for case in json.loads(path.read_text())["tests"]]


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    """(dashboard uid, panel) of every panel that is no row."""
    for path in sorted(DASHBOARDS.glob("*.json")):
        board = json.loads(path.read_text(encoding="utf-8"))
        for panel in board["panels"]:
            if panel["type"] != "row":
                yield board["uid"], panel


def selectors(expr: str) -> set[str]:
    """`metric{matchers}` of every vector an expression reads."""
    found = set()
    bare = _GROUPING.sub(" ", expr)
    hidden = _STRING.sub(lambda text: '"' + "\0" * (len(text[0]) - 2) + '"', bare)
    for match in _SELECTOR.finditer(re.sub(r"\{[^{}]*\}", lambda block: "{" + "\1" * (len(block[0]) - 2) + "}", re.sub(r"\[[^\]]*\]", "", hidden))):
        if match[1].lower() not in _WORDS:
            found.add(match[1])
    plain = re.sub(r"\[[^\]]*\]", "", bare)
    out = set()
    for name in found:
        out |= {f"{name}{block}" for block in re.findall(rf"(?<![\w:]){re.escape(name)}(?![\w:])(\{{[^{{}}]*\}})?", plain)}
    return out


def names(expr: str) -> set[str]:
    """The metrics an expression reads."""
    return {selector.partition("{")[0] for selector in selectors(expr)}
