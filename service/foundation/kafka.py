"""Kafka: how producers and consumers are made, here and nowhere else.

Producer: idempotent, `acks=all`; one sender task a key (concurrent blocked sends may be reordered).
Consumer: auto-commit off, `earliest`, cooperative only in that offsets are ours to commit.
The memory broker (development) needs the two settings of `_memory_quirks`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Iterable
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.abc import AbstractTokenProvider
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import KafkaConnectionError, KafkaError, TopicAlreadyExistsError
from aiokafka.structs import TopicPartition

from service.foundation.iam import PodIdentity
from service.settings import KafkaSettings

__all__ = ["KafkaError", "TopicPartition", "abandon", "apply_topics", "make_admin", "make_consumer", "make_producer"]

_REQUEST_TIMEOUT_MS: Final = 10_000
_STOP_TIMEOUT_S: Final = 3.0
_LEADER_PAUSE_S: Final = 0.3


_send = AIOKafkaConnection.send


def _send_or_break(connection: AIOKafkaConnection, *arguments: Any, **named: Any) -> Any:
    """uvloop says RuntimeError for a transport that was closed a moment ago; aiokafka expects OSError, and its fetch loop died of it."""
    try:
        return _send(connection, *arguments, **named)
    except RuntimeError as error:
        connection.close(reason=CloseReason.CONNECTION_BROKEN)
        raise KafkaConnectionError("the connection was closed meanwhile") from error


AIOKafkaConnection.send = _send_or_break


class _LeaderSyncsLast(RoundRobinPartitionAssignor):  # type: ignore[misc]  # aiokafka is untyped
    """librdkafka's mock cluster counts assignments, not SyncGroup calls: the leader must come last."""

    @classmethod
    def assign(cls, cluster: Any, members: Any) -> Any:
        if len(members) > 1:
            time.sleep(_LEADER_PAUSE_S)  # runs in the leader only, while it has nothing else to do
        return super().assign(cluster, members)


class _MskTokens(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka is untyped
    """Asked at every connection; brokers end a connection when its token's time is over, and it is opened again."""

    def __init__(self) -> None:
        self._identity = PodIdentity()

    async def token(self) -> str:
        return await self._identity.kafka_token()


def _cluster(settings: KafkaSettings) -> dict[str, Any]:
    """Where the brokers are, and as whom we come."""
    place: dict[str, Any] = {"bootstrap_servers": settings.bootstrap, "request_timeout_ms": _REQUEST_TIMEOUT_MS}
    if settings.auth == "iam":
        tls = ssl.create_default_context()
        place |= {"security_protocol": "SASL_SSL", "ssl_context": tls, "sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_provider": _MskTokens()}
    return place


def make_admin(settings: KafkaSettings, *, timeout_ms: int = _REQUEST_TIMEOUT_MS) -> AIOKafkaAdminClient:
    """An administration client, not started."""
    return AIOKafkaAdminClient(**_cluster(settings) | {"request_timeout_ms": timeout_ms})


def _memory_quirks(settings: KafkaSettings) -> dict[str, Any]:
    if settings.broker != "memory":
        return {"session_timeout_ms": settings.session_timeout_ms}
    return {"session_timeout_ms": 3_000, "heartbeat_interval_ms": 1_000, "partition_assignment_strategy": [_LeaderSyncsLast]}


def make_producer(settings: KafkaSettings, *, client_id: str) -> AIOKafkaProducer:
    """An idempotent producer, not started. Give every send your own deadline: its batches never expire."""
    return AIOKafkaProducer(
        **_cluster(settings),
        client_id=client_id,
        acks="all",
        enable_idempotence=True,
        linger_ms=0,  # a turn of the relay is enqueued without a wait in between, so it goes together anyway
        max_batch_size=131_072,
        max_request_size=1_048_576,
        retry_backoff_ms=100,
    )


def make_consumer(settings: KafkaSettings, *, group: str, client_id: str) -> AIOKafkaConsumer:
    """A group consumer, not started and not subscribed; offsets are committed by the caller only."""
    return AIOKafkaConsumer(
        **_cluster(settings),
        group_id=group,
        client_id=client_id,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=200,
        max_poll_interval_ms=60_000,
        retry_backoff_ms=100,
        metadata_max_age_ms=10_000,
        **_memory_quirks(settings),
    )


async def abandon(producer: AIOKafkaProducer) -> None:
    """Stop a producer that may hang: a cancelled `stop()` leaks its sender task and its client otherwise."""
    with contextlib.suppress(TimeoutError, KafkaError, OSError):
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            await producer.stop()
            return
    sender = getattr(producer, "_sender", None)
    task = getattr(sender, "sender_task", None)
    if task is not None:
        task.cancel()
    with contextlib.suppress(KafkaError, OSError):
        await producer.client.close()


async def apply_topics(settings: KafkaSettings, topics: Iterable[tuple[str, int, dict[str, str]]]) -> list[str]:
    """Create the (name, partitions, configuration) that are missing; answers the created names. Idempotent."""
    admin = make_admin(settings)
    await admin.start()
    try:
        present = set(await admin.list_topics())
        missing = [
            NewTopic(name=name, num_partitions=partitions, replication_factor=settings.replication_factor, topic_configs=config)
            for name, partitions, config in topics
            if name not in present
        ]
        with contextlib.suppress(TopicAlreadyExistsError):
            if missing:
                await admin.create_topics(missing)
        return [topic.name for topic in missing]
    finally:
        await admin.close()
