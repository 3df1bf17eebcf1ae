"""Sends outbox rows to Kafka, in order for each aggregate, and says what became of each.

A row or partition that fails holds back its own aggregates only: what was acknowledged is reported, and after any
failure the producer is abandoned, because nobody knows what an idempotent producer with a gap still accepts.
Kafka refuses whole batches for size, so refused rows are sent again one by one to find the culprit.
Tests: tests/unit/test_publisher.py, tests/integration/test_relay.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from asyncpg import Record
from opentelemetry.trace import SpanKind

from service.events import ce_headers
from service.foundation import metrics, tracing
from service.foundation.kafka import abandon, make_producer
from service.foundation.log import get_logger
from service.settings import KafkaSettings

log = get_logger(__name__)

# After a partial failure: how long its aggregates are left alone, and how long the next batches wait at most.
_POSTPONE_S: Final = 5.0
_TROUBLED_S: Final = 60.0
_TROUBLED_DEADLINE_S: Final = 2.0


@dataclass(slots=True)
class Sent:
    """What became of one batch: acknowledged rows, rows Kafka will never take, and rows that may be tried again."""

    acknowledged: list[Record] = field(default_factory=list)
    refused: list[Record] = field(default_factory=list)
    failed: list[Record] = field(default_factory=list)


class Publisher:
    """One producer at a time."""

    def __init__(self, settings: KafkaSettings, *, make: Callable[..., AIOKafkaProducer] = make_producer) -> None:
        self._settings = settings
        self._make = make
        self._producer: AIOKafkaProducer | None = None
        self._postponed: dict[str, float] = {}
        self._troubled_until = 0.0

    def postponed(self) -> set[str]:
        """Aggregates whose partition failed a moment ago: leave them alone, the others go on."""
        now = time.monotonic()
        self._postponed = {name: until for name, until in self._postponed.items() if until > now}
        return set(self._postponed)

    async def send(self, rows: Sequence[Record]) -> Sent:
        """Send in order. Raises `KafkaError` or `TimeoutError` when Kafka took nothing at all."""
        sent, oversized = await self._send_together(rows)
        if oversized:
            await self._send_singly(oversized, sent)
        if sent.failed:
            if not (sent.acknowledged or sent.refused):
                raise KafkaError("Kafka acknowledged nothing")
            self._postpone(sent.failed)
        return sent

    async def stop(self) -> None:
        """Let go of the producer, bounded."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await abandon(producer)

    async def _send_together(self, rows: Sequence[Record]) -> tuple[Sent, list[Record]]:
        deadline = asyncio.get_running_loop().time() + self._deadline_s()
        futures: list[tuple[Record, asyncio.Future[Any] | None]] = []
        overtaken: set[str] = set()
        try:
            async with asyncio.timeout_at(deadline):
                producer = await self._started()
                for row in rows:
                    future = None if row["aggregate_id"] in overtaken else await self._enqueue(producer, row)
                    if future is not None and future.done() and future.exception() is not None:
                        overtaken.add(row["aggregate_id"])  # refused here: what follows it must not arrive first
                    futures.append((row, future))
        except TimeoutError:
            futures += [(row, None) for row in rows[len(futures) :]]
        waiting = {future for _, future in futures if future is not None}
        if waiting:
            await asyncio.wait(waiting, timeout=max(0.0, deadline - asyncio.get_running_loop().time()))
        sent, oversized = _sort(futures)
        if sent.failed or oversized:
            await self.stop()
        return sent, oversized

    async def _enqueue(self, producer: AIOKafkaProducer, row: Record) -> asyncio.Future[Any]:
        """The future of the acknowledgement; a row the producer itself refuses is a future that failed."""
        try:
            return await self._send_one(producer, row)
        except (KafkaError, OSError) as error:
            failed = asyncio.get_running_loop().create_future()
            failed.set_exception(error)
            return failed

    async def _send_singly(self, rows: Sequence[Record], sent: Sent) -> None:
        """Each row alone: what Kafka still refuses is the culprit, and what follows it of its aggregate waits."""
        held: set[str] = set()
        for row in rows:
            if row["aggregate_id"] in held:
                continue
            try:
                async with asyncio.timeout(self._deadline_s()):
                    await (await self._send_one(await self._started(), row))
            except MessageSizeTooLargeError:
                sent.refused.append(row)
            except (KafkaError, OSError):
                sent.failed.append(row)
            else:
                sent.acknowledged.append(row)
                continue
            held.add(row["aggregate_id"])
            await self.stop()

    async def _send_one(self, producer: AIOKafkaProducer, row: Record) -> asyncio.Future[Any]:
        headers = ce_headers(
            event_id=row["event_id"], event_type=row["type"], aggregate_id=row["aggregate_id"], version=row["version"], at=row["created_at"]
        ) | dict(row["headers"])
        attributes = {"messaging.system": "kafka", "messaging.destination.name": row["topic"], "messaging.message.id": str(row["event_id"])}
        with tracing.span(f"publish {row['type']}", SpanKind.PRODUCER, parent=tracing.remote(headers.get("traceparent")), attributes=attributes):
            headers["traceparent"] = tracing.traceparent() or headers.get("traceparent", "")
            encoded = [(name, value.encode()) for name, value in headers.items() if value]
            future: asyncio.Future[Any] = await producer.send(row["topic"], value=row["payload"], key=row["key"].encode(), headers=encoded)
        future.add_done_callback(_noted)
        return future

    async def _started(self) -> AIOKafkaProducer:
        if self._producer is None:
            producer = self._make(self._settings, client_id="plumbline-relay")
            try:
                await producer.start()
            except BaseException:
                await abandon(producer)
                raise
            self._producer = producer
        return self._producer

    def _deadline_s(self) -> float:
        asked = self._settings.send_deadline_ms / 1000
        return min(asked, _TROUBLED_DEADLINE_S) if time.monotonic() < self._troubled_until else asked

    def _postpone(self, rows: Sequence[Record]) -> None:
        now = time.monotonic()
        self._postponed |= dict.fromkeys((row["aggregate_id"] for row in rows), now + _POSTPONE_S)
        self._troubled_until = now + _TROUBLED_S
        metrics.caught.labels("publish").inc()
        log.warning("relay.aggregates_postponed", aggregates=len({row["aggregate_id"] for row in rows}), seconds=_POSTPONE_S)


def _noted(future: asyncio.Future[Any]) -> None:
    """An abandoned producer fails futures nobody waits for any more; that is no news."""
    if not future.cancelled():
        future.exception()


def _sort(futures: Sequence[tuple[Record, asyncio.Future[Any] | None]]) -> tuple[Sent, list[Record]]:
    """After an aggregate's first failure its later rows count as not sent: they come again, in order."""
    sent = Sent()
    oversized: list[Record] = []
    held: dict[str, list[Record]] = {}
    for row, future in futures:
        error = future.exception() if future is not None and future.done() and not future.cancelled() else None
        if row["aggregate_id"] in held:
            held[row["aggregate_id"]].append(row)
            continue
        if future is not None and future.done() and not future.cancelled() and error is None:
            sent.acknowledged.append(row)
            continue
        into = oversized if isinstance(error, MessageSizeTooLargeError) else sent.failed
        into.append(row)
        held[row["aggregate_id"]] = into
    return sent, oversized
