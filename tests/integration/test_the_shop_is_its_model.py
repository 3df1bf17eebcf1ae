"""Hypothesis plays customers, staff, workers and the reaper of keys against the API, and a plain model says what must come of it.

Real PostgreSQL and Redis, the API in this process, the workers' handlers called directly. What it finds it makes small.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from tests.integration.shop_model import Lines, Model
from tests.integration.workshop import DeskProvider, Workshop, open_desk

T = TypeVar("T")
SKUS = ("SKU-0801", "SKU-0802")
OWNERS, KEYS = ("anna", "bert"), tuple(f"k{number}" for number in range(8))
_SELDOM = st.sampled_from((False, False, False, True))


@pytest_asyncio.fixture
async def loop() -> asyncio.AbstractEventLoop:
    """The session's: it stands still while a test without `async` runs, so that the test can turn it."""
    return asyncio.get_running_loop()


@pytest.fixture
def workshop(db: Any, settings: Any, login: Any) -> Workshop:
    desk = open_desk(settings, "model")
    return Workshop(db, settings, login, desk, DeskProvider(desk))


lines_of = st.lists(st.tuples(st.sampled_from(SKUS), st.integers(1, 400)), min_size=1, max_size=2, unique_by=lambda line: line[0]).map(tuple)


class Machine(RuleBasedStateMachine):
    """One shop of its own: customers, keys and stock as the model has them."""

    loop: asyncio.AbstractEventLoop
    workshop: Workshop

    def turn(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @initialize()
    def open(self) -> None:
        self.name = uuid4().hex[:8]
        facts = self.workshop.facts
        rows = self.turn(
            facts.rows("SELECT sku, price_minor, available FROM product JOIN stock USING (sku) WHERE sku = ANY ($1::text[])", list(SKUS))
        )
        self.model = Model({row["sku"]: row["price_minor"] for row in rows}, {row["sku"]: row["available"] for row in rows})
        self.staff = self.workshop.login(f"staff-{self.name}", role="operator")
        self.keeper = self.workshop.login(f"keeper-{self.name}", role="admin")
        self.restocks = 0

    def customer(self, owner: str) -> Any:
        return self.workshop.login(f"{owner}-{self.name}")

    def pick(self, number: int) -> str:
        ids = list(self.model.orders)
        return ids[number % len(ids)]

    # -- what customers and staff do

    @rule(owner=st.sampled_from(OWNERS), key=st.sampled_from(KEYS), lines=lines_of)
    def place(self, owner: str, key: str, lines: Lines) -> None:
        known = self.model.known(owner, key, ("place", lines))
        answer = self.turn(self.customer(owner).place(*lines, key=key))
        if known:
            self._keyed(answer, owner, key, known, fresh=201)
            return
        assert answer.status_code == 201, answer.text
        order = self.model.place(answer.json()["id"], owner, lines)
        self.model.remember(owner, key, ("place", lines), answer.content)
        assert (answer.json()["total_minor"], answer.json()["status"], answer.json()["version"]) == (order.total, "placed", 1)

    @precondition(lambda self: self.model.orders)
    @rule(number=st.integers(0, 50), foreign=_SELDOM, key=st.sampled_from(KEYS), stale=_SELDOM)
    def cancel(self, number: int, foreign: bool, key: str, stale: bool) -> None:  # noqa: FBT001 - hypothesis fills it in
        order_id = self.pick(number)
        owner = self.model.orders[order_id].owner
        self._change("cancel", order_id, next(name for name in OWNERS if (name == owner) != foreign), key, stale=stale)

    @precondition(lambda self: self.open_orders())
    @rule(number=st.integers(0, 50), key=st.sampled_from(KEYS))
    def change_mind(self, number: int, key: str) -> None:
        """The owner, with the ETag as it is: what nearly every cancel is."""
        ids = self.open_orders()
        order_id = ids[number % len(ids)]
        self._change("cancel", order_id, self.model.orders[order_id].owner, key, stale=False)

    def open_orders(self) -> list[str]:
        """Paid ones first: they have the most to give back."""
        wanted = [name for name, order in self.model.orders.items() if order.status in {"placed", "reserved", "paid"}]
        return sorted(wanted, key=lambda name: self.model.orders[name].status != "paid")[:2]

    @precondition(lambda self: any(order.status == "paid" for order in self.model.orders.values()))
    @rule(number=st.integers(0, 50), key=st.sampled_from(KEYS), stale=_SELDOM)
    def ship(self, number: int, key: str, stale: bool) -> None:  # noqa: FBT001 - hypothesis fills it in
        self._change("ship", self.pick(number), None, key, stale=stale)

    def _change(self, step: str, order_id: str, owner: str | None, key: str, *, stale: bool) -> None:
        version = self.model.orders[order_id].version - int(stale)
        client, who = (self.staff, "staff") if owner is None else (self.customer(owner), owner)
        known = self.model.known(who, key, (step, order_id))
        send = client.ship if step == "ship" else client.cancel
        answer = self.turn(send({"id": order_id, "version": max(1, version)}, key=key))
        if known:
            self._keyed(answer, who, key, known, fresh=200)
            return
        expected = self.model.change(order_id, step, max(1, version), owner=owner)
        assert answer.status_code == expected, answer.text
        if expected == 200:
            self.model.remember(who, key, (step, order_id), answer.content)
            order = self.model.orders[order_id]
            assert (answer.json()["status"], answer.json()["version"]) == (order.status, order.version)

    def _keyed(self, answer: httpx.Response, owner: str, key: str, known: int, *, fresh: int) -> None:
        """A replay is byte-identical; another request under the key is 422."""
        assert answer.status_code == (fresh if known == 200 else 422), answer.text
        if known == 200:
            assert answer.content == self.model.keys[owner, key][1]
            assert answer.headers["idempotent-replayed"] == "true"

    @rule(sku=st.sampled_from(SKUS), quantity=st.integers(1, 50), again=st.booleans())
    def restock(self, sku: str, quantity: int, again: bool) -> None:  # noqa: FBT001 - hypothesis fills it in
        self.restocks += 1
        for _ in range(1 + again):
            answer = self.turn(self.keeper.post(f"/products/{sku}/restock", {"quantity": quantity}, key=f"restock-{self.restocks}"))
            assert answer.status_code == 200, answer.text
        self.model.stock[sku] += quantity

    # -- what happens behind the door

    @precondition(lambda self: self.model.orders)
    @rule()
    def work(self) -> None:
        self.turn(self.workshop.settle(self.model.orders))
        self.model.work()

    @rule(owner=st.sampled_from(OWNERS), key=st.sampled_from(KEYS))
    def forget_key(self, owner: str, key: str) -> None:
        """The reaper, 72 hours later: the same key is a new intent."""
        sql = "DELETE FROM idempotency_key WHERE principal = $1 AND key = $2"
        self.turn(self.workshop.facts.value(sql, f"{owner}-{self.name}", key))
        self.model.keys.pop((owner, key), None)

    # -- what must be true whenever anybody looks

    @precondition(lambda self: self.model.orders)
    @rule(number=st.integers(0, 50), owner=st.sampled_from(OWNERS))
    def read(self, number: int, owner: str) -> None:
        order_id = self.pick(number)
        order = self.model.orders[order_id]
        answer = self.turn(self.customer(owner).get(f"/orders/{order_id}"))
        if owner != order.owner:
            assert answer.status_code == 404
            return
        body = answer.json()
        # The event's invalidation is the workers' `cache` group: until it ran, a copy of an older version may be served.
        assert body["version"] <= order.version
        assert (body["total_minor"], [(line["sku"], line["quantity"]) for line in body["lines"]]) == (order.total, list(order.lines))

    @rule(owner=st.sampled_from(OWNERS), limit=st.integers(1, 4))
    def walk(self, owner: str, limit: int) -> None:
        seen: list[tuple[str, str, int]] = []
        cursor: str | None = ""
        while cursor is not None:
            page = self.turn(self.customer(owner).get(f"/orders?limit={limit}" + (f"&cursor={cursor}" if cursor else ""))).json()
            seen += [(order["id"], order["status"], order["version"]) for order in page["items"]]
            cursor = page["next_cursor"]
        mine = [(name, order.status, order.version) for name, order in self.model.orders.items() if order.owner == owner]
        assert seen == mine[::-1]

    @invariant()
    def stock_and_money_are_the_models(self) -> None:
        if not hasattr(self, "model"):
            return
        rows = self.turn(self.workshop.facts.rows("SELECT sku, available FROM stock WHERE sku = ANY ($1::text[])", list(SKUS)))
        assert {row["sku"]: row["available"] for row in rows} == self.model.stock
        for order_id, order in self.model.orders.items():
            charge = self.workshop.desk.ledger.charges.get(f"charge:{order_id}", {"state": "", "amount_minor": 0})
            refund = self.workshop.desk.ledger.refunds.get(f"refund:{order_id}", {"amount_minor": 0})
            held = (charge["amount_minor"] if charge["state"] == "captured" else 0) - refund["amount_minor"]
            assert held == order.money, (order_id, order)


@pytest.mark.parametrize(("examples", "steps"), [(10, 30), pytest.param(200, 50, marks=pytest.mark.slow)])
def test_the_shop_is_its_model(loop: asyncio.AbstractEventLoop, workshop: Workshop, examples: int, steps: int) -> None:
    made = type("Bound", (Machine,), {"loop": loop, "workshop": workshop})
    run_state_machine_as_test(
        made,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, derandomize=examples < 100, database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
