"""The groups' handlers called directly: events come out of the outbox as envelopes, in whatever order a test likes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any
from uuid import UUID

import asyncpg
from asyncpg import Record

from service.dev.psp import Dials, Ledger
from service.dev.psp import Provider as Desk
from service.errors import Overloaded
from service.foundation.cache import Cache
from service.foundation.db import Database
from service.foundation.grouped import Jobs
from service.foundation.redis import RedisClient
from service.payments import Money, Provider
from service.settings import Settings
from tests.integration.facts import Facts
from tests.integration.letters import record_of
from workers.envelope import Envelope, decode
from workers.handlers import inventory, notifications, payments, timeline
from workers.handling import Context

HANDLERS: dict[str, Any] = {
    "inventory": inventory.HANDLERS,
    "payments": payments.HANDLERS,
    "notifications": notifications.HANDLERS,
    "timeline": timeline.HANDLERS,
}
_MONEY = """
SELECT coalesce(sum(amount_minor) FILTER (WHERE kind = 'charge' AND state = 'captured'), 0)
     - coalesce(sum(amount_minor) FILTER (WHERE kind = 'refund' AND state = 'refunded'), 0)
FROM payment WHERE order_id = $1
"""


class DeskProvider:
    """The provider's decisions without HTTP: the second implementation of the port."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    async def charge(self, key: str, order_id: UUID, money: Money) -> str:
        return str(self.desk.charge(key, str(order_id), money.amount_minor, money.currency)["state"])

    async def void(self, key: str, order_id: UUID) -> str:
        return str(self.desk.void(key, str(order_id))["state"])

    async def refund(self, key: str, order_id: UUID, money: Money) -> str:
        return str(self.desk.refund(key, str(order_id), money.amount_minor, money.currency)["state"])

    async def find(self, key: str) -> str | None:
        found = self.desk.ledger.charges.get(key) or self.desk.ledger.refunds.get(key)
        return None if found is None else str(found["state"])


class Messages:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    async def close(self) -> None:
        self.sent.clear()


class Workshop:
    """What the worker processes would do, one call at a time. `login` places orders; `desk` is the provider's book."""

    def __init__(self, db: Database, settings: Settings, login: Any, desk: Desk, provider: Provider) -> None:
        self.db, self.settings, self.login, self.desk, self.provider = db, settings, login, desk, provider
        self.facts, self.sink, self.redis = Facts(db), Messages(), RedisClient(settings.redis)

    async def place(self, *lines: tuple[str, int], customer: str = "workshop") -> str:
        """A placed order's id."""
        answer = await self.login(customer).place(*lines)
        while answer.status_code in (429, 503):
            await asyncio.sleep(0.02)
            answer = await self.login(customer).place(*lines)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def cancel(self, order_id: str, customer: str = "workshop") -> None:
        version = (await self.facts.order(order_id))["version"]
        answer = await self.login(customer).cancel({"id": order_id, "version": version})
        assert answer.status_code == 200, answer.text

    async def event(self, order_id: str, event_type: str) -> Envelope:
        """The (only) event of that type."""
        (row,) = [row for row in await self._rows(order_id) if row["type"] == event_type]
        return decode(record_of(row))

    async def events(self, order_id: str) -> list[Envelope]:
        return [decode(record_of(row)) for row in await self._rows(order_id)]

    async def handle(self, group: str, event: Envelope) -> str:
        """As the group's consumer: what does not concern it is ignored, contention is tried again, a deadlock is an error."""
        handler = HANDLERS[group].get(event.event_type)
        if handler is None:
            return "ignored"
        context = Context(group, self.db, self.settings, self.provider, self.sink, Cache(self.redis), Jobs(self.db, size=16))
        for _ in range(20):
            try:
                outcome: str = await handler(event, context)
            except (asyncpg.LockNotAvailableError, Overloaded):
                continue
            return outcome
        raise AssertionError(f"{group} never got its locks for {event.event_type}")

    async def tell(self, order_id: str, event_type: str, *groups: str) -> list[str]:
        """One event to some groups, in turn; their outcomes."""
        event = await self.event(order_id, event_type)
        return [await self.handle(group, event) for group in groups]

    async def settle(self, order_ids: Iterable[str], *groups: str) -> None:
        """Every event of these orders to these groups (default: inventory, payments), until nothing new is said."""
        for order_id in order_ids:
            told = 0
            while len(events := await self.events(order_id)) > told:
                for event in events[told:]:
                    for group in groups or ("inventory", "payments"):
                        await self.handle(group, event)
                told = len(events)

    async def reserved(self, *lines: tuple[str, int]) -> str:
        """An order whose stock is reserved; its `order.reserved` is not handled yet."""
        order_id = await self.place(*lines or (("SKU-0001", 2),))
        assert await self.tell(order_id, "order.placed", "inventory") == ["applied"]
        return order_id

    async def status(self, order_id: str) -> tuple[str, str | None]:
        row = await self.facts.order(order_id)
        return row["status"], row["status_reason"]

    async def assert_stock_adds_up(self, *skus: str) -> None:
        """G1 for these SKUs, from the ledger and the orders."""
        for sku in skus:
            sums = {r["kind"]: int(r["n"]) for r in await self.facts.rows(
                "SELECT kind, sum(quantity) AS n FROM stock_ledger WHERE sku = $1 GROUP BY kind", sku)}  # fmt: skip
            into = sums.get("seed", 0) + sums.get("restock", 0) + sums.get("release", 0)
            assert await self.facts.stock(sku) == into - sums.get("reserve", 0) >= 0, (sku, sums)

    async def assert_money_adds_up(self, *order_ids: str) -> None:
        """G6, in our rows and in the provider's book; G5 besides."""
        for order_id in order_ids:
            order = await self.facts.order(order_id)
            wanted = order["total_minor"] if order["status"] in ("paid", "shipped") else 0
            ours = await self.facts.value(_MONEY, order["id"])
            charge = self.desk.ledger.charges.get(f"charge:{order_id}", {"state": "none"})
            refund = self.desk.ledger.refunds.get(f"refund:{order_id}", {"amount_minor": 0})
            theirs = (charge["amount_minor"] if charge["state"] == "captured" else 0) - refund["amount_minor"]
            assert (ours, theirs) == (wanted, wanted), (order["status"], charge, refund)
            assert [version for _, version in await self.facts.events(order_id)] == list(range(1, order["version"] + 1)), "G5, O2"

    async def _rows(self, order_id: str) -> list[Record]:
        sql = "SELECT seq, event_id, aggregate_id, version, type, topic, key, payload, created_at FROM {} WHERE aggregate_id = $1"
        return await self.facts.rows(f"{sql.format('outbox')} UNION ALL {sql.format('outbox_sent')} ORDER BY version", order_id)


def open_desk(settings: Settings, name: str) -> Desk:
    """A provider's book of its own in the test's state folder."""
    return Desk(Ledger(settings.app.home / f"{name}.jsonl"), Dials())
