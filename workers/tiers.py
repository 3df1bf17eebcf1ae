"""Retry topics and dead-letter topics: their names, their creation, and moving a record there.

A move is acknowledged by Kafka before the source offset may be committed; if it fails, the record stays where
it is and is delivered again. Key and `ce_*` headers are kept; `x-*` headers say what happened so far.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord
from opentelemetry.trace import SpanKind

from service.events import PARTITIONS, RETRY_PARTITIONS, SUBSCRIPTIONS, dead_letter_topic, retry_topic
from service.foundation import tracing
from service.foundation.kafka import abandon, apply_topics, make_producer
from service.settings import KafkaSettings, Settings
from workers.envelope import Origin, attempt_of, header_map, origin_of

__all__ = ["SUBSCRIPTIONS", "Mover", "all_topics", "create_topics", "dead_letter_topic", "describe", "retry_topic", "retry_topics", "tiers_of"]

# Groups whose failing records go through the delay tiers before they are dead.
TIERED: Final = frozenset({"inventory", "payments", "notifications"})
_MAX_MESSAGE: Final = 1_024
_WEEK_MS: Final = str(7 * 86_400_000)


def tiers_of(group: str, settings: Settings) -> tuple[float, ...]:
    """Delays of the group's tiers in seconds; empty for groups without tiers."""
    return settings.worker.tiers_s if group in TIERED else ()


def retry_topics(group: str, settings: Settings) -> list[str]:
    """All retry topics of a group. Without tiers there is still tier 1: replays arrive there."""
    count = max(1, len(tiers_of(group, settings)))
    return [retry_topic(topic, group, number) for topic in SUBSCRIPTIONS[group] for number in range(1, count + 1)]


def all_topics(settings: Settings) -> Iterator[tuple[str, int, dict[str, str]]]:
    """(name, partitions, configuration) of every topic."""
    for name, partitions in PARTITIONS.items():
        yield name, partitions, {"retention.ms": _WEEK_MS}
    for group, topics in SUBSCRIPTIONS.items():
        for name in (*retry_topics(group, settings), *(dead_letter_topic(topic, group) for topic in topics)):
            yield name, RETRY_PARTITIONS, {"retention.ms": _WEEK_MS}


async def create_topics(settings: Settings) -> list[str]:
    """Create what is missing; answers the created names. The memory broker makes topics on first use."""
    if settings.kafka.broker == "memory":
        return []
    return await apply_topics(settings.kafka, all_topics(settings))


class Mover:
    """Sends records to retry and dead-letter topics and waits for the acknowledgement."""

    def __init__(self, settings: KafkaSettings, *, client_id: str, make: Callable[..., AIOKafkaProducer] = make_producer) -> None:
        self._settings = settings
        self._client_id = client_id
        self._make = make
        self._producer: AIOKafkaProducer | None = None
        self._lock = asyncio.Lock()

    async def move(self, record: ConsumerRecord, topic: str, *, reason: str, error: BaseException, not_before_ms: int = 0) -> None:
        """Republish the record; returns when Kafka has it. Raises `KafkaError` or `TimeoutError`: nothing may be committed."""
        headers = _moved_headers(record, reason=reason, error=error, not_before_ms=not_before_ms)
        producer = await self._started()
        attributes = {"messaging.system": "kafka", "messaging.operation.type": "send", "messaging.destination.name": topic}
        try:
            with tracing.span(f"send {topic}", SpanKind.PRODUCER, attributes=attributes):
                if (own := tracing.traceparent()) is not None:
                    headers["traceparent"] = own.encode()
                async with asyncio.timeout(self._settings.send_deadline_ms / 1000):
                    await producer.send_and_wait(topic, value=record.value, key=record.key, headers=list(headers.items()))
        except (KafkaError, TimeoutError) as failure:
            await self._abandon(producer)
            if isinstance(failure, TimeoutError) and not isinstance(failure, KafkaError):
                raise KafkaError("no acknowledgement within the deadline") from failure
            raise

    async def close(self) -> None:
        """Stop the producer, bounded."""
        if self._producer is not None:
            await self._abandon(self._producer)

    async def _started(self) -> AIOKafkaProducer:
        async with self._lock:
            if self._producer is None:
                producer = self._make(self._settings, client_id=self._client_id)
                try:
                    await producer.start()
                except BaseException:
                    await abandon(producer)
                    raise
                self._producer = producer
            return self._producer

    async def _abandon(self, producer: AIOKafkaProducer) -> None:
        if self._producer is producer:
            self._producer = None
            await abandon(producer)


def _moved_headers(record: ConsumerRecord, *, reason: str, error: BaseException, not_before_ms: int) -> dict[str, bytes]:
    origin: Origin = origin_of(record)
    headers = header_map(record.headers)
    headers |= {
        "x-attempt": str(attempt_of(record) + 1).encode(),
        "x-not-before-ms": str(not_before_ms).encode(),
        "x-first-failure-ms": headers.get("x-first-failure-ms", str(int(time.time() * 1000)).encode()),
        "x-reason": reason.encode(),
        "x-origin-topic": origin.topic.encode(),
        "x-origin-partition": str(origin.partition).encode(),
        "x-origin-offset": str(origin.offset).encode(),
        "x-error-class": type(error).__name__.encode(),
        "x-error-message": describe(error).encode(),
    }
    return headers | first_attempt(headers)


def first_attempt(headers: Mapping[str, bytes]) -> dict[str, bytes]:
    """The header that names the first attempt at this record: the one that was said before, or where this task stands."""
    first = headers.get("x-first-traceparent") or (tracing.traceparent() or "").encode() or headers.get("traceparent")
    return {"x-first-traceparent": first} if first else {}


def describe(error: BaseException) -> str:
    """What the error says, ≤ 1 KiB, without U+0000; driver details may quote rows, so only its message is kept."""
    text = str(error).partition("\nDETAIL")[0].replace("\0", "")
    return text.encode("utf-8", "replace")[:_MAX_MESSAGE].decode("utf-8", "ignore")
