"""The race at full scale: real processes, real rows, events in any order; afterwards every cached version is the row's.

What a run finds stale after everything has come to rest stays stale until its time to live ends (C1). The same
schedule runs against delete-based cache-aside, which is what the guard is for (docs/adr/0008).
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from uuid import uuid4

from service.foundation.cache import entry_keys
from service.foundation.db import Database
from service.settings import Settings
from tests.proofs.race_member import ENTITY, Task, patient
from tests.support.cache_arms import ARMS, Delayed

_MEMBER_S = 1_200.0
_TABLES = """
CREATE TABLE IF NOT EXISTS raced (id text PRIMARY KEY, version int NOT NULL, body bytea NOT NULL);
CREATE TABLE IF NOT EXISTS raced_event (seq bigint GENERATED ALWAYS AS IDENTITY, id text NOT NULL, version int NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one arm of the race left behind. `backwards`: reads that saw less than the reader's own announced write."""

    arm: str
    processes: int
    updates: int
    silent: int
    reads: int
    hits: int
    backwards: int
    keys: int
    cached: int
    stale: int


async def run_race(settings: Settings, environment: Mapping[str, str], arm: str, *, keys: int, writes: int, processes: int, seed: int = 1) -> Outcome:
    """`processes` × `keys` × `writes` updates. Everything is at rest when it answers."""
    names, barrier = [uuid4().hex for _ in range(keys)], f"barrier:{uuid4().hex}"
    db = Database(patient(settings.db, pool_size=4), application="race-events", queue_timeout_ms=60_000)
    redis = Delayed(settings.redis.model_copy(update={"timeout_ms": 30_000}))
    await db.open()
    try:
        await _prepare(db, names)
        tasks = [Task(arm, seed * 1_000 + number, names, writes, processes, barrier) for number in range(processes)]
        finished = asyncio.Event()
        delivering = asyncio.create_task(_deliver(db, redis, arm, finished, random.Random(seed)))
        counts = await asyncio.gather(*(_member(task, environment) for task in tasks))
        finished.set()
        await delivering
        cached, stale = await _compare(db, redis, names)
    finally:
        async with db.connection() as connection:
            await connection.execute("DROP TABLE IF EXISTS raced, raced_event")  # the session's schema is looked at elsewhere
        await redis.close()
        await db.close()
    total = {name: sum(count[name] for count in counts) for name in ("reads", "hits", "backwards", "silent")}
    return Outcome(arm, processes, processes * keys * writes, total["silent"], total["reads"], total["hits"], total["backwards"], keys, cached, stale)


async def _prepare(db: Database, names: Sequence[str]) -> None:
    async with db.connection() as connection:
        await connection.execute(_TABLES)
        await connection.executemany("INSERT INTO raced VALUES ($1, 1, convert_to('{\"version\": 1}', 'UTF8'))", [(name,) for name in names])


async def _member(task: Task, environment: Mapping[str, str]) -> dict[str, int]:
    command = (sys.executable, "-m", "tests.proofs.race_member")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe, env=dict(environment))
    async with asyncio.timeout(_MEMBER_S):
        output, errors = await process.communicate(json.dumps(asdict(task)).encode())
    if process.returncode:
        raise RuntimeError(f"a process of the race ended with {process.returncode}: {errors.decode()[-2000:]}")
    counts: dict[str, int] = json.loads(output)
    return counts


async def _deliver(db: Database, redis: Delayed, arm: str, finished: asyncio.Event, luck: random.Random) -> None:
    """The `cache` group's part: each event at least once, late, in any order."""
    cache = ARMS[arm](redis)
    while True:
        last = finished.is_set()
        async with db.connection() as connection:
            events = await connection.fetch("DELETE FROM raced_event RETURNING id, version")
        shuffled = luck.sample([*events, *luck.sample(events, len(events) // 20)], len(events) + len(events) // 20)
        for begin in range(0, len(shuffled), 50):
            await asyncio.gather(*(cache.invalidate(ENTITY, row["id"], row["version"]) for row in shuffled[begin : begin + 50]))
        if last and not events:
            return
        await asyncio.sleep(0.02)


async def _compare(db: Database, redis: Delayed, names: Sequence[str]) -> tuple[int, int]:
    """(keys that are cached, keys cached at another version than the row's)."""
    async with db.connection() as connection:
        rows = {row["id"]: row["version"] for row in await connection.fetch("SELECT id, version FROM raced WHERE id = ANY ($1::text[])", list(names))}
    pipe = redis.raw.pipeline(transaction=False)
    for name in names:
        pipe.hget(entry_keys((ENTITY, name))[0], "v")
    held = dict(zip(names, await pipe.execute(), strict=True))
    cached = {name: int(version) for name, version in held.items() if version is not None}
    return len(cached), sum(version != rows[name] for name, version in cached.items())
