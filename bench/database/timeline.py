"""Revisions 0002 to 0004 under a hundred writes a second, forwards and back, as a picture: the slowest writes of each half second.

The run is `rollout.py`'s; tests/integration/test_online_migration.py holds its promises.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

from bench.database.findings import Chapter, Finding, Lines, Shown, Table
from bench.database.lab import Lab
from bench.database.rollout import SERVER, Rollout, longest_ms, roll_out
from bench.errors import BenchError
from service.dev.postgres import EmbeddedPostgres
from service.dev.redis import EmbeddedRedis
from service.dev.state import ROOT

_ROWS, _RATE, _WRITES = 1_000_000, 100, 500
_SLOT_S: Final = 0.5
# A pod asks its issuer in its own process, and charges nobody.
_ISSUER, _NOBODY = "http://127.0.0.1:9103", "http://127.0.0.1:9"
_EXPAND: Final = "service/migrations/versions/0002_orders_closed_at.py"


async def run(lab: Lab) -> Finding:
    """One rolling update on servers of its own."""
    return await asyncio.to_thread(_run, lab)


def _run(lab: Lab) -> Finding:
    home = Path(mkdtemp(dir=lab.home))
    server = EmbeddedPostgres(home, lab.postgres.port + 6, settings=SERVER)
    redis = EmbeddedRedis(home, server.port + 1)
    try:
        server.start()
        redis.start()
        environment = {
            "PLUMBLINE_HOME": str(home), "REDIS_URL": redis.url, "APP_DB_SSL": "disable", "APP_ENV": "test", "APP_PROFILE": "load",
            "APP_HTTP_ALLOWED_HOSTS": "127.0.0.1,localhost,testserver", "HTTP_PORT": str(server.port - 100),
            "APP_AUTH_ISSUER": _ISSUER, "APP_AUTH_JWKS_URL": f"{_ISSUER}/.well-known/jwks.json", "APP_PAYMENTS_URL": _NOBODY,
        }  # fmt: skip
        made = roll_out(server, environment, home / "old", orders=_ROWS, rate=_RATE, writes=_WRITES, say=lab.say)
        if made.refused:
            raise BenchError(f"a migration under writes that are refused shows nothing: {made.refused[0]} and {len(made.refused) - 1} more")
    finally:
        redis.stop()
        server.stop()
        server.wipe()
    return _tell(made)


def _tell(made: Rollout) -> Finding:
    start = made.writes[0][0]
    slots: dict[int, float] = {}
    for at, _, _, took, _ in made.writes:
        slot = int((at - start) / _SLOT_S)
        slots[slot] = max(slots.get(slot, 0.0), took)
    steps = [(at - start, name) for at, name in made.steps if at >= start]
    migrations = [
        (round(begin, 1), round(end, 1), name.removeprefix("migrate to "))
        for (begin, name), (end, _) in itertools.pairwise(steps)
        if name.startswith("migrate to")
    ]
    codes = Counter((version, status) for _, _, status, _, version in made.writes)
    found = Finding()
    found.witness = [
        Table(
            ("writes", "answered 5xx", "waits for a lock over 200 ms", "orders not as their writer left them"),
            [(len(made.writes), len(made.failed), len(made.lock_waits), made.mismatches)],
        ),
        Table(("code", "status", "writes"), [(version, status, count) for (version, status), count in sorted(codes.items())]),
        Table(("slowest write, ms", ""), [(kind, round(took)) for kind, took in longest_ms(made).items()]),
        Table(("second", "step"), [(round(at, 1), name) for at, name in steps]),
    ]
    slowest = [(slot * _SLOT_S, max(1.0, round(took, 1))) for slot, took in sorted(slots.items())]
    found.lines = [
        Lines(
            "The slowest write of each half second; shaded: a revision runs",
            "seconds",
            "ms",
            [("slowest write", slowest)],
            log_y=True,
            shaded=migrations,
        )
    ]
    found.shown = [Shown("the expanding revision", (ROOT / _EXPAND).read_text().split("def downgrade")[0])]
    found.facts = {"rows": _ROWS, "rate": _RATE}
    return found


CHAPTER: Final = Chapter(
    name="timeline",
    title="A migration that nobody notices",
    question="How does a table of a million rows change its shape while a hundred writes a second go on?",
    reading=(
        "Expand, fill, contract: `orders.closed_at` on {rows:,} rows under {rate} writes a second by two pods, old code and new. Each change that needs a "
        "strong lock waits at most 100 ms for it and then gives way (`service/migrations/online.py`); rows are filled in batches that rest as long as they "
        "worked; the index is built CONCURRENTLY; the CHECK is added NOT VALID and validated later. Then all the way back under old code. What the linter "
        "refuses is in `tests/integration/test_migrations_are_safe.py`; the promises of this run are held by `tests/integration/test_online_migration.py`."
    ),
    other="One revision in a maintenance window, where there is a night in which nobody buys: one step instead of three, no trigger, no two truths.",
    run=run,
)
