"""From a name to a running process: worker groups, relay, reaper. One explicit table, no scanning."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from service.foundation import failpoints, status, tracing
from service.foundation.cache import Cache
from service.foundation.clock import SystemClock
from service.foundation.db import Database
from service.foundation.grouped import Jobs
from service.foundation.lifecycle import Lifecycle
from service.foundation.redis import RedisAway, RedisClient
from service.payments import HttpProvider
from service.settings import RedisSettings, Settings
from service.web.health import OpsApp, serve_ops
from workers.consumer import Consumer
from workers.gate import DeadLetterBreaker
from workers.handlers import cache, inventory, notifications, payments, timeline
from workers.handling import Context, Handler, Handling
from workers.reaper import Reaper
from workers.relay import Relay
from workers.sink import open_sink
from workers.tiers import SUBSCRIPTIONS, Mover, retry_topics

GROUPS: Final[Mapping[str, Mapping[str, Handler]]] = {
    "inventory": inventory.HANDLERS,
    "payments": payments.HANDLERS,
    "notifications": notifications.HANDLERS,
    "timeline": timeline.HANDLERS,
    "cache": cache.HANDLERS,
}
# What the inbox knows of. Timeline and cache keep none: the one is looked up by its rows, the other is repaired by time.
APPLIED: Final = {name: tuple(handlers) for name, handlers in GROUPS.items() if name not in {"timeline", "cache"}}
# Workers wait for a connection, and for Redis, rather than shed: nobody stands at a counter.
_QUEUE_TIMEOUT_MS: Final = 5_000
_REDIS_TIMEOUT_MS: Final = 1_000
_REPORT_S: Final = 2.0


async def run_workers(settings: Settings, names: Sequence[str]) -> None:
    """Run these groups until a signal; each has its stream consumer and its retry consumer."""
    lifecycle, db = await _begin(settings, "orders-worker")
    redis, provider = RedisClient(patient(settings.redis)), HttpProvider(settings.payments)
    sink = open_sink(settings.worker.notify_url, settings.app.home)
    mover = Mover(settings.kafka, client_id="plumbline-mover")
    consumers = []
    for name in names:
        context = Context(name, db, settings, provider, sink, Cache(redis), Jobs(db, size=settings.worker.group_size))
        breaker = DeadLetterBreaker(name, clock=SystemClock())
        handling = Handling(name, GROUPS[name], context, mover, breaker=breaker)
        consumers.append(Consumer(name, list(SUBSCRIPTIONS[name]), handling, settings, lifecycle))
        retries = Handling(name, GROUPS[name], context, mover, breaker=breaker)
        consumers.append(Consumer(f"{name}.retry", retry_topics(name, settings), retries, settings, lifecycle))
    reporter = Reporter(redis, consumers, lifecycle)
    await _until_stopped(settings, lifecycle, [*(consumer.run for consumer in consumers), reporter.run])
    for close in (mover.close, sink.close, provider.close, redis.close, db.close):
        await close()


def patient(redis: RedisSettings) -> RedisSettings:
    """An answer goes on without Redis after milliseconds; an invalidation given up so soon comes again and again while Redis is slow."""
    return redis.model_copy(update={"timeout_ms": max(redis.timeout_ms, _REDIS_TIMEOUT_MS)})


class Reporter:
    """Tells the overview how this process' groups are; nothing depends on it."""

    def __init__(self, redis: RedisClient, consumers: Sequence[Consumer], lifecycle: Lifecycle) -> None:
        self._redis, self._consumers, self._lifecycle = redis, consumers, lifecycle

    async def run(self) -> None:
        """Report every two seconds until the process stops."""
        while not self._lifecycle.stopping.is_set():
            with contextlib.suppress(RedisAway):
                await status.publish(self._redis, {consumer.name: consumer.condition() for consumer in self._consumers})
            await self._lifecycle.sleep(_REPORT_S)


async def run_relay(settings: Settings) -> None:
    """Run a relay (active or standing by) until a signal."""
    lifecycle, db = await _begin(settings, "orders-relay")
    await _until_stopped(settings, lifecycle, [Relay(settings, db, lifecycle).run])
    await db.close()


async def run_reaper(settings: Settings) -> None:
    """Run the reaper until a signal."""
    lifecycle, db = await _begin(settings, "orders-reaper")
    await _until_stopped(settings, lifecycle, [Reaper(settings, db, lifecycle).run])
    await db.close()


async def _begin(settings: Settings, application: str) -> tuple[Lifecycle, Database]:
    failpoints.arm(settings.app.failpoints)
    lifecycle = Lifecycle()
    lifecycle.install_signals()
    size = settings.db.pool_size if application == "orders-worker" else 2
    db = Database(settings.db.model_copy(update={"pool_size": size}), application=application, queue_timeout_ms=_QUEUE_TIMEOUT_MS)
    await db.open()
    return lifecycle, db


async def _until_stopped(settings: Settings, lifecycle: Lifecycle, loops: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Ops port, loops, signal, end. A loop that dies takes the process with it: a restart is the honest answer."""
    stop_ops = await serve_ops(OpsApp(lifecycle), host=settings.http.ops_host, port=settings.http.ops_port)
    gc.freeze()
    lifecycle.begin()
    try:
        async with asyncio.TaskGroup() as group:
            for loop in loops:
                group.create_task(_run(loop))
    finally:
        await stop_ops()
        tracing.shutdown()


async def _run(loop: Callable[[], Awaitable[None]]) -> None:
    await loop()
