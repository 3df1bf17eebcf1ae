"""Kafka is away or says nothing: the loop still turns (it is live), and it still stops when asked."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from aiokafka.structs import ConsumerRecord

from service.dev.kafka import Broker
from service.events import ORDERS_TOPIC
from service.foundation.kafka import make_producer
from service.foundation.lifecycle import Lifecycle
from service.settings import KafkaSettings, Settings
from tests.integration.broker_world import bring_back, own_broker, take_away
from tests.support.servers import Servers
from workers.consumer import Consumer
from workers.gate import DeadLetterBreaker, Gate

BEAT_MAX_S, STOP_MAX_S, LOOK_S = 8.0, 20.0, 10.0


class Finishing:
    """A handling that finishes everything."""

    def __init__(self) -> None:
        self.group, self.paused = "payments", False
        self.gate, self.breaker = Gate("payments"), DeadLetterBreaker("payments", clock=None)  # type: ignore[arg-type]
        self.finished: asyncio.Queue[ConsumerRecord] = asyncio.Queue()

    def ignores(self, _: ConsumerRecord) -> bool:
        return False

    async def finish(self, record: ConsumerRecord) -> str:
        await self.finished.put(record)
        return "applied"


@pytest.fixture
def kafka(servers: Servers) -> Iterator[tuple[Broker, Settings]]:
    with own_broker(servers) as found:
        yield found


@contextlib.asynccontextmanager
async def running(settings: Settings, kafka: KafkaSettings) -> AsyncIterator[tuple[Finishing, Lifecycle, asyncio.Task[None]]]:
    handling, lifecycle = Finishing(), Lifecycle()
    consumer = Consumer("member-test", [ORDERS_TOPIC], handling, settings.model_copy(update={"kafka": kafka}), lifecycle)  # type: ignore[arg-type]
    task = asyncio.create_task(consumer.run())
    try:
        yield handling, lifecycle, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def stays_live(lifecycle: Lifecycle, task: asyncio.Task[None]) -> None:
    deadline = asyncio.get_running_loop().time() + LOOK_S
    while asyncio.get_running_loop().time() < deadline:
        assert not task.done(), task
        assert lifecycle.oldest_beat_s() < BEAT_MAX_S, "the loop hangs in Kafka"
        await asyncio.sleep(0.1)


async def stops(lifecycle: Lifecycle, task: asyncio.Task[None]) -> None:
    lifecycle.stop()
    await asyncio.wait({task}, timeout=STOP_MAX_S)
    task.print_stack()
    assert task.done(), "it does not stop: where it hangs is printed above"
    task.result()


async def send(kafka: KafkaSettings, *keys: bytes) -> None:
    producer = make_producer(kafka, client_id="test")
    await producer.start()
    for key in keys:
        await producer.send_and_wait(ORDERS_TOPIC, value=b"{}", key=key)
    await producer.stop()


@pytest.mark.alone  # it looks on for ten seconds
@pytest.mark.broker
async def test_a_broker_that_goes_away_neither_stops_the_loop_nor_its_end(kafka: tuple[Broker, Settings]) -> None:
    broker, settings = kafka
    async with running(settings, settings.kafka) as (handling, lifecycle, task):
        await send(settings.kafka, b"one")
        await asyncio.wait_for(handling.finished.get(), 30)
        take_away(broker)  # what is finished cannot be committed now
        await stays_live(lifecycle, task)
        bring_back(broker)
        await send(settings.kafka, b"two")
        record: Any = None
        while record is None or record.key != b"two":  # the first may come again: its commit may have been lost
            record = await asyncio.wait_for(handling.finished.get(), 60)
        take_away(broker)
        await stops(lifecycle, task)


async def test_a_silent_broker_does_not_keep_a_process_from_stopping(settings: Settings) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with running(settings, KafkaSettings(bootstrap=f"127.0.0.1:{port}")) as (_, lifecycle, task):  # type: ignore[call-arg]
        await asyncio.sleep(0.5)
        await stops(lifecycle, task)
    server.close()
