"""What the shop promises, in plain Python: no SQL, no HTTP, no concurrency. Every method answers the status the API must answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Lines = tuple[tuple[str, int], ...]


@dataclass
class ModelOrder:
    """One order as it must be."""

    owner: str
    lines: Lines
    total: int
    status: str = "placed"
    version: int = 1
    holds: bool = False
    money: int = 0
    told: bool = False  # the workers have seen its cancellation


@dataclass
class Model:
    """Stock, prices, orders by id in the order they were placed, and what each key was answered."""

    prices: Mapping[str, int]
    stock: dict[str, int]
    orders: dict[str, ModelOrder] = field(default_factory=dict)
    keys: dict[tuple[str, str], tuple[Any, bytes]] = field(default_factory=dict)

    def known(self, owner: str, key: str, request: Any) -> int:
        """0: the key is new · 200: the same request, a replay · 422: another one."""
        if (owner, key) not in self.keys:
            return 0
        return 200 if self.keys[owner, key][0] == request else 422

    def remember(self, owner: str, key: str, request: Any, body: bytes) -> None:
        self.keys[owner, key] = request, body

    def place(self, order_id: str, owner: str, lines: Lines) -> ModelOrder:
        total = sum(self.prices[sku] * quantity for sku, quantity in lines)
        return self.orders.setdefault(order_id, ModelOrder(owner, lines, total))

    def change(self, order_id: str, step: str, version: int, *, owner: str | None) -> int:
        """Cancel or ship; `owner` None: an operator."""
        order = self.orders.get(order_id)
        if order is None or owner not in {None, order.owner}:
            return 404
        if version != order.version:
            return 412
        if order.status not in (("placed", "reserved", "paid") if step == "cancel" else ("paid",)):
            return 409
        order.status, order.version = {"cancel": "cancelled", "ship": "shipped"}[step], order.version + 1
        return 200

    def work(self) -> None:
        """Every worker has seen every event."""
        for order in self.orders.values():
            if order.status == "placed":
                self._reserve(order)
            if order.status == "reserved":
                order.status, order.version, order.money = "paid", order.version + 1, order.total
            if order.status == "cancelled" and not order.told:
                order.told = True
                self._give_back(order)

    def _reserve(self, order: ModelOrder) -> None:
        order.holds = all(self.stock[sku] >= quantity for sku, quantity in order.lines)
        order.status, order.version = "reserved" if order.holds else "rejected", order.version + 1
        if order.holds:
            self.stock |= {sku: self.stock[sku] - quantity for sku, quantity in order.lines}

    def _give_back(self, order: ModelOrder) -> None:
        if order.holds:
            self.stock |= {sku: self.stock[sku] + quantity for sku, quantity in order.lines}
        if order.money:
            order.money, order.version = 0, order.version + 1
        order.holds = False
