"""docs/failure-matrix.md: what must be seen in each state of each dependency, where it is tested, and the worst that was measured."""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

from tests.faults.matrix import MEASURED, ROWS


class State(NamedTuple):
    """A row of the page. `rows`: those of tests/faults/matrix.py that measure it; `tests`: where else its cells are shown."""

    name: str
    post: str
    get: str
    health: str
    workers: str
    signal: str
    rows: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()


_PAGE, _WARN, _TICKET = "page", "warn", "ticket"
_FINE = "200 / 200"
STATES: Final = (
    State("PostgreSQL refused, restarting", "503 ≤ 1 s, then ≤ 250 ms", "one: stale copy ≤ 300 s with `Age`, else 503; list 503", _FINE,
          "pause, offsets kept, 0 dead letters", _PAGE, ("PostgreSQL refuses",),
          ("tests/proofs/cache_faults.py", "tests/integration/test_real_kafka.py")),
    State("PostgreSQL silent", "503 ≤ 2.5 s, then ≤ 1.75 s", "same", _FINE, "locks released by server-side timeouts", _PAGE, ("PostgreSQL silent",),
          ("tests/stories/test_one_outage_exhausts_no_other_pool.py",)),
    State("PostgreSQL slow (+150 ms each way)", "2xx ≤ 1.5 s", "2xx", _FINE, "slower", _WARN, ("PostgreSQL +150 ms each way",)),
    State("PostgreSQL flapping 1 s / 3 s", "2xx or 503, never 500", "same", _FINE, "resume", _WARN, ("PostgreSQL flapping 1 s / 3 s",)),
    State("pool exhausted, row lock held", "503 / 409 for a twin", "2xx", _FINE, "own pool", _WARN, (),
          ("tests/integration/test_db.py", "tests/integration/test_place_order.py")),
    State("read-only, failing over, sessions cut", "retried ≤ 3 in the deadline, then 503; 25006 drops connections", "2xx", _FINE, "reconnect", _PAGE,
          ("PostgreSQL read-only", "PostgreSQL sessions cut"), ("tests/integration/test_db.py",)),
    State("Redis refused, silent, flapping, emptied, full, read-only, killed", "**2xx**, local bucket", "2xx from PostgreSQL", _FINE,
          "unaffected (cache group pauses)", _WARN,
          tuple(row.name for row in ROWS if row.name.startswith("Redis")),
          ("tests/stories/test_redis_away_sales_go_on.py", "tests/stories/test_the_cache_is_never_wrong.py",
           "tests/integration/test_rate_limits.py")),
    State("Kafka down, silent, slow, wrong answers", "**201** (outbox only)", "2xx", _FINE, "backlog, then drains", "page on age",
          tuple(row.name for row in ROWS if row.name.startswith("Kafka")),
          ("tests/integration/test_stack.py", "tests/integration/test_real_kafka.py")),
    State("Kafka takes all but one record", "2xx", "2xx", _FINE, "that aggregate set aside, others go on", _TICKET, (), ("tests/integration/test_relay.py",)),
    State("Kafka wiped", "2xx", "2xx", _FINE, "`republish --since`; the inbox absorbs", _PAGE, (), ("tests/integration/test_republish.py",)),
    State("provider down, slow, failing", "2xx", "2xx", _FINE, "breaker open = pause; declines are business", _WARN, ("provider down", "provider slow"),
          ("tests/stories/test_one_outage_exhausts_no_other_pool.py", "tests/integration/test_payments.py")),
    State("failing order, poison, unknown type", "–", "visible, replayable", "–", "dead letter, dead letter, ignored; the partition moves on", _TICKET, (),
          ("tests/stories/test_a_hopeless_order_is_parked_and_others_go_on.py", "tests/integration/test_consumer.py")),
    State("issuer down, keys cached / cold", "2xx (≤ 24 h stale) / 503", "same", "200 / 200, 503 cold", "–", "warn / page", ("issuer down, keys cached",),
          ("tests/integration/test_jwks.py",)),
    State("collector down", "2xx, no slower than the control arm", "2xx", _FINE, "same; spans dropped and counted", _WARN, (),
          ("tests/stories/test_lost_telemetry_costs_nothing.py",)),
    State("overload", "sales first, the rest 503", "shed first", _FINE, "–", _WARN, (), ("tests/stories/test_overload_keeps_selling.py",)),
    State("SIGTERM", "0 failed accepted requests", "same", "200 / 503 at once", "batch finished, committed, left", "–", (),
          ("tests/stories/test_a_rolling_restart_fails_nobody.py", "tests/integration/test_drain.py")),
)  # fmt: skip


def page() -> str:
    """The document."""
    kept: dict[str, dict[str, Any]] = {entry["row"]: entry for entry in json.loads(MEASURED.read_text())} if MEASURED.exists() else {}
    lines = [_HEAD]
    lines += [
        "| state | POST order, cancel, ship | GET | live / ready | relay and workers | signal | worst measured | shown by |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for state in STATES:
        tests = [f"`{name}`" for name in (*(("tests/faults/test_failure_matrix.py",) if state.rows else ()), *state.tests)]
        lines.append(f"| {' | '.join((*state[:6], _worst(state, kept), ', '.join(tests)))} |")
    lines += ["", "## Each state as it was measured", ""]
    lines += [
        "| state | POST | first two, slowest | later, slowest | bound | cached order | other order | list | paid after the heal | machine |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        if (seen := kept.get(row.name)) is not None:
            bound = f"{row.first_s:g} s, then {row.later_s:g} s"
            cells = [
                _codes(seen["post"]),
                f"{seen['first_s']:.2f} s",
                f"{seen['later_s']:.2f} s",
                bound,
                *(_codes(seen[c]) for c in ("cached", "cold", "listed")),
            ]
            lines.append(f"| {row.name} | {' | '.join(cells)} | {seen['paid_s']:.1f} s | {seen['slowness']:.1f} × |")
    return "\n".join(lines) + "\n"


_HEAD = """# Failure matrix

Generated by `python -m tests.torture.pages` from `tests/faults/matrix_page.py` and `docs/measured/matrix.json`, which `python -m tests.faults.matrix` writes. A 503 to a write means "may or may not have happened": the retry with the same key tells, and in every row below all unclear orders were placed again and paid after the heal, with 0 dead letters. Alerts behind the signals: [slo.md](slo.md).

Bounds are the service's own timeouts plus 0.25 s, times what the machine was slower than a quiet one (the last column of the second table).
"""


def _worst(state: State, kept: dict[str, dict[str, Any]]) -> str:
    found = [kept[name] for name in state.rows if name in kept]
    if not found:
        return "–"
    slow = max(entry["slowness"] for entry in found)
    return f"{max(e['first_s'] for e in found):.2f} s, then {max(e['later_s'] for e in found):.2f} s ({slow:.1f} × slow)"


def _codes(found: list[int]) -> str:
    return ", ".join(str(code) for code in sorted(set(found)))
