"""Each broker, SQL and Redis fault is seen by somebody it should hurt, and heals."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
import redis.asyncio as redis_py
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from redis.exceptions import NoScriptError, OutOfMemoryError, ReadOnlyError

from service.dev.kafka import Broker, KafkaBroker, open_broker
from tests.faults import sql
from tests.faults.broker import PRODUCE, MemoryBrokerControl, RealBrokerControl
from tests.support.servers import Servers, free_base_port

_NOT_LEADER = 6


@pytest.fixture(scope="module", params=["memory", "real"])
def broker_under_fault(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with ExitStack() as stack:
        home: Path = tmp_path_factory.mktemp("broker")
        made = open_broker(request.param, home, free_base_port() + 102)
        stack.callback(made.stop)
        made.start()
        yield made


@pytest.fixture
def broker_control(broker_under_fault: Broker) -> MemoryBrokerControl | RealBrokerControl:
    broker = broker_under_fault
    if isinstance(broker, KafkaBroker):
        return RealBrokerControl(lambda: broker.running().pid, broker.bootstrap)
    return MemoryBrokerControl(broker.control_port)


@pytest_asyncio.fixture
async def producer(broker_under_fault: Broker) -> AsyncIterator[AIOKafkaProducer]:
    made = AIOKafkaProducer(bootstrap_servers=broker_under_fault.bootstrap, request_timeout_ms=2_000, retry_backoff_ms=50)
    await made.start()
    for topic in ("usual", "refused"):
        await _create(broker_under_fault, topic)
        await asyncio.wait_for(made.send_and_wait(topic, b"warm"), 30)
    yield made
    await made.stop()


async def _create(broker: Broker, topic: str) -> None:
    if isinstance(broker, KafkaBroker):
        from aiokafka.admin import AIOKafkaAdminClient, NewTopic  # noqa: PLC0415 - only where a real broker runs

        admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
        await admin.start()
        if topic not in await admin.list_topics():
            await admin.create_topics([NewTopic(topic, 1, 1)])
        await admin.close()


async def test_a_broker_that_is_down_takes_nothing_and_comes_back(
    producer: AIOKafkaProducer, broker_control: MemoryBrokerControl | RealBrokerControl
) -> None:
    await broker_control.down()
    sending = asyncio.ensure_future(producer.send_and_wait("usual", b"waits"))
    done, _ = await asyncio.wait({sending}, timeout=0.5)
    assert not done or sending.exception() is not None
    await broker_control.heal()
    await asyncio.gather(sending, return_exceptions=True)
    await asyncio.wait_for(_until_taken(producer), 30)


async def test_a_refused_record_is_refused_and_others_are_taken(
    producer: AIOKafkaProducer, broker_control: MemoryBrokerControl | RealBrokerControl
) -> None:
    await broker_control.refuse("refused")
    try:
        with pytest.raises(MessageSizeTooLargeError):
            await asyncio.wait_for(producer.send_and_wait("refused", b"x" * 500), 30)
        await asyncio.wait_for(producer.send_and_wait("usual", b"x" * 500), 30)
    finally:
        await broker_control.heal()
    await asyncio.wait_for(producer.send_and_wait("refused", b"x" * 500), 30)


async def test_slow_and_lying_is_for_the_memory_broker(producer: AIOKafkaProducer, broker_control: MemoryBrokerControl | RealBrokerControl) -> None:
    if isinstance(broker_control, RealBrokerControl):
        with pytest.raises(NotImplementedError, match="proxy"):
            await broker_control.slow(100)
        with pytest.raises(NotImplementedError, match="--kafka memory"):
            await broker_control.errors(PRODUCE, _NOT_LEADER, times=1)
        return
    await broker_control.slow(300)
    begin = time.monotonic()
    await producer.send_and_wait("usual", b"slow")
    assert time.monotonic() - begin >= 0.25
    await broker_control.heal()
    await broker_control.errors(PRODUCE, -195, times=1)  # closes the connection once: the producer tries again
    await asyncio.wait_for(_until_taken(producer), 30)
    await broker_control.heal()


async def _until_taken(producer: AIOKafkaProducer) -> None:
    while True:
        try:
            await producer.send_and_wait("usual", b"again")
        except KafkaError:
            await asyncio.sleep(0.05)
        else:
            return


@pytest_asyncio.fixture
async def session(servers: Servers) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(servers.postgres.url, server_settings={"application_name": "victim"})
    yield connection
    connection.terminate()


async def test_read_only_refuses_writes_of_open_sessions(servers: Servers, session: asyncpg.Connection[asyncpg.Record]) -> None:
    await session.execute("CREATE TEMP TABLE scratch (n int)")
    async with sql.read_only(servers.postgres.url):
        await _until_default_is(session, "on")
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await session.execute("CREATE TABLE refused (n int)")
    await _until_default_is(session, "off")


async def _until_default_is(session: asyncpg.Connection[asyncpg.Record], wanted: str) -> None:
    """A reload reaches open sessions a moment later."""
    async with asyncio.timeout(10):
        while await session.fetchval("SHOW default_transaction_read_only") != wanted:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.02)


async def test_a_held_lock_makes_others_wait(servers: Servers, session: asyncpg.Connection[asyncpg.Record]) -> None:
    await session.execute("SET lock_timeout = '200ms'")
    select = "SELECT pg_advisory_xact_lock(4711)"
    async with sql.held_lock(servers.postgres.url, select):
        with pytest.raises(asyncpg.LockNotAvailableError):
            await session.execute(select)
    await session.execute(select)


async def test_cut_sessions_end_with_57p01(servers: Servers, session: asyncpg.Connection[asyncpg.Record]) -> None:
    assert await sql.cut_sessions(servers.postgres.url, "victim") == 1
    with pytest.raises((asyncpg.AdminShutdownError, asyncpg.ConnectionDoesNotExistError, asyncpg.InterfaceError)):
        await session.fetchval("SELECT 1")


async def test_redis_full_readonly_and_forgetful(servers: Servers) -> None:
    url = servers.redis.url
    client = redis_py.Redis.from_url(url)
    digest = await client.script_load("return 1")
    assert await client.evalsha(digest, 0) == 1
    async with sql.redis_full(url):
        with pytest.raises(OutOfMemoryError):
            await client.set("k", "v")
    async with sql.redis_replica(url):
        with pytest.raises(ReadOnlyError):
            await client.set("k", "v")
    await client.set("k", "v")
    await sql.redis_forget(url)
    assert await client.get("k") is None
    with pytest.raises(NoScriptError):
        await client.evalsha(digest, 0)
    await client.aclose()
