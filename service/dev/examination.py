"""What the doctor looks at: each check answers findings, and each finding that is not fine says its cure.

A check never raises for what it examines: what does not answer is a finding. Thresholds are the alerts' own.
Test: `tests/stories/test_the_doctor_finds_what_is_wrong.py`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import urlsplit

import asyncpg
import httpx
from aiokafka.errors import KafkaConnectionError, KafkaError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from service.dev.children import StackError
from service.dev.settings_table import mask
from service.dev.state import read_stack
from service.foundation.db import login
from service.foundation.kafka import make_admin
from service.foundation.redis import RedisClient
from service.revision import REQUIRED_REVISION, current_revision
from service.settings import Settings
from workers.tiers import all_topics

Level = Literal["ok", "note", "wrong"]

_TIMEOUT_S: Final = 3.0
_CLOCK_NOTE_S, _CLOCK_WRONG_S = 1.0, 10.0
_OUTBOX_NOTE_S, _OUTBOX_WRONG_S = 10.0, 60.0
_SHOWN: Final = 3


class Finding(NamedTuple):
    """One line of the report; `cure` is empty when all is well."""

    level: Level
    subject: str
    what: str
    cure: str = ""


Check = Callable[[Settings], Coroutine[Any, Any, list[Finding]]]


def stuck_after_s(settings: Settings) -> float:
    """An order not moved for so long is in no retry tier any more."""
    return 1.2 * sum(settings.worker.tiers_s) + 60.0


async def examine_database(settings: Settings) -> list[Finding]:
    """Reachable, durable, the right schema, one clock; and what its tables say about the work."""
    place, begin = _place(settings.db.url.get_secret_value()), time.monotonic()
    try:
        async with _session(settings) as session:
            answer_ms = (time.monotonic() - begin) * 1000
            version = str(await session.fetchval("SHOW server_version")).split()[0]
            findings = [Finding("ok", "PostgreSQL", f"{version} at {place}, connected in {answer_ms:.0f} ms")]
            findings += await _durability(session)
            findings += await _room(session, settings)
            findings.append(await _clock(session))
            revision = await current_revision(session)
            if revision is None or revision < REQUIRED_REVISION:
                cure = "run `plumbline migrate`"
                return [*findings, Finding("wrong", "schema", f"revision {revision or 'none'}, this code needs {REQUIRED_REVISION}", cure)]
            findings.append(Finding("ok", "schema", f"revision {revision}"))
            return findings + await _work(session, settings)
    except asyncpg.InvalidAuthorizationSpecificationError as error:
        return [Finding("wrong", "PostgreSQL", f"{place} refuses us: {_say(error)}", "see user, password and database in DATABASE_URL")]
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        cure = "start it (`plumbline up` brings one), or let DATABASE_URL point at one that runs; no order can be placed until then"
        return [Finding("wrong", "PostgreSQL", f"{place} cannot be used: {_say(error)}", cure)]


async def examine_redis(settings: Settings) -> list[Finding]:
    """Reachable; without it everything works, with local limits and without a cache."""
    place = _place(settings.redis.url.get_secret_value())
    client = RedisClient(settings.redis.model_copy(update={"timeout_ms": int(_TIMEOUT_S * 1000)}))
    begin = time.monotonic()
    try:
        version = (await client.raw.info("server"))["redis_version"]
    except (RedisError, OSError, TimeoutError) as error:
        cure = "start it, or let REDIS_URL point at one that runs; meanwhile limits are local and reads go to PostgreSQL"
        return [Finding("wrong", "Redis", f"{place} does not answer: {_say(error)}", cure)]
    finally:
        await client.close()
    return [Finding("ok", "Redis", f"{version} at {place}, answered in {(time.monotonic() - begin) * 1000:.0f} ms")]


async def examine_kafka(settings: Settings) -> list[Finding]:
    """Reachable, and every topic is there."""
    place = settings.kafka.bootstrap
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # the finding says it better
    admin = make_admin(settings.kafka, timeout_ms=int(_TIMEOUT_S * 1000))
    try:
        async with asyncio.timeout(_TIMEOUT_S + 1):
            await admin.start()
            present = set(await admin.list_topics())
    except (KafkaError, OSError, TimeoutError) as error:
        cure = "start it, or let KAFKA_BOOTSTRAP point at one that runs; orders are taken meanwhile and wait in the outbox"
        reason = "no broker there" if isinstance(error, KafkaConnectionError) else _say(error)
        return [Finding("wrong", "Kafka", f"{place} does not answer: {reason}", cure)]
    finally:
        await admin.close()
    if settings.kafka.broker == "memory":
        return [Finding("ok", "Kafka", f"in memory at {place}; topics appear on first use")]
    missing = sorted(name for name, _, _ in all_topics(settings) if name not in present)
    found = [Finding("ok", "Kafka", f"at {place}, {len(present)} topics")]
    if missing:
        found.append(Finding("wrong", "topics", f"{len(missing)} missing, such as {missing[0]}", "run `plumbline topics apply`"))
    return found


async def examine_issuer(settings: Settings) -> list[Finding]:
    """The key set can be fetched and holds a key."""
    url = settings.auth.jwks_url
    cure = f"see that {mask(url, secret=False)} serves a JWKS (APP_AUTH_JWKS_URL); running API processes use the keys they have for a day"
    try:
        async with _client(url) as client:
            keys = (await client.get(url)).raise_for_status().json()["keys"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        return [Finding("wrong", "issuer", f"no key set: {_say(error)}", cure)]
    return (
        [Finding("ok", "issuer", f"{len(keys)} key{'s' * (len(keys) > 1)} at {_place(url)}")]
        if keys
        else [Finding("wrong", "issuer", "the key set is empty", cure)]
    )


async def examine_provider(settings: Settings) -> list[Finding]:
    """The payment provider accepts connections; what it answers to a bare GET does not matter."""
    place = _place(settings.payments.url)
    try:
        async with _client(settings.payments.url) as client:
            await client.get(settings.payments.url)
    except httpx.HTTPError as error:
        cure = "see that it runs (APP_PAYMENTS_URL); orders stay reserved meanwhile, the payments group pauses and loses nothing"
        return [Finding("wrong", "provider", f"{place} does not answer: {_say(error)}", cure)]
    return [Finding("ok", "provider", f"answers at {place}")]


async def examine_processes(settings: Settings) -> list[Finding]:
    """Every process of the stack that runs from this folder says that it is ready."""
    try:
        processes = read_stack(settings.app.home)["processes"]
    except StackError:
        return [Finding("note", "processes", f"no stack runs from {settings.app.home}: processes elsewhere are not looked at")]
    async with _client("http:") as client:
        findings = await asyncio.gather(*(_process(client, process, settings) for process in processes if process["ops_url"]))
    ready = [finding.subject for finding in findings if finding.level == "ok"]
    rest = [finding for finding in findings if finding.level != "ok"]
    return ([Finding("ok", "processes", f"ready: {', '.join(ready)}")] if ready else []) + rest


CHECKS: Final[tuple[Check, ...]] = (examine_database, examine_redis, examine_kafka, examine_issuer, examine_provider, examine_processes)


# -- inside the database


@asynccontextmanager
async def _session(settings: Settings) -> AsyncIterator[Any]:
    session = await asyncpg.connect(
        **login(settings.db), timeout=_TIMEOUT_S, command_timeout=_TIMEOUT_S, server_settings={"application_name": "plumbline-doctor"}
    )
    try:
        yield session
    finally:
        session.terminate()


async def _durability(session: Any) -> list[Finding]:
    off = [name for name in ("fsync", "full_page_writes", "synchronous_commit") if await session.fetchval(f"SHOW {name}") == "off"]
    if not off:
        return []
    return [Finding("wrong", "durability", f"{', '.join(off)} is off: a committed order can be lost", "turn it on in the server's configuration")]


async def _room(session: Any, settings: Settings) -> list[Finding]:
    limit, used = int(await session.fetchval("SHOW max_connections")), int(await session.fetchval("SELECT count(*) FROM pg_stat_activity"))
    if settings.db.connection_budget <= limit and used < 0.9 * limit:
        return []
    what = f"{used} of {limit} are open, APP_DB_CONNECTION_BUDGET is {settings.db.connection_budget}"
    return [Finding("note", "connections", what, "raise max_connections, or lower the budget and APP_DB_POOL_SIZE")]


async def _clock(session: Any) -> Finding:
    before, theirs, after = time.time(), float(await session.fetchval("SELECT extract(epoch FROM clock_timestamp())")), time.time()
    apart_s = max(before - theirs, theirs - after, 0.0)
    if apart_s < _CLOCK_NOTE_S:
        return Finding("ok", "clock", "agrees with the database")
    level: Level = "wrong" if apart_s > _CLOCK_WRONG_S else "note"
    return Finding(level, "clock", f"{apart_s:.1f} s from the database's: tokens and retries are early or late", "run NTP on both machines")


async def _work(session: Any, settings: Settings) -> list[Finding]:
    return [await _stuck(session, settings), await _outbox(session), await _relay(session), *await _letters(session)]


async def _stuck(session: Any, settings: Settings) -> Finding:
    limit_s = stuck_after_s(settings)
    rows = await session.fetch(
        "SELECT id, status, count(*) OVER () AS total FROM orders WHERE closed_at IS NULL"
        " AND updated_at < now() - $1 * interval '1 second' ORDER BY updated_at LIMIT $2",
        limit_s, _SHOWN,
    )  # fmt: skip
    if not rows:
        return Finding("ok", "orders", f"none placed or reserved for more than {limit_s:.0f} s")
    some = ", ".join(f"{row['id']} ({row['status']})" for row in rows)
    cure = "`plumbline dlq list` shows those that were given up; if it shows none, look at the workers' lag"
    return Finding("wrong", "orders", f"{rows[0]['total']} placed or reserved for more than {limit_s:.0f} s: {some}", cure)


async def _outbox(session: Any) -> Finding:
    row = await session.fetchrow(
        "SELECT count(*) AS waiting, coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 AS age_s FROM outbox"
    )
    what = f"{row['waiting']} waiting, the oldest for {row['age_s']:.1f} s" if row["waiting"] else "empty: everything is published"
    if row["age_s"] < _OUTBOX_NOTE_S:
        return Finding("ok", "outbox", what)
    level: Level = "wrong" if row["age_s"] > _OUTBOX_WRONG_S else "note"
    return Finding(level, "outbox", what, "see that a relay runs and Kafka answers; `plumbline dlq list --consumer relay` shows what Kafka refuses")


async def _relay(session: Any) -> Finding:
    count = await session.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid IN "
        "(SELECT pid FROM pg_stat_activity WHERE application_name = 'plumbline-relay-lock')")  # fmt: skip
    if count:
        return Finding("ok", "relay", "one is publishing")
    return Finding("wrong", "relay", "none is publishing", "start one: `plumbline relay`; orders are taken meanwhile and wait in the outbox")


async def _letters(session: Any) -> list[Finding]:
    rows = await session.fetch("SELECT consumer, count(*) AS waiting FROM dead_letter WHERE status = 'open' GROUP BY consumer ORDER BY consumer")
    if not rows:
        return [Finding("ok", "dead letters", "none open")]
    what = ", ".join(f"{row['waiting']} of {row['consumer']}" for row in rows)
    return [Finding("wrong", "dead letters", f"open: {what}", "`plumbline dlq list`, cure the cause, then `plumbline dlq replay` or `discard`")]


# -- small things


async def _process(client: httpx.AsyncClient, process: dict[str, Any], settings: Settings) -> Finding:
    name = process["name"]
    try:
        answer = await client.get(f"{process['ops_url']}/health/ready")
        said = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        cure = f"see {settings.app.home}/logs/{name}.log; `plumbline up` restarts what dies"
        return Finding("wrong", "processes", f"{name} (pid {process['pid']}) does not answer: {_say(error)}", cure)
    if answer.status_code != 200:
        return Finding("wrong", "processes", f"{name} is not ready: {', '.join(said.get('reasons', []))}", "wait a moment, then see its log")
    if said.get("degraded"):
        return Finding("note", "processes", f"{name} works without {', '.join(said['degraded'])}", "see the findings about these")
    return Finding("ok", name, "ready")


def _client(url: str) -> httpx.AsyncClient:
    """With certificates only where they are needed: to load them holds up the other checks, whose time is running."""
    return httpx.AsyncClient(timeout=_TIMEOUT_S, verify=url.startswith("https:"))


def _place(url: str) -> str:
    """Host and port, never a password."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


def _say(error: BaseException) -> str:
    """The first line of an error, short; its class if it says nothing."""
    if isinstance(error, ConnectionRefusedError) or "Connection refused" in str(error):
        return "connection refused"
    if isinstance(error, TimeoutError | httpx.TimeoutException | RedisTimeoutError):
        return f"no answer within {_TIMEOUT_S:g} s"
    text = (str(error).splitlines() or [""])[0][:120]
    return text or type(error).__name__
