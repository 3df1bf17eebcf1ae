"""Attacks from inside: whatever Redis holds or answers, what we say is what PostgreSQL has, and nobody gets a 5xx."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Any
from uuid import uuid4

import httpx
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

import service.app
from service.dev.issuer import create_issuer, mint
from service.foundation.cache import entry_keys
from service.settings import Settings
from service.web.jwks import KeySet
from tests.integration.facts import Facts
from tests.integration.waiting import persist, until
from tests.support.clients import ApiClient

Poison = tuple[str, ...]
# Each is put under every key a request of that object and principal will look at.
GARBAGE: dict[str, Poison] = {
    "text": ("SET", "{}", "garbage"),
    "empty text": ("SET", "{}", ""),
    "binary": ("SET", "{}", "\x00\xff"),
    "a huge number": ("SET", "{}", "9" * 400),
    "not a number": ("SET", "{}", "nan"),
    "endless": ("SET", "{}", "inf"),
    "infinity": ("SET", "{}", "-inf"),
    "hexadecimal": ("SET", "{}", "0x7fffffffffffffff"),
    "list": ("RPUSH", "{}", "a", "b"),
    "set": ("SADD", "{}", "a"),
    "sorted set": ("ZADD", "{}", "1", "a"),
    "stream": ("XADD", "{}", "*", "a", "b"),
    "hash of other fields": ("HSET", "{}", "a", "b"),
    "hash of the fields, garbled": ("HSET", "{}", "v", "x", "d", "{", "f", "y"),
    "version without data": ("HSET", "{}", "v", "999999999999999999999", "d", "", "f", "0"),
    "data of another version": ("HSET", "{}", "v", "1", "d", '{"version":2,"customer_id":"mallory"}', "f", "9999999999999"),
}


@pytest.fixture
async def raw(settings: Settings) -> AsyncIterator[Redis]:
    """A patient client of the test's own."""
    client = Redis.from_url(settings.redis.url.get_secret_value(), socket_timeout=30)
    yield client
    await client.aclose()


async def honest(anna: ApiClient, order: dict[str, Any], sku: str) -> None:
    """Everything a customer does with this order and product answers what is in PostgreSQL."""
    product = await persist(lambda: anna.get(f"/products/{sku}"))  # a bucket that holds too much refuses once, and is repaired
    assert (product.status_code, product.json()["price_minor"], product.json()["version"]) == (200, 1_000, 1)
    available = await anna.get(f"/products/{sku}/availability")
    assert (available.status_code, available.json()) == (200, {"sku": sku, "available": 1_000_000})
    read = await anna.get(f"/orders/{order['id']}")
    assert (read.status_code, read.json()) == (200, order)
    placed = await anna.place((sku, 1))
    assert (placed.status_code, placed.json()["total_minor"]) == (201, 1_000)


@pytest.mark.parametrize("name", GARBAGE)
async def test_garbage_under_any_key_is_never_believed(raw: Redis, login: Any, facts: Facts, name: str) -> None:
    command = GARBAGE[name]
    sku, subject = await facts.add_product(), f"garbage-{uuid4()}"
    anna, tag = login(subject), hashlib.sha256(subject.encode()).hexdigest()[:16]
    placed = await anna.place((sku, 1))
    assert placed.status_code == 201
    order = placed.json()
    await honest(anna, order, sku)
    keys = [key async for key in raw.scan_iter(f"rl:{{{tag}}}:*", count=1_000)]
    keys += [*entry_keys(("product", sku)), *entry_keys(("order", order["id"]))]
    keys += [key async for key in raw.scan_iter(f"*availability:{sku}*", count=1_000)]
    assert len(keys) > 6
    for key in keys:
        await raw.delete(key)
        await raw.execute_command(*(part.replace("{}", key.decode() if isinstance(key, bytes) else key) for part in command))
    await honest(anna, order, sku)

    async def counts_again() -> bool:
        return "degraded" not in (await anna.get(f"/products/{sku}")).headers["ratelimit"]

    await until(counts_again, "the bucket is repaired: nobody stays without a shared limit")


REPLIES: dict[str, bytes] = {
    "loading": b"-LOADING Redis is loading the dataset in memory\r\n",
    "out of memory": b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
    "read only": b"-READONLY You can't write against a read only replica.\r\n",
    "no script, for ever": b"-NOSCRIPT No matching script. Please use EVAL.\r\n",
    "wrong type": b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
    "moved": b"-MOVED 3999 127.0.0.1:1\r\n",
    "not allowed": b"-NOPERM this user has no permissions\r\n",
    "OK to everything": b"+OK\r\n",
    "nothing": b"$-1\r\n",
    "an empty array": b"*0\r\n",
    "numbers": b":-9223372036854775808\r\n",
    "numbers in an array": b"*5\r\n:1\r\n:-5\r\n:-1\r\n:99999999999\r\n:-7\r\n",
    "an array of text": b"*2\r\n$1\r\na\r\n$1\r\nb\r\n",
    "not the protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "a length without end": b"$99999999999999999999\r\n",
    "half a reply": b"$10\r\nabc",
    "hangs up": b"",
}


@contextlib.asynccontextmanager
async def fake_redis(reply: bytes) -> AsyncIterator[int]:
    """A server that greets like Redis and then says `reply` to every command; empty: hangs up. Its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while head := await reader.readline():
                words = []
                for _ in range(int(head[1:])):
                    size = int((await reader.readline())[1:])
                    words.append((await reader.readexactly(size + 2))[:-2].upper())
                greeting = words[0] in (b"SELECT", b"AUTH", b"CLIENT", b"HELLO")
                if not greeting and not reply:
                    break
                writer.write(b"+OK\r\n" if greeting else reply)
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.mark.parametrize("name", REPLIES)
async def test_whatever_redis_answers_sales_and_reads_go_on(settings: Settings, facts: Facts, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    issuer = httpx.AsyncClient(transport=httpx.ASGITransport(create_issuer(settings)))
    monkeypatch.setattr(service.app, "KeySet", partial(KeySet, client=issuer))
    sku = await facts.add_product()
    async with fake_redis(REPLIES[name]) as port:
        elsewhere = settings.redis.model_copy(update={"url": SecretStr(f"redis://127.0.0.1:{port}/0")})
        made = service.app.create_app(settings.model_copy(update={"redis": elsewhere}))
        async with made.router.lifespan_context(made), httpx.AsyncClient(transport=httpx.ASGITransport(made), base_url="http://testserver") as http:
            await made.state.resources.keys.load()
            anna = ApiClient(http, mint(settings.app.home, sub=f"odd-{uuid4()}", role="customer"))
            order = (await anna.place((sku, 1))).json()
            await honest(anna, order, sku)
            assert (await anna.cancel(order)).json()["status"] == "cancelled"
            assert (await anna.get(f"/orders/{order['id']}")).json()["status"] == "cancelled"
