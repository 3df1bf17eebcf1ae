"""PostgreSQL's time by statement, from its own log (the wheel has no pg_stat_statements).

While `act` runs, every statement's duration is logged; afterwards calls and times are added up by text.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from typing import Final

from bench.servers import Rig

_DURATION: Final = re.compile(r"duration: ([0-9.]+) ms  (?:parse|bind|execute|statement)\b[^:]*: (.*)", re.DOTALL)
_ENTRY: Final = re.compile(r"^(?=\S.*?(?:LOG|ERROR|WARNING|DETAIL|FATAL|STATEMENT|HINT|CONTEXT):)", re.MULTILINE)
_TOP, _WIDTH = 12, 96


def top_statements(rig: Rig, act: Callable[[], None], settle: Callable[[], None]) -> list[str]:
    """Lines of a table: share of the time, calls, mean, text."""
    _log_everything(rig, on=True)
    begin = rig.postgres.log.stat().st_size
    try:
        act()
        settle()
    finally:
        _log_everything(rig, on=False)
    with rig.postgres.log.open(errors="replace") as file:
        file.seek(begin)
        return table(file.read())


def _log_everything(rig: Rig, *, on: bool) -> None:
    for setting, value in (("log_min_duration_statement", "0"), ("log_parameter_max_length", "0")):
        change = f"SET {setting} = {value}" if on else f"RESET {setting}"
        rig.postgres.run("psql", "-XAtqc", f"ALTER SYSTEM {change}")
    rig.postgres.run("psql", "-XAtqc", "SELECT pg_reload_conf()")


def table(log: str) -> list[str]:
    """The statements of a log, those with the most time first."""
    spent: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for entry in _ENTRY.split(log):
        found = _DURATION.search(entry)
        if found:
            # A comment ends with its line: take them away before the lines are joined.
            text = " ".join(re.sub(r"--.*", "", found[2]).split())
            spent[text][0] += float(found[1])
            spent[text][1] += "execute" in entry or "statement:" in entry
    total = sum(ms for ms, _ in spent.values()) or 1.0
    ranked = sorted(spent.items(), key=lambda item: -item[1][0])[:_TOP]
    return [f"{ms / total:>5.1%} {calls:>6.0f} × {1000 * ms / max(calls, 1):>7.0f} µs  {text[:_WIDTH]}" for text, (ms, calls) in ranked]
