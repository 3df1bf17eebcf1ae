"""One process of the race: writes, reads its writes and reads what others write, over a real table and a real Redis.

`python -m tests.proofs.race_member` with a `Task` as JSON on stdin; prints one JSON object. One write in ten is not
announced by its writer (as if it died after COMMIT): only its event is left. All processes begin a batch of keys together.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.foundation.cache import Cache
from service.foundation.db import Database
from service.settings import DatabaseSettings, load_settings
from tests.support.cache_arms import ARMS, Delayed

ENTITY, BATCH, READERS = "raced", 25, 1
_SILENT, _LATE = 0.1, 0.1
_LOAD = "SELECT id, version, body FROM raced WHERE id = ANY ($1::text[])"
_WRITE = """
WITH changed AS (UPDATE raced SET version = version + 1, body = convert_to(json_build_object('version', version + 1)::text, 'UTF8')
                 WHERE id = $1 RETURNING id, version)
INSERT INTO raced_event (id, version) SELECT id, version FROM changed RETURNING version
"""


@dataclass(frozen=True, slots=True)
class Task:
    """What one process does: `writes` to each of `keys`, among `processes` that do the same."""

    arm: str
    seed: int
    keys: Sequence[str]
    writes: int
    processes: int
    barrier: str


class Member:
    """Counts what it saw."""

    def __init__(self, task: Task, db: Database, redis: Delayed) -> None:
        self.task, self.db, self.redis = task, db, redis
        self.cache: Cache = ARMS[task.arm](redis, pool_size=16)
        self.reads = self.hits = self.backwards = self.silent = 0

    async def run(self) -> None:
        keys = self.task.keys
        for number, begin in enumerate(range(0, len(keys), BATCH)):
            await self._meet(number)
            await asyncio.gather(*(self._contest(key) for key in keys[begin : begin + BATCH]))

    async def _meet(self, number: int) -> None:
        """Wait for the others: a race needs all of them at the same keys."""
        name = f"{self.task.barrier}:{number}"
        await self.redis.raw.incr(name)
        while int(await self.redis.raw.get(name) or 0) < self.task.processes:  # noqa: ASYNC110 - the others are processes
            await asyncio.sleep(0.002)

    async def _contest(self, key: str) -> None:
        await asyncio.gather(self._write(key), *(self._watch(key) for _ in range(READERS)))

    async def _watch(self, key: str) -> None:
        for _ in range(self.task.writes):
            await self._read(key)

    async def _write(self, key: str) -> None:
        for _ in range(self.task.writes):
            async with self.db.connection() as connection:
                version = await connection.fetchval(_WRITE, key)
            await self.redis.pause()
            if Delayed.dice.random() < _SILENT:
                self.silent += 1
                continue
            await self.cache.invalidate(ENTITY, key, version)
            self.backwards += await self._read(key) < version

    async def _read(self, key: str) -> int:
        refs = [(ENTITY, key)]
        peeks = self.cache.read_peeks(refs, await self.redis.pipeline(self.cache.peek_commands(refs)))
        self.reads += 1
        self.hits += bool(peeks)
        return (await self.cache.read(ENTITY, [key], self._load, peeks=peeks))[key].version

    async def _load(self, ids: Sequence[str]) -> Mapping[str, tuple[int, bytes]]:
        async with self.db.connection() as connection:
            rows = await connection.fetch(_LOAD, list(ids))
        # The snapshot is taken, the fill is still to come; one in ten is late, as after a collection or a lost packet.
        await (asyncio.sleep(Delayed.dice.uniform(0.05, 0.4)) if Delayed.dice.random() < _LATE else self.redis.pause())
        return {row["id"]: (row["version"], row["body"]) for row in rows}


def patient(settings: DatabaseSettings, *, pool_size: int) -> DatabaseSettings:
    """Timeouts that a busy host does not reach: what is looked for here is order, not speed."""
    slow = dict.fromkeys(("acquire_timeout_ms", "command_timeout_ms", "statement_timeout_ms", "lock_timeout_ms"), 60_000)
    return settings.model_copy(update=slow | {"pool_size": pool_size})


async def main(task: Task) -> dict[str, int]:
    """Run the task with connections of its own."""
    Delayed.dice = random.Random(task.seed)
    settings = load_settings()
    db = Database(patient(settings.db, pool_size=8), application="race", queue_timeout_ms=60_000)
    redis = Delayed(settings.redis.model_copy(update={"timeout_ms": 30_000, "pool_size": 128}))
    await db.open()
    member = Member(task, db, redis)
    try:
        await member.run()
    finally:
        await redis.close()
        await db.close()
    return {"reads": member.reads, "hits": member.hits, "backwards": member.backwards, "silent": member.silent}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(Task(**json.load(sys.stdin))))))
