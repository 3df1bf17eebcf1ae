"""Reads, loads, fills and invalidations interleaved at every await: no reader goes back in time, nothing stale stays.

Delays sit before and after each Redis call and around each load's snapshot. The same schedule finds the stale values
of delete-based cache-aside, so the harness can see what it looks for (C1, C3; docs/adr/0008). Over real processes and
rows: tests/integration/test_cache_at_scale.py.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence

import orjson
import pytest
import pytest_asyncio

from service.foundation.cache import Cache, entry_keys
from service.settings import Settings
from tests.support.cache_arms import Delayed, Deleting

ENTITY = "raced"


class Race:
    """Rows of one truth, read through several caches as several processes would."""

    def __init__(self, clients: Sequence[Delayed], kind: type[Cache]) -> None:
        self.clients = clients
        self.caches = [kind(client, pool_size=400) for client in clients]
        self.rows: dict[str, int] = {}
        self.announced: dict[str, int] = {}
        self.backwards = 0
        self.reads = 0

    async def load(self, ids: Sequence[str]) -> Mapping[str, tuple[int, bytes]]:
        await self.clients[0].pause()
        seen = {item: self.rows[item] for item in ids}
        await self.clients[0].pause()
        return {item: (version, orjson.dumps({"version": version})) for item, version in seen.items()}

    async def read(self, place: int, item: str) -> int:
        promised = self.announced[item]
        cache, client = self.caches[place], self.clients[place]
        replies = await client.pipeline(cache.peek_commands([(ENTITY, item)]))
        entries = await cache.read(ENTITY, [item], self.load, peeks=cache.read_peeks([(ENTITY, item)], replies))
        self.reads += 1
        self.backwards += entries[item].version < promised
        return entries[item].version

    async def write(self, place: int, item: str, times: int) -> None:
        for _ in range(times):
            self.rows[item] += 1
            version = self.rows[item]
            await self.caches[place].invalidate(ENTITY, item, version)
            self.announced[item] = max(self.announced[item], version)
            await self.read(self.clients[0].dice.randrange(len(self.caches)), item)

    async def run(self, items: int, writes: int) -> list[str]:
        """Race on `items` keys; the keys whose cached version is not their row's."""
        names = [uuid.uuid4().hex for _ in range(items)]
        self.rows = dict.fromkeys(names, 1)
        self.announced = dict.fromkeys(names, 1)
        for batch in range(0, items, 25):
            await asyncio.gather(*(self._contest(item, writes) for item in names[batch : batch + 25]))
        held = {item: await self.clients[0].raw.hget(entry_keys((ENTITY, item))[0], "v") for item in names}
        return [item for item, version in held.items() if version is not None and int(version) != self.rows[item]]

    async def _contest(self, item: str, writes: int) -> None:
        readers = [self.read(place, item) for place in range(len(self.caches)) for _ in range(3)]
        await asyncio.gather(self.write(0, item, writes), self.write(1, item, writes), *readers)


@pytest_asyncio.fixture
async def clients(settings: Settings) -> AsyncIterator[list[Delayed]]:
    made = [Delayed(settings.redis.model_copy(update={"timeout_ms": 10_000})) for _ in range(4)]
    yield made
    for client in made:
        await client.close()


@pytest.mark.parametrize("seed", range(4))
async def test_no_interleaving_goes_back_in_time_or_stays_stale(clients: list[Delayed], seed: int) -> None:
    Delayed.dice = random.Random(seed)
    race = Race(clients, Cache)
    stale = await race.run(items=100, writes=3)
    assert race.reads == 100 * (6 + 12)
    assert (race.backwards, stale) == (0, [])


async def test_the_same_race_catches_delete_based_cache_aside(clients: list[Delayed]) -> None:
    Delayed.dice = random.Random(1)
    race = Race(clients, Deleting)
    stale = await race.run(items=100, writes=3)
    assert race.backwards + len(stale) > 0, "the harness no longer finds what deletes leave behind"


@pytest.mark.parametrize(("kind", "left"), [(Cache, None), (Deleting, b"1")])
async def test_a_fill_that_lands_after_an_invalidation(clients: list[Delayed], kind: type[Cache], left: bytes | None) -> None:
    """Loaded before the write, filled after it: refused by version, kept for good by a cache that deletes."""
    cache, item = kind(clients[0]), uuid.uuid4().hex

    async def load(ids: Sequence[str]) -> Mapping[str, tuple[int, bytes]]:
        await kind(clients[1]).invalidate(ENTITY, item, 2)  # committed and announced while this load holds version 1
        return {ids[0]: (1, orjson.dumps({"version": 1}))}

    await cache.read(ENTITY, [item], load, peeks={})
    assert await clients[0].raw.hget(entry_keys((ENTITY, item))[0], "v") == left


async def test_a_read_after_a_write_does_not_join_an_older_load(clients: list[Delayed]) -> None:
    cache, item = Cache(clients[0]), uuid.uuid4().hex
    version, snapshot_taken, let_go = 1, asyncio.Event(), asyncio.Event()

    async def load(ids: Sequence[str]) -> Mapping[str, tuple[int, bytes]]:
        seen = version
        snapshot_taken.set()
        await let_go.wait()
        return {ids[0]: (seen, orjson.dumps({"version": seen}))}

    older = asyncio.create_task(cache.read(ENTITY, [item], load, peeks={}))
    async with asyncio.timeout(30):
        await snapshot_taken.wait()
        version = 2
        await Cache(clients[1]).invalidate(ENTITY, item, version)  # the write went to another process
        own = asyncio.create_task(cache.read(ENTITY, [item], load, peeks={}))
        await asyncio.sleep(0)
        let_go.set()
        assert (await own)[item].version == 2
        await older
