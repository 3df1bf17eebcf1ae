"""What worker processes say about themselves, where the API can see it: one small hash in Redis.

Nothing depends on it: when Redis is away the overview says that it does not know.
"""

from __future__ import annotations

import os
import socket
import time
from typing import Any, Final

import orjson

from service.foundation.redis import RedisClient

_KEY: Final = "status:groups"
_FRESH_S: Final = 10.0
_TTL_S: Final = 60
_MEMBER: Final = f"{socket.gethostname()}-{os.getpid()}"


async def publish(redis: RedisClient, groups: dict[str, dict[str, float]]) -> None:
    """Say how this process' groups are: lag (records), oldest_due_s, paused (0 or 1). Raises `RedisAway`."""
    now = time.time()
    fields = {f"{name}|{_MEMBER}": orjson.dumps(values | {"at": now}) for name, values in groups.items()}
    pipe = redis.raw.pipeline(transaction=False)
    pipe.hset(_KEY, mapping=fields)  # type: ignore[arg-type]  # Mapping is invariant in its key
    pipe.expire(_KEY, _TTL_S)
    await redis.call(pipe.execute())


async def read(redis: RedisClient) -> dict[str, dict[str, Any]]:
    """Group → lag summed, oldest_due_s, paused and members, of what was said in the last 10 s. Raises `RedisAway`."""
    raw: dict[bytes, bytes] = await redis.call(redis.raw.hgetall(_KEY))  # type: ignore[arg-type]  # redis-py types sync and async as one
    found: dict[str, dict[str, Any]] = {}
    for field, data in raw.items():
        said = orjson.loads(data)
        if time.time() - said["at"] > _FRESH_S:
            continue
        group = found.setdefault(field.decode().partition("|")[0], {"lag": 0, "oldest_due_s": 0.0, "paused": 0, "members": 0})
        group["lag"] += said["lag"]
        group["oldest_due_s"] = max(group["oldest_due_s"], said["oldest_due_s"])
        group["paused"] = max(group["paused"], said["paused"])
        group["members"] += 1
    return found
