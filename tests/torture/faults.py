"""Every kind of fault: how it is made, how long it lasts, how it is healed, and how we know that somebody felt it.

A fault is a coroutine that makes it, keeps it for so many seconds, takes it back, and answers what it was seen to do;
an empty answer means nobody noticed. Faults of one slot exclude each other; faults of different slots overlap.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import asyncpg
import redis.asyncio as redis_py
from redis.exceptions import RedisError

from tests.faults import sql
from tests.faults.broker import PRODUCE, MemoryBrokerControl
from tests.faults.control import state_of
from tests.faults.proxy import BLACK_HOLE, HALF_CLOSE, PASS, REFUSE, RESET, Mode, cut_after, delay, sliced
from tests.torture.load import HOT
from tests.torture.rig import BrokerName, Rig

Strike = Callable[[Rig, float, random.Random], Awaitable[str]]
FETCH, OFFSET_COMMIT = 1, 8
_CODES: Final = {6: "not the leader", 7: "timed out", 10: "too large", 19: "not enough replicas"}
# Said twice, the second time of one record alone, "too large" makes a dead letter by right: said once, the batch is sent again singly.
REFUSALS: Final = {6: 2, 7: 2, 10: 1, 19: 2}
_DIED_S: Final = 5.0
_SLOW_S: Final = 0.6


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault. `slot`: what it has for itself; `target`: whose fault it is in the eyes of the checker."""

    name: str
    slot: str
    target: str
    seconds: tuple[float, float]
    strike: Strike
    weight: int = 1
    only: BrokerName | None = None


# -- processes


async def _kill(rig: Rig, _: float, choice: random.Random, *, role: str) -> str:
    """kill -9 of one; lasts until another stands in its place."""
    name, pid = choice.choice(sorted(rig.pids(role).items()))
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return f"{name} {pid} replaced" if await rig.replaced(role, name, pid) else ""


async def _stop(rig: Rig, seconds: float, choice: random.Random, *, role: str) -> str:
    """SIGSTOP, and later SIGCONT: a process that hangs and comes back as if nothing had been."""
    name, pid = choice.choice(sorted(rig.pids(role).items()))
    family = [pid, *_children(pid)] if role == "postgres" else [pid]
    for one in family:
        with suppress(ProcessLookupError):
            os.kill(one, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
        return f"{name} {pid} stood still" if state_of(pid) == "T" else ""
    finally:
        for one in family:
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGCONT)


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


async def _roll(rig: Rig, _: float, choice: random.Random) -> str:
    """SIGTERM to every API process, one after the other, and to a worker: each ends in order and is replaced."""
    done = []
    for role, pids in (("api", rig.pids("api")), ("worker", dict([choice.choice(sorted(rig.pids("worker").items()))]))):
        for name, pid in pids.items():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            if await rig.replaced(role, name, pid):
                done.append(name)
    return f"{', '.join(done)} went and came" if done else ""


# -- the wire


async def _wire(rig: Rig, seconds: float, choice: random.Random, *, server: str, mode: Callable[[random.Random], Mode]) -> str:
    proxy, made = rig.proxies[server], mode(choice)
    before = proxy.hits[made.kind]
    await proxy.set_mode(made)
    try:
        await asyncio.sleep(seconds)
    finally:
        await proxy.set_mode(PASS)
    hits = proxy.hits[made.kind] - before
    return f"felt {hits} times" if hits else ""


_MODES: Final[Mapping[str, Callable[[random.Random], Mode]]] = {
    "delay": lambda choice: delay(choice.uniform(0.05, 0.2), jitter_s=0.05),
    "black hole": lambda _: BLACK_HOLE,
    "reset": lambda _: RESET,
    "refuse": lambda _: REFUSE,
    "half-close": lambda _: HALF_CLOSE,
    "slices": lambda choice: sliced(choice.randint(16, 200)),
    "cut": lambda choice: cut_after(choice.randint(20, 400)),
}


# -- PostgreSQL


async def _kill_backend(rig: Rig, _: float, choice: random.Random) -> str:
    """kill -9 of one backend: the server ends all sessions and recovers."""
    url, application = rig.urls["database"], choice.choice(("orders-api", "orders-worker"))
    try:
        pid = await sql.kill_one_backend(url, application)
    except (LookupError, OSError, asyncpg.PostgresError):
        return ""
    return f"backend {pid} of {application} killed" if await _soon(lambda: state_of(pid) == "" and _answers_sql(url)) else ""


async def _cut_sessions(rig: Rig, _: float, choice: random.Random) -> str:
    application = choice.choice(("orders-api", "orders-worker", "orders-relay"))
    try:
        count = await sql.cut_sessions(rig.urls["database"], application)
    except (OSError, asyncpg.PostgresError):
        return ""
    return f"{count} sessions of {application} cut" if count else ""


async def _read_only(rig: Rig, seconds: float, _: random.Random) -> str:
    url = rig.urls["database"]
    async with sql.read_only(url):
        await asyncio.sleep(seconds)
        connection = await asyncpg.connect(url, timeout=5)
        seen = await connection.fetchval("SHOW transaction_read_only")
        connection.terminate()
    return "transactions were read-only" if seen == "on" else ""


async def _hold_lock(rig: Rig, seconds: float, _: random.Random) -> str:
    """The hot products' stock rows, locked by somebody who does not come back for a while."""
    waited = 0
    async with sql.held_lock(rig.urls["database"], "SELECT 1 FROM stock WHERE sku = ANY ($1::text[]) FOR UPDATE", list(set(HOT))):
        watcher = await asyncpg.connect(rig.urls["database"], timeout=5)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            waited += await watcher.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted")
            await asyncio.sleep(0.1)
        watcher.terminate()
    return f"{waited} looks found a waiter" if waited else ""


def _answers_sql(url: str) -> bool:
    host, _, port = url.rpartition("@")[2].partition("/")[0].partition(":")
    return _listens(int(port), host)


# -- Redis


async def _forget(rig: Rig, _: float, __: random.Random) -> str:
    """FLUSHALL and SCRIPT FLUSH."""
    async with redis_py.Redis.from_url(rig.urls["redis"], socket_timeout=2) as client:
        before = await client.dbsize()
        await sql.redis_forget(rig.urls["redis"])
    return f"{before} keys lost" if before else ""


async def _redis_refuses(rig: Rig, seconds: float, _: random.Random, *, how: Callable[[str], Any], word: str) -> str:
    async with how(rig.urls["redis"]), redis_py.Redis.from_url(rig.urls["redis"], socket_timeout=2) as client:
        await asyncio.sleep(seconds)
        try:
            await client.set("torture:probe", "1")
        except RedisError as error:
            return f"a write was refused: {error}" if word in f"{type(error).__name__} {error}" else ""
    return ""


# -- the broker


async def _broker_down(rig: Rig, seconds: float, _: random.Random) -> str:
    port = int(rig.urls["kafka"].rpartition(":")[2])
    await rig.broker.down()
    try:
        await asyncio.sleep(seconds)
        return "" if await asyncio.to_thread(_metadata, port) else "no metadata was answered"
    finally:
        await rig.broker.heal()


async def _broker_slow(rig: Rig, seconds: float, _: random.Random) -> str:
    port = int(rig.urls["kafka"].rpartition(":")[2])
    await rig.broker.slow(400)
    try:
        await asyncio.sleep(seconds)
        begin = time.monotonic()
        answered = await asyncio.to_thread(_metadata, port)
        taken = time.monotonic() - begin
        return f"metadata took {taken:.2f} s" if answered and taken >= 0.4 else ""
    finally:
        await rig.broker.heal()


async def _broker_errors(rig: Rig, seconds: float, choice: random.Random) -> str:
    """The next requests of each kind are answered with an error: to send (one a leader move), to fetch, to commit an offset."""
    assert isinstance(rig.broker, MemoryBrokerControl)
    code = choice.choice(sorted(_CODES))
    before = dict(rig.kafka_requests)
    await rig.broker.errors(PRODUCE, code, times=REFUSALS[code])
    await rig.broker.errors(FETCH, 6, times=3)
    await rig.broker.errors(OFFSET_COMMIT, 16, times=1)
    try:
        await asyncio.sleep(seconds)
    finally:
        await rig.broker.heal()
    told = {name: rig.kafka_requests[number] - before.get(number, 0) for name, number in (("send", PRODUCE), ("fetch", FETCH))}
    return f"{told['send']} sends ({_CODES[code]}), {told['fetch']} fetches (not the leader)" if all(told.values()) else ""


# -- the provider, the clients


async def _provider_errors(rig: Rig, seconds: float, _: random.Random) -> str:
    """Every call is answered 500; short enough for the retry tiers."""
    await rig.dial(error_rate=1.0)
    try:
        await asyncio.sleep(seconds)
        answer = await rig.http.post(f"{rig.urls['psp']}/void", json={"key": "probe", "order_id": "probe"}, timeout=5)
        return "a call was answered 500" if answer.status_code == 500 else ""
    finally:
        await rig.dial(error_rate=0.0)


async def _provider_slow(rig: Rig, seconds: float, _: random.Random) -> str:
    await rig.dial(latency_ms=1000 * _SLOW_S)
    try:
        await asyncio.sleep(seconds)
        begin = time.monotonic()
        await rig.http.post(f"{rig.urls['psp']}/void", json={"key": f"probe:{begin}", "order_id": "probe"}, timeout=5)
        taken = time.monotonic() - begin
        return f"a call took {taken:.2f} s" if taken >= _SLOW_S else ""
    finally:
        await rig.dial(latency_ms=0)


async def _skewed(rig: Rig, seconds: float, choice: random.Random) -> str:
    """Tokens of a client whose clock is off by more than is allowed: 401 until it is right again."""
    rig.skew_s = choice.choice((-4_000, 300))
    before = rig.refused_tokens
    try:
        await asyncio.sleep(seconds)
    finally:
        rig.skew_s = 0
    return f"{rig.refused_tokens - before} calls got 401" if rig.refused_tokens > before else ""


# -- the list


def _wire_kinds(server: str) -> list[Kind]:
    return [Kind(f"{server} {name}", f"{server} wire", server, (0.3, 2.0), partial(_wire, server=server, mode=mode)) for name, mode in _MODES.items()]


KINDS: Final = (
    Kind("kill api", "api", "api", (0, 0), partial(_kill, role="api"), 2),
    Kind("kill worker", "worker", "worker", (0, 0), partial(_kill, role="worker"), 2),
    Kind("kill relay", "relay", "relay", (0, 0), partial(_kill, role="relay"), 2),
    Kind("kill postmaster", "postgres", "postgres", (0, 0), partial(_kill, role="postgres"), 2),
    Kind("kill redis", "redis", "redis", (0, 0), partial(_kill, role="redis")),
    Kind("kill broker", "kafka", "kafka", (0, 0), partial(_kill, role="kafka"), only="real"),
    Kind("stop api", "api", "api", (1, 3), partial(_stop, role="api")),
    Kind("stop worker", "worker", "worker", (3.5, 5), partial(_stop, role="worker"), 2),  # past the memory broker's session
    Kind("stop worker for long", "worker", "worker", (6.5, 8), partial(_stop, role="worker"), only="real"),  # past a real one's
    Kind("stop relay", "relay", "relay", (1, 5), partial(_stop, role="relay"), 2),
    Kind("stop relay for long", "relay", "relay", (10.5, 11.5), partial(_stop, role="relay")),  # past its session: a zombie beside the standby
    Kind("stop postgres", "postgres", "postgres", (0.5, 2.5), partial(_stop, role="postgres")),
    Kind("stop redis", "redis", "redis", (0.5, 3), partial(_stop, role="redis")),
    Kind("rolling restart", "api", "api", (0, 0), _roll),
    *_wire_kinds("postgres"),
    *_wire_kinds("redis"),
    *_wire_kinds("kafka"),
    Kind("kill backend", "postgres", "postgres", (0, 0), _kill_backend),
    Kind("cut sessions", "postgres", "postgres", (0, 0), _cut_sessions),
    Kind("read-only database", "postgres", "postgres", (0.5, 2), _read_only),
    Kind("held lock", "postgres", "postgres", (1, 3), _hold_lock),
    Kind("redis forgets", "redis", "redis", (0, 0), _forget, 2),
    Kind("redis full", "redis", "redis", (0.3, 2), partial(_redis_refuses, how=sql.redis_full, word="memory")),
    Kind("redis read-only", "redis", "redis", (0.3, 2), partial(_redis_refuses, how=sql.redis_replica, word="read only")),
    Kind("broker down", "kafka", "kafka", (0.5, 3), _broker_down, 2),
    Kind("broker slow", "kafka", "kafka", (0.5, 2), _broker_slow, only="memory"),
    Kind("broker errors", "kafka", "kafka", (1, 3), _broker_errors, 2, only="memory"),
    Kind("stop provider", "provider", "provider", (0.5, 2), partial(_stop, role="psp")),
    Kind("provider slow", "provider", "provider", (0.5, 3), _provider_slow),
    Kind("provider errors", "provider", "provider", (0.5, 1.2), _provider_errors),
    Kind("skewed tokens", "clients", "clients", (0.3, 1), _skewed),
)


def kinds_for(broker: BrokerName) -> tuple[Kind, ...]:
    """Those that this broker can be put through."""
    return tuple(kind for kind in KINDS if kind.only in {None, broker})


# -- helpers of the probes


def _listens(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


def _metadata(port: int) -> bool:
    """Does the broker itself answer a metadata request within 1.5 s?"""
    request = struct.pack(">hhih9si", 3, 1, 7, 9, b"plumbline", 0)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.5) as connection:
            connection.settimeout(1.5)
            connection.sendall(struct.pack(">i", len(request)) + request)
            return bool(connection.recv(4))
    except OSError:
        return False


async def _soon(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _DIED_S
    while not holds():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.05)
    return True
