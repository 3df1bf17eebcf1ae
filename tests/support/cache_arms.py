"""The cache under test and what it is compared with, behind a Redis client that pauses around every call."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar

from service.foundation.cache import Cache, entry_keys
from service.foundation.redis import RedisClient
from service.foundation.redis_wire import Command

T = TypeVar("T")


class Delayed(RedisClient):
    """The real client, with a seeded pause before and after whatever it does."""

    dice = random.Random(0)

    async def pause(self) -> None:
        await asyncio.sleep(self.dice.choice((0, 0, 0.001, 0.004)))

    async def call(self, work: Awaitable[T]) -> T:
        await self.pause()
        answer = await super().call(work)
        await self.pause()
        return answer

    async def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        await self.pause()
        answer = await super().pipeline(commands)
        await self.pause()
        return answer


class Deleting(Cache):
    """The contrast: fill sets, invalidate deletes, nobody compares versions."""

    async def _fill(self, entries: Mapping[Any, Any], token: str) -> None:  # noqa: ARG002 - overrides
        for ref, entry in entries.items():
            fields: dict[Any, Any] = {"v": entry.version, "d": entry.data, "f": 4_102_444_800_000}
            await self._redis.call(self._redis.raw.hset(entry_keys(ref)[0], mapping=fields))

    async def _take_leases(self, refs: Sequence[Any], token: str) -> list[Any]:  # noqa: ARG002 - overrides
        return list(refs)

    async def invalidate(self, entity: str, entity_id: str, version: int) -> None:  # noqa: ARG002 - overrides
        await self._redis.call(self._redis.raw.delete(entry_keys((entity, entity_id))[0]))


ARMS: dict[str, type[Cache]] = {"guarded": Cache, "deleting": Deleting}
