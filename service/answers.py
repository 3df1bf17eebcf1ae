"""Idempotency keys as facts: the answer a keyed request was given, byte for byte, and given again on every retry.

Only 2xx are stored; a 4xx changed nothing, so its retry is evaluated afresh. A row replays until the reaper
deletes it. The key's unique index is the lock: docs/adr/0004 says why neither Redis nor a lease row is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final, NamedTuple

import asyncpg
import orjson
from sqlalchemy import BigInteger, bindparam, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.types import Interval

from service.errors import IdempotencyInFlight, IdempotencyKeyReused
from service.foundation import metrics
from service.foundation.db import Connection, Statement
from service.models import idempotency_key as table

_FIND: Final = Statement(
    select(table.c.fingerprint, table.c.status, table.c.headers, table.c.body).where(
        table.c.principal == bindparam("principal"), table.c.key == bindparam("key")
    )
)
_PROBE: Final = Statement(
    insert(table)
    .values(
        principal=bindparam("principal"), key=bindparam("key"), fingerprint=bindparam("fingerprint"),
        status=200, headers=bindparam("headers"), body=b"", expires_at=func.now(),
    )
    .on_conflict_do_nothing()
    .returning(table.c.status)
)  # fmt: skip
_STORE: Final = Statement(
    insert(table).values(
        principal=bindparam("principal"), key=bindparam("key"), fingerprint=bindparam("fingerprint"), status=bindparam("status"),
        headers=bindparam("headers"), body=bindparam("body"), expires_at=func.now() + bindparam("retention", type_=Interval),
    )
)  # fmt: skip
_LOCK: Final = Statement(select(func.pg_advisory_xact_lock(bindparam("lock", type_=BigInteger))))


class StoredAnswer(NamedTuple):
    """Status, headers and body of a 2xx; `replayed` if it was given before."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    replayed: bool = False


class KeyedRequest(NamedTuple):
    """Who asks, under which key, for what (the fingerprint)."""

    principal: str
    key: str
    fingerprint: bytes


def fingerprint(method: str, path: str, principal: str, body: object) -> bytes:
    """SHA-256 over method, path, principal and the canonical JSON of the body **as parsed**.

    The raw body counts, not the validated model: a new default must not turn a replay into a 422.
    """
    canonical = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(b"\n".join((method.encode(), path.encode(), principal.encode(), canonical))).digest()


def replay(row: Mapping[str, Any], keyed: KeyedRequest) -> StoredAnswer:
    """The stored answer. Raises `IdempotencyKeyReused` if it was given to another request."""
    if row["fingerprint"] != keyed.fingerprint:
        metrics.idempotency.labels("mismatch").inc()
        raise IdempotencyKeyReused
    return StoredAnswer(row["status"], row["headers"], row["body"], replayed=True)


async def probe_key(connection: Connection, keyed: KeyedRequest) -> StoredAnswer | None:
    """Claim the key to meet a running twin, in a transaction the caller rolls back; a finished twin's answer, or None."""
    with lock_wait_is_in_flight():
        claimed = await connection.fetchval(*_PROBE(principal=keyed.principal, key=keyed.key, fingerprint=keyed.fingerprint, headers={}))
    return None if claimed is not None else await _find(connection, keyed)


async def lock_key(connection: Connection, keyed: KeyedRequest) -> StoredAnswer | None:
    """Make twins of this request wait until the transaction ends; the answer given before, or None.

    Raises `IdempotencyInFlight` when a twin holds the key for longer than `lock_timeout`.
    """
    digest = hashlib.sha256(f"{keyed.principal}\n{keyed.key}".encode()).digest()
    with lock_wait_is_in_flight(always=True):
        await connection.execute(*_LOCK(lock=int.from_bytes(digest[:8], "big", signed=True)))
    # A second statement: its snapshot is newer than the lock, so a twin that just committed is visible.
    return await _find(connection, keyed)


async def store_answer(connection: Connection, keyed: KeyedRequest, answer: StoredAnswer, *, retention: timedelta) -> StoredAnswer:
    """Keep the answer in the transaction of what it reports; answers it."""
    metrics.idempotency.labels("new").inc()
    await connection.execute(
        *_STORE(
            principal=keyed.principal, key=keyed.key, fingerprint=keyed.fingerprint, status=answer.status,
            headers=dict(answer.headers), body=answer.body, retention=retention,
        )
    )  # fmt: skip
    return answer


@contextmanager
def lock_wait_is_in_flight(*, always: bool = False) -> Iterator[None]:
    """A lock wait that ran out on the key means a twin is being processed; on any other row it is contention."""
    try:
        yield
    except asyncpg.LockNotAvailableError as error:
        if not always and "idempotency_key" not in f"{getattr(error, 'context', '')}":
            raise
        metrics.idempotency.labels("in_flight").inc()
        raise IdempotencyInFlight(headers={"retry-after": "1"}) from error


async def _find(connection: Connection, keyed: KeyedRequest) -> StoredAnswer | None:
    row = await connection.fetchrow(*_FIND(principal=keyed.principal, key=keyed.key))
    if row is None:
        return None
    answer = replay(row, keyed)
    metrics.idempotency.labels("replayed").inc()
    return answer
