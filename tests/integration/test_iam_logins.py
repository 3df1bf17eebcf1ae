"""IAM logins and rotated secrets against real servers: the credentials come from a Pod Identity agent of our own on loopback.

PostgreSQL and Redis hold the token that is due at a fixed moment as the user's password; so a login works only if it is exact.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaProducer
from pydantic import SecretStr

import service.foundation.db
import service.foundation.redis
from service.errors import DependencyUnavailable
from service.foundation.db import Database, login
from service.foundation.iam import PodIdentity
from service.foundation.kafka import make_producer
from service.foundation.redis import RedisAway, RedisClient
from service.settings import AwsSettings, Settings

_WORD = "proof-of-the-pod"


class Agent:
    """Answers as the EKS Pod Identity agent does: keys for who shows the word in the mounted file."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        self.fetches, self.away, self.key, self.word = 0, False, "AKID1", _WORD

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = (await reader.readuntil(b"\r\n\r\n")).decode()
        good = f"authorization: {self.word}".lower() in asked.lower() and not self.away
        self.fetches += good
        end = f"{self.now + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
        keys = {"AccessKeyId": self.key, "SecretAccessKey": "secret", "Token": "session", "Expiration": end}
        body = json.dumps(keys if good else {}).encode()
        writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (200 if good else 503, len(body), body))
        await writer.drain()
        writer.close()


@pytest_asyncio.fixture
async def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Agent]:
    """The agent, and every client's identity bound to it and to its clock."""
    made, file = Agent(), tmp_path / "token"
    file.write_text(_WORD + "\n")
    server = await asyncio.start_server(made.answer, "127.0.0.1", 0)
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/credentials")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(file))
    for module in (service.foundation.db, service.foundation.redis):
        monkeypatch.setattr(module, "PodIdentity", lambda: PodIdentity(AwsSettings(), now=lambda: made.now))
    yield made
    server.close()


async def test_credentials_are_fetched_again_before_they_end_and_serve_on_while_the_agent_is_away(agent: Agent) -> None:
    identity = PodIdentity(AwsSettings(), now=lambda: agent.now)
    for _ in range(3):
        await identity.kafka_token()
    assert agent.fetches == 1
    agent.now += timedelta(minutes=54)
    assert "AKID1" in await identity.cache_token("orders", "api")
    agent.now += timedelta(minutes=2)  # four minutes left
    agent.away, agent.key = True, "AKID2"
    assert "AKID1" in await identity.cache_token("orders", "api")
    agent.away = False
    assert "AKID2" in await identity.cache_token("orders", "api")
    agent.away = True
    agent.now += timedelta(hours=2)
    with pytest.raises(ConnectionError, match="Pod Identity agent"):
        await identity.cache_token("orders", "api")


async def test_a_rotated_word_in_the_mounted_file_is_used(agent: Agent, tmp_path: Path) -> None:
    identity = PodIdentity(AwsSettings(), now=lambda: agent.now)
    agent.word = "the-next-word"
    with pytest.raises(ConnectionError):
        await identity.kafka_token()
    (tmp_path / "token").write_text("the-next-word")
    assert await identity.kafka_token()


@pytest_asyncio.fixture
async def guarded_role(db: Database) -> AsyncIterator[str]:
    """A PostgreSQL role that must show a password, unlike the others of this server."""
    name = "orders_iam"
    async with db.connection() as connection:
        hba = Path(await connection.fetchval("SHOW hba_file"))
        before = await asyncio.to_thread(hba.read_text)
        await asyncio.to_thread(hba.write_text, f"host all {name} 127.0.0.1/32 password\n{before}")
        # The postmaster reads the file before it answers the next connection attempt of anybody.
        await connection.execute(f"CREATE ROLE {name} LOGIN; SELECT pg_reload_conf()")
    yield name
    await asyncio.to_thread(hba.write_text, before)
    async with db.connection() as connection:
        await connection.execute(f"DROP ROLE {name}; SELECT pg_reload_conf()")


def _as(settings: Settings, user: str, password: str = "") -> SecretStr:
    place = urlsplit(settings.db.url.get_secret_value())
    return SecretStr(place._replace(netloc=f"{user}{password and ':' + password}@{place.hostname}:{place.port}").geturl())


async def _user_then_cut(pool: Database, db: Database) -> str:
    """Who the pool's only connection is; then the server ends it, so that the next use opens another one."""
    async with pool.connection() as connection:
        user: str = await connection.fetchval("SELECT current_user")
        async with db.connection() as other:
            await other.execute(f"SELECT pg_terminate_backend({connection.get_server_pid()}, 10000)")
        ended = asyncio.Event()
        connection.add_termination_listener(lambda _: ended.set())
        if not connection.is_closed():
            await asyncio.wait_for(ended.wait(), 20)
    return user


async def test_every_connection_to_postgresql_brings_a_token_of_its_own(agent: Agent, settings: Settings, db: Database, guarded_role: str) -> None:
    mine = settings.db.model_copy(update={"auth": "iam", "iam_user": guarded_role, "ssl": "disable", "pool_size": 1})
    port = urlsplit(mine.url.get_secret_value()).port or 0

    async def expect_the_token_of(moment: datetime) -> None:
        token = await PodIdentity(AwsSettings(), now=lambda: moment).database_token("127.0.0.1", port, guarded_role)
        async with db.connection() as connection:
            await connection.execute(f"ALTER ROLE {guarded_role} PASSWORD '{token}'")

    pool = Database(mine, application="iam")
    await expect_the_token_of(agent.now)
    await pool.open()
    assert await _user_then_cut(pool, db) == guarded_role
    agent.now += timedelta(minutes=20)
    with pytest.raises(DependencyUnavailable):
        await _user_then_cut(pool, db)  # the server still takes the old token: nobody sends it any more
    await expect_the_token_of(agent.now)
    assert await _user_then_cut(pool, db) == guarded_role
    await pool.close()


async def test_redis_takes_a_token_on_both_of_its_connections(agent: Agent, settings: Settings) -> None:
    token = await PodIdentity(AwsSettings(), now=lambda: agent.now).cache_token("orders", "orders-api")
    admin = RedisClient(settings.redis)
    await admin.raw.execute_command("ACL", "SETUSER", "orders-api", "on", f">{token}", "~*", "+@all")
    mine = settings.redis.model_copy(update={"auth": "iam", "iam_user": "orders-api", "iam_cache": "orders"})
    client = RedisClient(mine)
    assert await client.raw.acl_whoami() in {b"orders-api", "orders-api"}
    assert await client.pipeline([("ACL", "WHOAMI")]) == [b"orders-api"]
    await client.close()
    agent.now += timedelta(minutes=1)
    late = RedisClient(mine)
    with pytest.raises(RedisAway):
        await late.pipeline([("ACL", "WHOAMI")])  # another moment, another token: the server does not know it
    await late.close()
    await admin.raw.execute_command("ACL", "DELUSER", "orders-api")
    await admin.close()


async def test_kafka_is_asked_with_tls_and_oauthbearer(agent: Agent, settings: Settings) -> None:
    producer = make_producer(settings.kafka.model_copy(update={"auth": "iam"}), client_id="iam")
    assert isinstance(producer, AIOKafkaProducer)
    provider: Any = producer.client._sasl_oauth_token_provider
    assert (producer.client._security_protocol, producer.client._sasl_mechanism) == ("SASL_SSL", "OAUTHBEARER")
    provider._identity = PodIdentity(AwsSettings(), now=lambda: agent.now)
    assert len(await provider.token()) > 300


async def test_a_rotated_secret_is_used_by_the_next_connection_without_a_restart(
    settings: Settings, db: Database, guarded_role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APP_SECRETS_DIR", str(tmp_path))
    monkeypatch.delenv("DATABASE_URL")
    file = tmp_path / "DATABASE_URL"

    async def rotate(word: str) -> None:
        async with db.connection() as connection:
            await connection.execute(f"ALTER ROLE {guarded_role} PASSWORD '{word}'")
        file.write_text(_as(settings, guarded_role, word).get_secret_value() + "\n")

    await rotate("first")
    pool = Database(settings.db.model_copy(update={"url": SecretStr(file.read_text().strip()), "pool_size": 1}), application="rotation")
    await pool.open()
    await rotate("second")
    assert await _user_then_cut(pool, db) == guarded_role  # what is open stays open
    assert await _user_then_cut(pool, db) == guarded_role  # what is opened brings the new word
    await pool.close()
    monkeypatch.delenv("APP_SECRETS_DIR")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(**login(settings.db.model_copy(update={"url": _as(settings, guarded_role, "first")})))
