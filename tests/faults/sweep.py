"""Every failpoint × {crash, hang} over an order's story on real processes; the checker judges after each.

One stack carries the whole sweep: every point is armed with a file that does not exist, and a case makes the file.
So the point fires once, when the case wants it, and a case whose file is still there proved nothing and fails.
Tests: tests/faults/test_failpoint_sweep.py; the table: `python -m tests.faults.sweep`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx

from service.dev.issuer import mint
from service.dev.stack import running_stack
from service.foundation.failpoints import NAMES
from tests.faults.checker.collect import collect
from tests.faults.checker.delivery import HANDLES
from tests.faults.checker.report import exit_code, judge_all, render
from tests.faults.shopper import History, Shopper
from tests.faults.sql import age_order

ACTIONS: Final = ("crash", "hang")
_FIRED_S, _QUIET_S = 30.0, 40.0
_MIGRATION: Final = "inside-migration"
# One 999 × 3 and one 620 make 3617: the provider answers 500 to totals ending in 17.
_HOPELESS: Final = (("SKU-0001", 3), ("SKU-0012", 1))
_WAITING: Final = """
SELECT (SELECT count(*) FROM outbox)
     + (SELECT count(*) FROM orders o WHERE o.status IN ('placed', 'reserved') AND o.id::text <> ALL ($3::text[]))
     + (SELECT count(*) FROM outbox_sent e JOIN unnest($1::text[], $2::text[]) AS h (consumer, type) ON h.type = e.type
        WHERE NOT EXISTS (SELECT FROM inbox i WHERE i.consumer = h.consumer AND i.event_id = e.event_id)
          AND NOT EXISTS (SELECT FROM dead_letter d WHERE d.consumer = h.consumer AND d.event_id = e.event_id))
     + (SELECT count(*) FROM outbox_sent e WHERE e.aggregate_type = 'order'
          AND NOT EXISTS (SELECT FROM order_timeline t WHERE t.order_id::text = e.aggregate_id AND t.version = e.version))
"""
_REQUIRED: Final = ("I1", "I2", "I4", "O1", "O2", "O3", "O4", "W1", "W2", "C3", "G1", "G2", "G5", "G6", "X1")


@dataclass(slots=True)
class World:
    """A running stack under sweep."""

    home: Path
    stack: dict[str, Any]
    history: History
    expected_dead: list[str] = field(default_factory=list)

    def token_file(self, case: Case) -> Path:
        """Making this file arms the case's point once."""
        return self.home / "failpoints" / f"{case.point}={case.action}"


@dataclass(frozen=True, slots=True)
class Case:
    """One point, one action, one story."""

    point: str
    action: str
    story: str

    def __str__(self) -> str:
        return f"{self.point} {self.action} × {self.story}"


@dataclass(slots=True)
class Result:
    """What became of a case. `problems`: empty when every promise was kept."""

    fired_s: float
    quiet_s: float
    problems: list[str]


def cases() -> list[Case]:
    """All cases on the running stack, the roles taking turns so that restarts do not pile up."""
    extra = [("after-charge-before-settle", story) for story in ("cancelled meanwhile", "expired meanwhile")]
    usual = [(name, _usual_story(name)) for name in NAMES if name != _MIGRATION]
    return [Case(point, action, story) for action in ACTIONS for point, story in (*usual, *extra)]


@contextmanager
def swept_stack(home: Path, http_port: int) -> Iterator[World]:
    """A stack with every point armed and none firing."""
    (home / "failpoints").mkdir(parents=True)
    points = [f"{name}={action}@{home}/failpoints/{name}={action}" for name in NAMES if name != _MIGRATION for action in ACTIONS]
    env = {
        "APP_FAILPOINTS": ",".join(points),
        "APP_WORKER_TIERS_S": "0.2,0.5",
        "APP_ORDERS_EXPIRE_SLACK_S": "0",
        "APP_ORDERS_EXPIRE_AFTER_S": "600",
        "APP_ORDERS_CHARGE_GRACE_S": "300",
    }
    with running_stack(home, http_port, kafka="memory", env=env) as stack:
        yield World(home, stack, History(home / "history.jsonl"))


async def run_case(world: World, case: Case) -> Result:
    """Play the story with the point armed, wait until all is quiet, judge."""
    token = world.token_file(case)
    begin = time.monotonic()
    fired: list[float] = []

    async def has_fired() -> None:
        deadline = begin + _FIRED_S
        while token.exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{case.point} was not reached within {_FIRED_S:g} s by the story {case.story!r}")
            await asyncio.sleep(0.01)
        fired.append(time.monotonic() - begin)

    principal = f"sweep-{case.point}-{case.action}"
    issuer = world.stack["urls"]["issuer"]
    async with httpx.AsyncClient(base_url=world.stack["urls"]["api"], timeout=10) as http:
        shopper = Shopper(http, mint(world.home, sub=principal, role="customer", issuer=issuer), principal, world.history)
        token.touch()
        try:
            await _STORIES[case.story](world, shopper, has_fired)
            await has_fired()
            await _quiet(world)
        except (TimeoutError, AssertionError) as error:
            return Result(fired[0] if fired else 0.0, time.monotonic() - begin, [f"{type(error).__name__}: {error}", *await _judge(world)])
        finally:
            token.unlink(missing_ok=True)
    return Result(fired[0], time.monotonic() - begin, await _judge(world))


# -- stories: what the customer does; `fired` returns when the point was reached

Fired = Callable[[], Awaitable[None]]


async def _buy(_: World, shopper: Shopper, __: Fired) -> None:
    placed = await shopper.place(("SKU-0003", 1), ("SKU-0004", 2))
    await shopper.await_status(placed.order_id, "paid")


async def _buy_and_cancel(_: World, shopper: Shopper, __: Fired) -> None:
    placed = await shopper.place(("SKU-0003", 1))
    await shopper.await_status(placed.order_id, "paid")
    cancelled = await shopper.cancel(placed.order_id)
    assert cancelled.status == 200, f"cancel answered {cancelled.status} {cancelled.slug}"


async def _cancelled_meanwhile(_: World, shopper: Shopper, fired: Fired) -> None:
    placed = await shopper.place(("SKU-0005", 1))
    await fired()
    cancelled = await shopper.cancel(placed.order_id)
    assert cancelled.status == 200, f"cancel answered {cancelled.status} {cancelled.slug}"


async def _expired_meanwhile(world: World, shopper: Shopper, fired: Fired) -> None:
    placed = await shopper.place(("SKU-0006", 1))
    await fired()
    await age_order(world.stack["urls"]["database"], placed.order_id)
    await shopper.await_status(placed.order_id, "expired", "paid")


async def _hopeless(world: World, shopper: Shopper, _: Fired) -> None:
    placed = await shopper.place(*_HOPELESS)
    world.expected_dead.append(placed.order_id)


_STORIES: Final[dict[str, Callable[[World, Shopper, Fired], Awaitable[None]]]] = {
    "bought": _buy,
    "bought and cancelled": _buy_and_cancel,
    "cancelled meanwhile": _cancelled_meanwhile,
    "expired meanwhile": _expired_meanwhile,
    "hopeless": _hopeless,
}


def _usual_story(point: str) -> str:
    special = {"after-void-before-record": "bought and cancelled", "between-dead-letter-and-offset-commit": "hopeless"}
    return special.get(point, "bought")


# -- afterwards


async def under_way(world: World) -> int:
    """Events and orders that have not come to their end anywhere yet."""
    handled = [(group, kind) for group, kinds in HANDLES.items() for kind in sorted(kinds)]
    connection = await asyncpg.connect(world.stack["urls"]["database"])
    try:
        left = await connection.fetchval(_WAITING, [group for group, _ in handled], [kind for _, kind in handled], world.expected_dead)
    finally:
        connection.terminate()
    return int(left)


async def is_quiet(world: World) -> bool:
    """True when nothing is under way."""
    return await under_way(world) == 0


async def _quiet(world: World) -> None:
    """Wait until nothing is under way. Raises `TimeoutError` with what is left."""
    deadline = time.monotonic() + _QUIET_S
    while left := await under_way(world):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{left} things were still under way {_QUIET_S:g} s after the story")
        await asyncio.sleep(0.1)


async def _judge(world: World) -> list[str]:
    """The checker's complaints; the cache group leaves no row behind, so it is given a few seconds to agree."""
    deadline = time.monotonic() + 10
    while True:
        evidence = await collect(world.stack, world.home, history=world.history.path, faults=None)
        evidence.expected_dead = list(world.expected_dead)
        verdicts = judge_all(evidence)
        code, reason = exit_code(evidence, verdicts, _REQUIRED)
        if code == 0:
            return []
        if verdicts["C1"].violations and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
            continue
        return [reason, *(line for line in render(evidence, verdicts) if " OK " not in line and "not exercised" not in line)]
