"""What an operator does from a shell: dead letters and republishing, with a dry run, a bounded rate, and progress.

Every letter is its own transaction: killed halfway, run it again. Answers exit codes: 0 done, 1 some could not be,
2 usage. Tests: tests/integration/test_dead_letter_replay.py, test_republish.py.
"""

from __future__ import annotations

import asyncio
import getpass
import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Final, Literal
from uuid import UUID

from asyncpg import Record

from service.admin import letters
from service.admin.operations import get_dead_letter, list_dead_letters
from service.admin.republish import republish_since, republish_unapplied
from service.errors import InvalidTransition, NotFound
from service.foundation.db import Database
from service.settings import Settings

_PAGE: Final = 100
_TELL_S: Final = 2.0
_SLOW_MS: Final = 60_000
_AGO: Final = re.compile(r"(\d+(?:\.\d+)?)([mhd])")
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}


async def decide_letters(
    settings: Settings, action: Literal["replay", "discard"], ids: Sequence[str], *, consumer: str, status: str, dry_run: bool, rate: float
) -> int:
    """Replay or discard the named letters, or all that match; one line each on stdout, a sum at the end."""
    actor, counts, tell = f"cli:{getpass.getuser()}", {"changed": 0, "unchanged": 0, "refused": 0}, _progress()
    async with _database(settings) as db:
        try:
            chosen = await _chosen(db, ids, consumer=consumer, status=status)
        except (NotFound, ValueError) as error:
            return _complain(f"{error}: `plumbline dlq list` shows what there is")
        begun = time.monotonic()
        for number, letter in enumerate(chosen, 1):
            outcome, why = await _decide(db, letter, action, actor=actor, dry_run=dry_run)
            counts[outcome] += 1
            _say(f"{letter['id']}  {letter['consumer']:<13} {letter['headers'].get('ce_type', '-'):<16} {letter['aggregate_id'] or '-'}  {why}")
            tell(f"{number} of {len(chosen)}")
            await asyncio.sleep(max(0.0, number / rate - (time.monotonic() - begun)))
    done = {"replay": "replayed", "discard": "discarded"}[action]
    _say(f"{'would be ' if dry_run else ''}{done}: {counts['changed']}, unchanged: {counts['unchanged']}, refused: {counts['refused']}")
    return 1 if counts["refused"] else 0


async def republish_events(settings: Settings, *, since: str, handled: Mapping[str, Sequence[str]], rate: float) -> int:
    """`since` empty: what groups of `handled` have not applied. Prints how many events went back into the outbox."""
    tell = _progress()

    def progress(moved: int) -> None:
        tell(f"{moved} events")

    async with _database(settings) as db:
        if since:
            moment = parse_moment(since, datetime.now(UTC))
            if moment is None:
                return _complain(f"--since {since!r} is no time: write 2030-01-31T12:00Z, or 30m, 6h, 2d for so long ago")
            moved = await republish_since(db, moment, rate=rate, progress=progress)
        else:
            moved = await republish_unapplied(db, handled, rate=rate, progress=progress)
    _say(f"{moved} events are in the outbox again; the relay publishes them")
    return 0


def parse_moment(text: str, now: datetime) -> datetime | None:
    """An RFC 3339 time (UTC unless it says otherwise) or `30m`, `6h`, `2d` before `now`; None if it is neither."""
    if ago := _AGO.fullmatch(text):
        return now - timedelta(**{_UNITS[ago[2]]: float(ago[1])})
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


async def _chosen(db: Database, ids: Sequence[str], *, consumer: str, status: str) -> list[Record]:
    async with db.connection() as connection:
        if ids:
            return [await get_dead_letter(connection, UUID(text)) for text in ids]
        found: list[Record] = []
        while True:
            before = found[-1]["id"] if found else None
            page = await list_dead_letters(connection, status=status, consumer=consumer or None, before=before, limit=_PAGE)
            found += page
            if len(page) < _PAGE:
                return found[::-1]  # oldest first, as they happened


async def _decide(db: Database, letter: Record, action: str, *, actor: str, dry_run: bool) -> tuple[str, str]:
    """("changed", "unchanged" or "refused", the reason in words)."""
    if dry_run:
        reason = letters.why_not_replayable(letter) if action == "replay" else None
        if letter["status"] != "open":
            return "unchanged", f"is {letter['status']}"
        return ("changed", f"would be {action}ed") if reason is None else ("refused", reason)
    try:
        async with db.transaction() as connection:
            decide = letters.replay if action == "replay" else letters.discard
            decision = await decide(connection, letter["id"], actor=actor)
    except InvalidTransition as error:
        return "refused", str(error)
    return ("changed", decision.letter["status"]) if decision.changed else ("unchanged", f"was {decision.letter['status']} already")


@asynccontextmanager
async def _database(settings: Settings) -> AsyncIterator[Database]:
    patient = {"pool_size": 1, "statement_timeout_ms": _SLOW_MS, "command_timeout_ms": _SLOW_MS}
    db = Database(settings.db.model_copy(update=patient), application="plumbline-by-hand", queue_timeout_ms=_SLOW_MS)
    await db.open()
    try:
        yield db
    finally:
        await db.close()


def _progress() -> Callable[[str], None]:
    """Tells on stderr at most every two seconds."""
    told = time.monotonic()

    def tell(text: str) -> None:
        nonlocal told
        if time.monotonic() - told >= _TELL_S:
            told = time.monotonic()
            print(f"  {text} …", file=sys.stderr, flush=True)  # noqa: T201 - this module talks to a person

    return tell


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - this module talks to a person


def _complain(text: str) -> int:
    print(f"plumbline: {text}", file=sys.stderr, flush=True)  # noqa: T201 - this module talks to a person
    return 2
