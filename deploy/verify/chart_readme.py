"""Keeps the value table of the chart's README equal to values.yaml.

The text of a row is the `# --` comment above the key. `--write` rewrites the table, `--check` exits 1 when it differs or
a value has no description. Test: tests/helm/test_readme.py.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).resolve().parents[1] / "helm" / "orders"
BEGIN, END = "<!-- values:begin (deploy/verify/chart_readme.py --write) -->", "<!-- values:end -->"
KEY = re.compile(r"^( *)([A-Za-z][\w.-]*):(.*)$")


@dataclass(frozen=True)
class Row:
    path: str
    default: str
    text: str


def rows(source: str) -> tuple[list[Row], list[str]]:
    """Described values in file order, and the leaves nobody described."""
    values = yaml.safe_load(source)
    described: list[Row] = []
    stack: list[tuple[int, str]] = []
    text = ""
    bare: list[str] = []
    for line in source.splitlines():
        if line.lstrip().startswith("# -- "):
            text = line.lstrip().removeprefix("# -- ")
            continue
        match = KEY.match(line)
        if match is None:
            continue
        indent = len(match[1])
        stack = [part for part in stack if part[0] < indent] + [(indent, match[2])]
        path = [part for _, part in stack]
        covered = any(".".join(path[:n]) in {row.path for row in described} for n in range(1, len(path)))
        if text:
            described.append(Row(".".join(path), _default(values, path), text))
        elif not covered and match[3].strip() and not match[3].strip().startswith("&"):
            bare.append(".".join(path))
        text = ""
    return described, bare


def _default(values: Any, path: list[str]) -> str:
    for part in path:
        values = values[part]
    shown = str(yaml.safe_dump(values, default_flow_style=True, width=10_000)).strip().removesuffix("...").strip()
    return shown.replace("|", "\\|")


def table(described: list[Row]) -> str:
    lines = ["| value | default | meaning |", "|---|---|---|"]
    lines += [f"| `{row.path}` | `{row.default}` | {row.text} |" for row in described]
    return "\n".join(lines)


def rewritten(readme: str, described: list[Row]) -> str:
    """Raises `ValueError` when the markers are missing."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md lacks its markers: put {BEGIN} and {END} around the table")
    return f"{before}{BEGIN}\n{table(described)}\n{END}{after}"


def main(arguments: list[str]) -> int:
    if arguments not in (["--write"], ["--check"]):
        print("usage: chart_readme.py --write | --check", file=sys.stderr)
        return 2
    described, bare = rows((CHART / "values.yaml").read_text(encoding="utf-8"))
    if bare:
        print(f"no `# --` description above: {', '.join(bare)}; add one in values.yaml", file=sys.stderr)
        return 1
    path = CHART / "README.md"
    kept = path.read_text(encoding="utf-8")
    made = rewritten(kept, described)
    if arguments == ["--write"]:
        path.write_text(made, encoding="utf-8")
    elif kept != made:
        print("the value table differs from values.yaml: run deploy/verify/chart_readme.py --write", file=sys.stderr)
        return 1
    print(f"{len(described)} values described")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
