"""Cache-aside without stale values: every entry carries its row's version, and Redis compares them.

Writers call `invalidate` after COMMIT; the guaranteed path is the event (`cache` group). Redis away: no cache,
never a wrong answer. Why not delete: docs/adr/0008. Tests: tests/integration/test_cache.py.
"""

from __future__ import annotations

from typing import Final

from service.foundation.redis import RedisClient
from service.foundation.sql import load_text

_PREFIX: Final = "c1"
_FLOOR_MS: Final = 60_000


def entry_keys(entity: str, entity_id: str) -> list[str]:
    """Entry, floor and lease of one object: one hash tag, so they live in one cluster slot."""
    stem = f"{_PREFIX}:{{{entity}:{entity_id}}}"
    return [stem, f"{stem}:floor", f"{stem}:lease"]


class Cache:
    """Versioned entries in Redis."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        self._script = redis.raw.register_script(load_text(__file__, "cache.lua"))

    async def invalidate(self, entity: str, entity_id: str, version: int) -> None:
        """No version below `version` will be served or filled from now on. Raises `RedisAway`."""
        arguments: list[str | int] = ["invalidate", version, _FLOOR_MS]
        await self._redis.call(self._script(keys=entry_keys(entity, entity_id), args=arguments))
