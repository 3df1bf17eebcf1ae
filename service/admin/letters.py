"""What a person decides about a dead letter: replay it, or discard it.

A replay is an outbox row for the group's first retry topic, in the transaction that marks the letter: kill-safe,
and no producer here. The relay sends it with the envelope it had at first; its attempts begin anew. Deciding
twice changes nothing. Each decision is in `audit_log`. Tests: tests/integration/test_dead_letter_replay.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote_to_bytes
from uuid import UUID

from asyncpg import Record
from sqlalchemy import bindparam, delete, func, insert, select, update

from service.errors import InvalidTransition, NotFound
from service.events import SUBSCRIPTIONS, TYPES, retry_topic
from service.foundation.db import Connection, Statement
from service.models import audit_log, dead_letter, outbox
from service.outbox import new_id

RELAY: Final = "relay"
_LOCK: Final = Statement(select(dead_letter).where(dead_letter.c.id == bindparam("id")).with_for_update())
_RESOLVE: Final = Statement(
    update(dead_letter)
    .where(dead_letter.c.id == bindparam("match_id"))
    .values(status=bindparam("status"), replay_count=bindparam("replay_count"), resolved_at=func.now(), resolved_by=bindparam("actor"))
    .returning(dead_letter)
)
_AUDIT: Final = Statement(
    insert(audit_log).values({name: bindparam(name) for name in ("id", "actor", "action", "subject", "detail")}),
)
_SEND: Final = Statement(
    insert(outbox).values(
        {name: bindparam(name) for name in ("event_id", "aggregate_type", "aggregate_id", "version", "type", "topic", "key", "payload", "headers")}
    )
)
_GIVE_UP: Final = Statement(delete(outbox).where(outbox.c.seq == bindparam("seq")))
# Told anew by every attempt; everything else of the record goes out as it came in.
_FORGOTTEN: Final = frozenset({"traceparent", "x-error-class", "x-error-message", "x-first-failure-ms", "x-not-before-ms"})


@dataclass(frozen=True, slots=True)
class Decision:
    """The letter as it is now, and whether this call changed it."""

    letter: Record
    changed: bool


async def replay(connection: Connection, letter_id: UUID, *, actor: str) -> Decision:
    """Send an open letter to its group once more. Raises `NotFound`, `InvalidTransition`; needs the caller's transaction."""
    letter = await _lock(connection, letter_id)
    if letter["status"] == "replayed":
        return Decision(letter, changed=False)
    if letter["status"] == "discarded":
        raise InvalidTransition("a discarded dead letter stays discarded")
    count = letter["replay_count"] + 1
    if letter["consumer"] != RELAY:  # the relay's own letter is still in the outbox: marking it is what unblocks it
        await connection.execute(*_SEND(**_outbox_row(letter, count)))
    return await _resolve(connection, letter, "replayed", count, actor)


async def discard(connection: Connection, letter_id: UUID, *, actor: str) -> Decision:
    """Give an open letter up for good. Raises `NotFound`, `InvalidTransition`; needs the caller's transaction."""
    letter = await _lock(connection, letter_id)
    if letter["status"] == "discarded":
        return Decision(letter, changed=False)
    if letter["status"] == "replayed":
        raise InvalidTransition("a replayed dead letter is on its way; it reopens if it fails again")
    if letter["consumer"] == RELAY:
        await connection.execute(*_GIVE_UP(seq=letter["offset"]))
    return await _resolve(connection, letter, "discarded", letter["replay_count"], actor)


def why_not_replayable(letter: Record) -> str | None:
    """What keeps a letter from being replayed, in words; None if nothing does."""
    if letter["consumer"] == RELAY:
        return None
    headers = letter["headers"]
    if any(letter[name] is None for name in ("event_id", "aggregate_id", "version", "payload", "key")) or headers.get("ce_type") not in TYPES:
        return "it has no envelope"
    if letter["topic"] not in SUBSCRIPTIONS.get(letter["consumer"], ()):
        return f"no group {letter['consumer']} reads {letter['topic']}"
    try:
        letter["key"].decode()
        stored_headers(headers)
    except ValueError:
        return "its key or a header is not text"
    return None


def stored_headers(headers: dict[str, str]) -> dict[str, str]:
    """Headers of a letter as they were on the record. Raises `ValueError` for bytes that are not UTF-8 text."""
    return {name: unquote_to_bytes(value).decode() for name, value in headers.items()}


def _outbox_row(letter: Record, count: int) -> dict[str, Any]:
    reason = why_not_replayable(letter)
    if reason is not None:
        raise InvalidTransition(f"{reason}: it can only be discarded")
    headers = stored_headers(letter["headers"])
    event_type, traces = headers["ce_type"], headers.get("x-first-traceparent") or headers.get("traceparent")
    kept = {name: value for name, value in headers.items() if name not in _FORGOTTEN}
    kept |= {
        "x-origin-topic": letter["topic"],
        "x-origin-partition": str(letter["partition"]),
        "x-origin-offset": str(letter["offset"]),
        "x-replay-count": str(count),
        "x-attempt": "0",
        "x-reason": "replay",
    }
    return {
        "event_id": letter["event_id"],
        "aggregate_type": event_type.partition(".")[0],
        "aggregate_id": letter["aggregate_id"],
        "version": letter["version"],
        "type": event_type,
        "topic": retry_topic(letter["topic"], letter["consumer"], 1),
        "key": letter["key"].decode(),
        "payload": letter["payload"],
        "headers": kept | ({"x-first-traceparent": traces, "traceparent": traces} if traces else {}),
    }


async def _lock(connection: Connection, letter_id: UUID) -> Record:
    letter = await connection.fetchrow(*_LOCK(id=letter_id))
    if letter is None:
        raise NotFound
    return letter


async def _resolve(connection: Connection, letter: Record, status: str, count: int, actor: str) -> Decision:
    resolved = await connection.fetchrow(*_RESOLVE(match_id=letter["id"], status=status, replay_count=count, actor=actor))
    assert resolved is not None  # locked above
    detail = {"consumer": letter["consumer"], "aggregate_id": letter["aggregate_id"], "replay_count": count}
    action = f"dead-letter.{'replay' if status == 'replayed' else 'discard'}"
    await connection.execute(*_AUDIT(id=new_id(), actor=actor, action=action, subject=str(letter["id"]), detail=detail))
    return Decision(resolved, changed=True)
