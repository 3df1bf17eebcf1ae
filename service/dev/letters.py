"""`plumbline dlq list` and `dlq show`: dead letters as a person reads them.

Answers exit codes: 0 shown, 2 there is no such letter. Test: `tests/stories/test_the_doctor_finds_what_is_wrong.py`.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import orjson
from asyncpg import Record

from service.admin.operations import list_dead_letters
from service.foundation.db import Database
from service.settings import Settings

_PAGE: Final = 500
_PAYLOAD_BYTES: Final = 4_096


async def print_letters(settings: Settings, *, consumer: str, status: str, limit: int) -> int:
    """One line a letter, newest first, and how to go on."""
    async with _database(settings) as db, db.connection() as connection:
        wanted = None if status == "all" else status
        found = await list_dead_letters(connection, status=wanted, consumer=consumer or None, limit=limit + 1)
    rows = found[:limit]
    if not rows:
        print(f"no {'' if status == 'all' else status + ' '}dead letters{f' of {consumer}' if consumer else ''}")
        return 0
    print(f"{'ID':<36}  {'CONSUMER':<13} {'EVENT':<16} {'AGGREGATE':<36}  {'STATUS':<9} {'TRIES':>5}  {'AGE':>6}  WHY")
    for row in rows:
        print(_line(row))
    if len(found) > limit:
        print(f"and older ones: --limit {limit * 2}")
    print("\nlook at one: plumbline dlq show ID · after the cure: plumbline dlq replay ID · give up: plumbline dlq discard ID")
    return 0


async def print_letter(settings: Settings, wanted: str) -> int:
    """Everything known about one letter; `wanted` may be the beginning of its id if only one begins so."""
    async with _database(settings) as db:
        rows = await _beginning_with(db, wanted.lower())
    if len(rows) != 1:
        cure = "`plumbline dlq list --status all` shows them"
        return _complain(
            f"{len(rows)} dead letters have an id that begins with {wanted}: write more of it" if rows else f"no dead letter {wanted}: {cure}"
        )
    [row] = rows
    print(f"dead letter {row['id']}")
    for name, fact in _facts(row).items():
        print(f"  {name:<10} {fact}")
    print("  headers")
    for name, value in sorted(row["headers"].items()):
        print(f"    {name:<22} {value}")
    print("  payload")
    for line in _payload(row["payload"] or b"").splitlines():
        print(f"    {line}")
    return 0


def _line(row: Record) -> str:
    event, why = row["headers"].get("ce_type", "-"), f"{row['error_class']}: {row['error_message']}".splitlines()[0][:80]
    where = f"{row['id']}  {row['consumer']:<13} {event:<16} {row['aggregate_id'] or '-':<36}"
    return f"{where}  {row['status']:<9} {row['attempts']:>5}  {_age(row['created_at']):>6}  {why}"


def _facts(row: Record) -> dict[str, str]:
    return {
        "consumer": row["consumer"],
        "status": _resolution(row),
        "why": f"{row['error_class']}: {row['error_message']}",
        "attempts": f"{row['attempts']}, replayed {row['replay_count']} ×",
        "parked": f"{row['created_at']:%Y-%m-%d %H:%M:%S} UTC, {_age(row['created_at'])} ago",
        "came from": f"{row['topic']} partition {row['partition']} offset {row['offset']}",
        "event": f"{row['event_id'] or 'none'}, version {row['version']} of {row['aggregate_id'] or 'nothing known'}",
    }


def _resolution(row: Record) -> str:
    return (
        str(row["status"]) if row["resolved_at"] is None else f"{row['status']} by {row['resolved_by']} at {row['resolved_at']:%Y-%m-%d %H:%M:%S} UTC"
    )


def _payload(payload: bytes) -> str:
    """Indented if it is JSON, cut after 4 KiB."""
    try:
        text = orjson.dumps(orjson.loads(payload), option=orjson.OPT_INDENT_2)
    except orjson.JSONDecodeError:
        text = payload
    cut = text[:_PAYLOAD_BYTES].decode("utf-8", "backslashreplace")
    return cut if len(text) <= _PAYLOAD_BYTES else f"{cut}\n… {len(text) - _PAYLOAD_BYTES} bytes more"


async def _beginning_with(db: Database, wanted: str) -> list[Record]:
    """Up to two letters whose id begins so."""
    found: list[Record] = []
    before: UUID | None = None
    while len(found) < 2:
        async with db.connection() as connection:
            page = await list_dead_letters(connection, status=None, before=before, limit=_PAGE)
        found += [row for row in page if str(row["id"]).startswith(wanted)]
        if len(page) < _PAGE:
            break
        before = page[-1]["id"]
    return found[:2]


@asynccontextmanager
async def _database(settings: Settings) -> AsyncIterator[Database]:
    db = Database(settings.db.model_copy(update={"pool_size": 1}), application="plumbline-dlq")
    await db.open()
    try:
        yield db
    finally:
        await db.close()


def _age(moment: datetime) -> str:
    seconds = (datetime.now(UTC) - moment).total_seconds()
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{max(0, seconds):.0f}s"


def _complain(sentence: str) -> int:
    print(f"plumbline: {sentence}", file=sys.stderr)
    return 2
