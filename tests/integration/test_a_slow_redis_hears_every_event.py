"""A worker has time: a Redis that takes longer than an API process may wait is told of every event, and the cache group never pauses.

Found by the torture: on a machine with no time, the group gave up on Redis again and again until nothing stale could go (C1, C4).
"""

from __future__ import annotations

import uuid

from service.foundation.cache import Cache
from service.foundation.redis import RedisClient
from service.settings import Settings
from tests.faults.proxy import FaultProxy, delay
from tests.support.servers import free_base_port
from workers.main import patient


async def test_a_redis_slower_than_an_answer_may_wait_is_told(settings: Settings) -> None:
    host, _, port = settings.redis.url.get_secret_value().rpartition("/")[0].rpartition("//")[2].rpartition(":")
    base = free_base_port()
    proxy = FaultProxy(base + 106, int(port), seed=1)
    await proxy.start()
    through = settings.redis.model_copy(update={"url": type(settings.redis.url)(f"redis://{host.rpartition('@')[2]}:{base + 106}/0")})
    await proxy.set_mode(delay(0.12))
    client = RedisClient(patient(through))
    try:
        for version in range(1, 6):
            await Cache(client).invalidate("order", f"slow-{uuid.uuid4().hex}", version)
        assert not client.away
    finally:
        await client.close()
        await proxy.stop()


def test_whoever_gives_redis_more_time_keeps_it(settings: Settings) -> None:
    assert patient(settings.redis.model_copy(update={"timeout_ms": 30_000})).timeout_ms == 30_000
