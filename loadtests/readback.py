"""After a run: wait until everything placed has ended, then ask PostgreSQL, the provider's log and the admin API what is true.

The invariants are those of the tests (`tests/support/invariants.py`): orders without duplicates, stock conserved,
nothing oversold, money right, events in order and applied once. A run answers for its own orders and letters: what
was open before it began is left out. `python -m loadtests.readback HOME SINCE` (seconds, as `date +%s`) prints JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import asyncpg

from service.dev.issuer import mint
from service.dev.state import read_stack
from tests.support import invariants

_POLL_S: Final = 0.1
_EVER: Final = datetime.fromtimestamp(0, UTC)
_TELL_S: Final = 2.0
# Invariant → what it means here; the order of the report.
ASKED: Final = {
    "I2": "one order a key (0 duplicates)",
    "G1": "stock adds up",
    "G2": "nothing oversold",
    "G5": "versions count events",
    "O2": "events in order, once",
    "W1": "every event applied",
    "W2": "effects happen once",
    "W3": "no retry begins early",
    "G6": "money is right",
    "ended": "every order has ended",
    "dead letters": "no dead letter",
}
_LETTERS: Final = "SELECT consumer, count(*) AS count FROM dead_letter WHERE status = 'open' AND created_at >= $1 GROUP BY consumer ORDER BY 1"
_LEFT: Final = "SELECT count(*) FROM orders WHERE status IN ('placed', 'reserved') AND created_at >= $1"
_OLDER: Final = "SELECT id FROM orders WHERE status IN ('placed', 'reserved') AND created_at < $1"
# What can be asked of a system that is still at work: each is one statement's snapshot of committed transactions.
_ANY_TIME: Final = frozenset({"I2", "G1", "G2", "G5", "O2", "W2", "W3", "dead letters"})
_SAGA: Final = """
    WITH event AS (SELECT aggregate_id, type, created_at FROM outbox UNION ALL SELECT aggregate_id, type, created_at FROM outbox_sent)
    SELECT count(*) AS paid, coalesce(percentile_cont(0.5) WITHIN GROUP (ORDER BY took), 0) AS p50_s,
        coalesce(percentile_cont(0.99) WITHIN GROUP (ORDER BY took), 0) AS p99_s
    FROM (SELECT extract(epoch FROM paid.created_at - o.created_at)::float8 AS took FROM orders o
          JOIN event paid ON paid.aggregate_id = o.id::text AND paid.type = 'order.paid' WHERE o.created_at >= $1) s
"""


@dataclass
class Truth:
    """What was read back."""

    drain_s: float = 0.0
    drained: bool = True
    placed: int = 0
    paid: int = 0
    placed_to_paid_p50_s: float = 0.0
    placed_to_paid_p99_s: float = 0.0
    outbox_rows: int = 0
    outbox_oldest_age_s: float = 0.0
    dead_letters: int = 0
    violations: dict[str, list[str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=lambda: list(ASKED))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


async def read_back(home: Path, *, since: datetime, ended_at: float, patience_s: float = 60.0, say: Callable[[str], None] = print) -> Truth:
    """Wait until the system is quiet (at most `patience_s`), then ask. `ended_at`: the last arrival, monotonic."""
    urls = read_stack(home)["urls"]
    connection = await asyncpg.connect(urls["database"], timeout=10)
    try:
        await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
        truth = await drain(connection, ended_at, patience_s, say, since=since)
        saga = await connection.fetchrow(_SAGA, since)
        truth.paid, truth.placed_to_paid_p50_s, truth.placed_to_paid_p99_s = saga["paid"], round(saga["p50_s"], 3), round(saga["p99_s"], 3)
        truth.placed = await connection.fetchval("SELECT count(*) FROM orders WHERE created_at >= $1", since)
        overview = await asyncio.to_thread(_overview, home, urls)
        truth.outbox_rows, truth.outbox_oldest_age_s = overview["outbox"]["rows"], overview["outbox"]["oldest_age_s"]
        parked = [str(row["id"]) for row in await connection.fetch(_OLDER, since)]
        broken = await invariants.held(connection, invariants.provider_log(home), invariants.retries_begun(home), parked=parked)
        truth.violations = {name: found[:5] for name, found in broken.items()}
        letters = await connection.fetch(_LETTERS, since)
        truth.dead_letters = sum(row["count"] for row in letters)
        if letters:
            truth.violations["dead letters"] = [f"{row['count']} of {row['consumer']}" for row in letters]
        if not truth.drained:
            # Unfinished is late, not lost: the drain objective says so, and the rest was not asked.
            truth.asked = [name for name in ASKED if name in _ANY_TIME]
            truth.violations = {name: found for name, found in truth.violations.items() if name in _ANY_TIME}
        return truth
    finally:
        await connection.close()


async def drain(connection: Any, ended_at: float, patience_s: float, say: Callable[[str], None], *, since: datetime = _EVER) -> Truth:
    """Wait until every order placed `since` has ended and every event is applied, at most `patience_s` after `ended_at`."""
    told = time.monotonic()
    while left := await _left(connection, since):
        now = time.monotonic()
        if now - ended_at > patience_s:
            return Truth(drain_s=round(now - ended_at, 2), drained=False)
        if now - told > _TELL_S:
            told = now
            say(f"  draining: {left} orders or events are not finished")
        await asyncio.sleep(_POLL_S)
    return Truth(drain_s=round(max(0.0, time.monotonic() - ended_at), 2))


async def _left(connection: Any, since: datetime) -> int:
    """Cheap first: the anti-joins of W1 are asked only when nothing is obviously open."""
    open_orders = await connection.fetchval(_LEFT, since)
    return int(open_orders) or len(await invariants.unapplied(connection))


def _overview(home: Path, urls: dict[str, str]) -> dict[str, Any]:
    import httpx  # noqa: PLC0415 - only a read back needs it

    token = mint(home, sub="load-admin", role="admin", issuer=urls["issuer"])
    answer = httpx.get(f"{urls['api']}/v1/admin/overview", headers={"authorization": f"Bearer {token}"}, timeout=10)
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


def main() -> int:
    """Exit 0 with JSON on stdout, whatever it says; 1 with a sentence when nothing could be asked."""
    home, since = Path(sys.argv[1]), datetime.fromtimestamp(float(sys.argv[2]), UTC)
    try:
        truth = asyncio.run(read_back(home, since=since, ended_at=time.monotonic(), say=lambda text: print(text, file=sys.stderr)))
    except Exception as error:  # noqa: BLE001 - whatever it was, the caller must know that nothing was asked
        print(f"the invariants could not be read back: {type(error).__name__} {error}", file=sys.stderr)
        return 1
    print(json.dumps(truth.to_json()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
