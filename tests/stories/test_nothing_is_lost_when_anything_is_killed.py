"""kill -9 of API, relay and workers while customers buy and cancel: afterwards every promise still holds.

Some orders the provider cannot charge: their events go through tiers and dead letters under the same kills, never
early, and after the cure a replay brings them home. The kills follow a seeded schedule; the interleaving is the
machine's own. `make test` kills six times, `make test-slow` fifty.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.stories.crowd import PAUSE_S as PEOPLE_PAUSE_S
from tests.stories.shop import Shop, until
from tests.support import invariants
from tests.support.clients import ApiClient

pytestmark = pytest.mark.broker

SEED, CUSTOMERS = 20, 8
KILLS, MANY_KILLS = 6, 50
PAUSE_S = (0.3, 0.9)
ROLES = ("api", "worker", "relay")
STEPS_BETWEEN = 3
# 83 × 999 ends in 17: the provider fails on it. Two customers buy one at first and now and then: with more of them the
# provider counts as down (its breaker opens), and the group waits instead of retrying.
HOPELESS, UNLUCKY, HOPELESS_EVERY = ("SKU-0001", 83), (0, 4), 16


@dataclass
class History:
    """What customers were told for certain: (principal, key) → the answer, and how to ask again."""

    told: dict[tuple[str, str], httpx.Response] = field(default_factory=dict)
    again: dict[tuple[str, str], Callable[[], Awaitable[httpx.Response]]] = field(default_factory=dict)
    killed: Counter[str] = field(default_factory=Counter)

    def placed(self) -> list[dict[str, Any]]:
        return [answer.json() for answer in self.told.values() if answer.status_code == 201]

    def hopeless(self) -> list[str]:
        return [order["id"] for order in self.placed() if order["total_minor"] % 100 == 17]


@pytest.mark.parametrize("kills", [KILLS, pytest.param(MANY_KILLS, marks=pytest.mark.slow)])
async def test_nothing_is_lost_when_anything_is_killed(shop: Shop, kills: int) -> None:
    history, stop = History(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for number in range(CUSTOMERS):
            group.create_task(customer(shop, f"survivor-{kills}-{number}", history, stop, unlucky=number in UNLUCKY))
        try:
            await kill_things(shop, history, kills)
        finally:
            shop.signal("kafka", signal.SIGCONT)
            stop.set()
    for role in ROLES:
        await shop.replaced(role, ())
    parked = await parked_then_replayed(shop, history)
    await shop.holds()
    await answers_are_kept(shop, history, kills)
    assert all(history.killed[role] >= kills // len(ROLES) for role in ROLES), history.killed
    ends = await shop.become(history.placed(), "paid", "rejected", "cancelled", "expired")
    assert {"paid", "cancelled"} <= set(ends), Counter(ends)
    assert 500 not in shop.answers, shop.answers
    retries = invariants.retries_begun(shop.home)  # `holds` has judged them: none early
    assert len(retries) >= parked, "each parked record went through two tiers; a kill costs a line, not most of them"
    print(f"{len(ends)} orders: {dict(Counter(ends))}; killed: {dict(history.killed)}; {parked} parked and replayed; {len(retries)} retries, 0 early")


async def parked_then_replayed(shop: Shop, history: History) -> int:
    """What cannot be charged is parked, all of it and nothing else; after the cure one replay of all is enough. Answers how many."""
    hopeless = history.hopeless()
    await shop.quiet(parked=hopeless)
    letters = await shop.database.fetch("SELECT consumer, aggregate_id, error_class FROM dead_letter WHERE aggregate_id = ANY ($1)", hopeless)
    others = await shop.database.fetchval("SELECT count(*) FROM dead_letter WHERE consumer <> 'payments'")
    assert ({tuple(row)[::2] for row in letters}, others) == ({("payments", "ProviderError")}, 0)
    await shop.dial(heal=True)
    try:
        code, said = await shop.plumbline("dlq", "replay", "--consumer", "payments")
        assert code == 0, said
        await shop.quiet()
    finally:
        await shop.dial(heal=False)
    return len(letters)


async def customer(shop: Shop, sub: str, history: History, stop: asyncio.Event, *, unlucky: bool) -> None:
    """Buy, and cancel every third order, each step until its answer is definite."""
    anna, choice = shop.login(sub), random.Random(f"{SEED}-{sub}")
    for number in itertools.count():
        if stop.is_set():
            return
        lines = [(f"SKU-{sku:04d}", choice.randint(1, 3)) for sku in choice.sample(range(10, 16), choice.randint(1, 3))]
        if unlucky and number % HOPELESS_EVERY == 0:
            lines = [HOPELESS]
        placed = await step(shop, history, sub, lambda key, lines=lines: anna.place(*lines, key=key))
        assert placed.status_code == 201, placed.text
        if choice.random() < 0.33:
            await withdraw(shop, history, anna, sub, placed.json())
        await asyncio.sleep(PEOPLE_PAUSE_S)


async def withdraw(shop: Shop, history: History, anna: ApiClient, sub: str, order: dict[str, Any]) -> None:
    """Cancel at whatever moment it is; 412 when the order moved on meanwhile: look again, and ask with a new key."""
    for _ in range(3):
        done = await step(shop, history, sub, lambda key, order=order: anna.cancel(order, key=key))
        if done.status_code != 412:
            assert done.status_code in {200, 409}, done.text
            return
        order = (await shop.definite(partial(anna.get, f"/orders/{order['id']}"))).json()


async def step(shop: Shop, history: History, sub: str, send: Callable[[str], Awaitable[httpx.Response]]) -> httpx.Response:
    key = str(uuid4())
    history.again[sub, key] = lambda: send(key)
    answer = history.told[sub, key] = await shop.definite(lambda: send(key))
    return answer


async def kill_things(shop: Shop, history: History, kills: int) -> None:
    """One process of each role in turn, each kill after some more answers, so that something was going on."""
    schedule = random.Random(SEED)
    for number in range(kills):
        role = ROLES[number % len(ROLES)]
        before = len(history.told)

        async def busy(before: int = before) -> bool:
            return len(history.told) >= before + STEPS_BETWEEN

        await until(busy, "customers get answers")
        await asyncio.sleep(schedule.uniform(*PAUSE_S))  # the schedule of the faults

        if role == "relay":
            await hold_up_the_relay(shop, history)

        async def struck(role: str = role) -> bool:
            pids = shop.pids(role)
            if pids:
                os.kill(schedule.choice(pids), signal.SIGKILL)
            return bool(pids)

        await until(struck, f"there is a {role} to kill")
        shop.signal("kafka", signal.SIGCONT)
        history.killed[role] += 1


async def hold_up_the_relay(shop: Shop, history: History) -> None:
    """Freeze Kafka until the relay has read events it cannot get rid of: two faults at once, the moment that loses most."""

    async def waiting() -> bool:
        return bool(await shop.database.fetchval("SELECT count(*) FROM outbox WHERE created_at < now() - interval '0.3 seconds'"))

    before = len(history.told)

    async def answered() -> bool:
        return len(history.told) >= before + STEPS_BETWEEN

    shop.signal("kafka", signal.SIGSTOP)
    await until(answered, "customers get answers while Kafka is frozen")
    await until(waiting, "the relay stands before a frozen Kafka", timeout_s=5)


async def answers_are_kept(shop: Shop, history: History, kills: int) -> None:
    """I1: each 201 is there as answered. I3: a refusal left nothing. I4: asked again, the answer is the same bytes."""
    rows = await shop.database.fetch("SELECT principal, key, body FROM idempotency_key WHERE principal LIKE $1", f"%survivor-{kills}-%")
    stored = {row["key"]: row["body"] for row in rows}
    for (sub, key), answer in history.told.items():
        expected = answer.content if answer.status_code < 300 else None
        assert stored.get(key) == expected, f"{sub}'s {key} was answered {answer.status_code}: {answer.text[:200]}"
    assert len(stored) == sum(answer.status_code < 300 for answer in history.told.values())
    succeeded = [call for call, answer in history.told.items() if answer.status_code < 300]
    for call in random.Random(SEED).sample(succeeded, min(40, len(succeeded))):
        replay = await shop.definite(history.again[call])
        assert (replay.content, replay.headers["idempotent-replayed"]) == (history.told[call].content, "true")
