"""A hot key expires under 4 processes × 200 callers: how many loads does that cost, and who waits how long?

Arms: ours when the copy is 60 s old (served, one refresh), ours when nothing is cached (one load a process), callers who
all load, callers who poll until whoever holds the lease has filled, and probabilistic early expiry (XFetch; its callers
arrive over the last second before expiry, because a crowd of one moment defeats it).
`python -m tests.proofs.stampede` is one process of it (a `Crowd` as JSON on stdin).
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from uuid import uuid4

from service.foundation.cache import Cache, entry_keys
from service.foundation.redis import RedisClient
from service.settings import Settings, load_settings

ENTITY = "hot"
LOAD_S = 0.1
POOL = 10  # connections a process: what loads beyond it wait for
ARRIVALS_S = 1.0
PROCESSES, CALLERS = 4, 200
_BODY = b'{"version":1}'
_POLL_S = (0.005, 0.02)
_SOFT_AGE_MS = 61_000
_MEMBER_S = 300.0


@dataclass(frozen=True, slots=True)
class Crowd:
    """One process: `callers` read `key` at the same moment, as soon as all processes have come."""

    arm: str
    key: str
    callers: int
    processes: int


@dataclass(frozen=True, slots=True)
class Stampede:
    """What the expiry cost: loads in all, Redis commands a caller, and the slowest wait as a multiple of one load."""

    arm: str
    loads: int
    commands: float
    median_wait: float
    slowest_wait: float


class Caller:
    """The ways to read a hot key."""

    def __init__(self, crowd: Crowd, redis: RedisClient) -> None:
        self.redis, self.key, self.loads = redis, crowd.key, 0
        self.cache = Cache(redis, pool_size=POOL)
        self.connections = asyncio.Semaphore(POOL)
        self.refs = [(ENTITY, crowd.key)]
        self.plain = f"plain:{crowd.key}"
        self.waits: list[float] = []

    async def load(self, ids: Sequence[str]) -> Mapping[str, tuple[int, bytes]]:
        self.loads += 1
        async with self.connections:
            await asyncio.sleep(LOAD_S)
        return dict.fromkeys(ids, (1, _BODY))

    async def ours(self) -> None:
        peeks = self.cache.read_peeks(self.refs, await self.redis.pipeline(self.cache.peek_commands(self.refs)))
        await self.cache.read(ENTITY, [self.key], self.load, peeks=peeks)

    async def unprotected(self) -> None:
        if (await self.redis.pipeline([("GET", self.plain)]))[0] is None:
            await self.load([self.key])
            await self.redis.pipeline([("SET", self.plain, _BODY, "PX", 60_000)])

    async def polling(self) -> None:
        lease = f"{self.plain}:lease"
        while (await self.redis.pipeline([("GET", self.plain)]))[0] is None:
            if (await self.redis.pipeline([("SET", lease, 1, "NX", "PX", 2_500)]))[0] == b"OK":
                await self.load([self.key])
                await self.redis.pipeline([("SET", self.plain, _BODY, "PX", 60_000)])
                return
            await asyncio.sleep(random.uniform(*_POLL_S))

    async def xfetch(self) -> None:
        """Each caller may refresh early, with a probability that grows as expiry comes near (β = 1)."""
        await self.redis.pipeline([("SET", self.plain, repr(time.time() + ARRIVALS_S), "NX")])
        await asyncio.sleep(random.uniform(0, ARRIVALS_S))
        begin = time.monotonic()
        held = (await self.redis.pipeline([("GET", self.plain)]))[0]
        if float(held) - time.time() <= -LOAD_S * math.log(1 - random.random()):
            await self.load([self.key])
            await self.redis.pipeline([("SET", self.plain, repr(time.time() + 60))])
        self.waits.append(time.monotonic() - begin)


def _ways(caller: Caller) -> dict[str, Callable[[], Awaitable[None]]]:
    return {
        "ours, copy 60 s old": caller.ours, "ours, nothing cached": caller.ours, "no protection": caller.unprotected,
        "waiters that poll": caller.polling, "XFetch, arriving over the last second": caller.xfetch,
    }  # fmt: skip


ARMS = tuple(_ways(Caller(Crowd("", "", 0, 0), RedisClient(load_settings().redis))))


async def member(crowd: Crowd) -> dict[str, float | list[float]]:
    """Meet the others, let all callers go, count."""
    redis = RedisClient(load_settings().redis.model_copy(update={"timeout_ms": 30_000}))
    caller = Caller(crowd, redis)
    way, barrier = _ways(caller)[crowd.arm], f"barrier:{crowd.key}"
    await caller.redis.pipeline([("PING",)])  # connected: the crowd arrives at a key, not at a socket
    await redis.raw.rpush(barrier, 1)
    while await redis.raw.llen(barrier) < crowd.processes:  # noqa: ASYNC110 - the others are processes
        await asyncio.sleep(0.001)
    waits = await asyncio.gather(*(_timed(way) for _ in range(crowd.callers)))
    await asyncio.gather(*caller.cache._background.values())  # its refresh belongs to the crowd
    await redis.close()
    return {"loads": caller.loads, "waits": caller.waits or waits}


async def _timed(way: Callable[[], Awaitable[None]]) -> float:
    begin = time.monotonic()
    await way()
    return time.monotonic() - begin


async def run_stampede(settings: Settings, environment: Mapping[str, str], arm: str) -> Stampede:
    """One expiry of one hot key."""
    crowd, redis = Crowd(arm, uuid4().hex, CALLERS, PROCESSES), RedisClient(settings.redis.model_copy(update={"timeout_ms": 30_000}))
    try:
        await _set_scene(redis, crowd)
        before = await _commands(redis)
        answers = await asyncio.gather(*(_spawn(crowd, environment) for _ in range(PROCESSES)))
        commands = await _commands(redis) - before
    finally:
        await redis.close()
    waits = sorted(wait for answer in answers for wait in answer["waits"])
    loads = sum(answer["loads"] for answer in answers)
    return Stampede(arm, loads, round(commands / len(waits), 1), round(waits[len(waits) // 2] / LOAD_S, 1), round(waits[-1] / LOAD_S, 1))


async def _set_scene(redis: RedisClient, crowd: Crowd) -> None:
    if crowd.arm == "ours, copy 60 s old":
        old: dict[str | bytes, bytes | float | int | str] = {"v": 1, "d": _BODY, "f": int(time.time() * 1000) - _SOFT_AGE_MS}
        await redis.raw.hset(entry_keys((ENTITY, crowd.key))[0], mapping=old)


async def _commands(redis: RedisClient) -> int:
    """Commands the callers sent so far; the barrier uses others."""
    stats = await redis.raw.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("hmget", "get", "set", "evalsha"))


async def _spawn(crowd: Crowd, environment: Mapping[str, str]) -> dict[str, list[float] | int]:
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", "tests.proofs.stampede")
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe, env=dict(environment))
    async with asyncio.timeout(_MEMBER_S):
        output, errors = await process.communicate(json.dumps(asdict(crowd)).encode())
    if process.returncode:
        raise RuntimeError(f"a process of the crowd ended with {process.returncode}: {errors.decode()[-2000:]}")
    answer: dict[str, list[float] | int] = json.loads(output)
    return answer


if __name__ == "__main__":
    print(json.dumps(asyncio.run(member(Crowd(**json.load(sys.stdin))))))
