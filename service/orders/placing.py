"""Placing an order: price it from what the process knows, then one statement decides (place_order.sql).

A definite "no" is never answered from what the process knows: the slow path asks PostgreSQL first,
and a finished twin wins over everything, so a retry of a success is always a replay (I1–I4).
Tests: tests/integration/test_place_order.py, tests/stories/test_a_double_click_buys_once.py.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, NamedTuple

import orjson
from asyncpg import Record

from service.answers import KeyedRequest, StoredAnswer, lock_wait_is_in_flight, probe_key, replay
from service.errors import FieldError, Overloaded, PriceChanged, ServiceError, ValidationFailed
from service.foundation import failpoints, metrics
from service.foundation.db import Database, retry_contention
from service.foundation.grouped import Grouped, pipelined
from service.foundation.sql import load_sql
from service.orders.schemas import REPRESENTATION, PlaceOrder, encode, present_order
from service.outbox import bounded, context_headers, new_id_text
from service.products.operations import find_products

_PLACE: Final = load_sql(__file__, "place_order.sql")
_GROUPS_AT_ONCE: Final = 1
_RUNS: Final = 3
_NEW: Final = metrics.idempotency.labels("new")
_REPLAYED: Final = metrics.idempotency.labels("replayed")

Creates = Grouped[Sequence[Any], Record]
# SKU → what the process believes about it: price_minor, currency, active.
Prices = Callable[[Sequence[str]], Awaitable[Mapping[str, Mapping[str, Any]]]]


class Mismatch(Exception):
    """What the process knows says no; PostgreSQL has the last word. Carries the error to raise if it agrees."""

    def __init__(self, error: ServiceError) -> None:
        super().__init__(str(error))
        self.error = error


def group_creates(db: Database, *, size: int) -> Creates:
    """Where creates meet that come at once: up to `size` commit together (docs/adr/0022)."""
    return Grouped(db, pipelined(_PLACE), span="INSERT idempotency_key", size=size, at_once=_GROUPS_AT_ONCE)


class _ProbeOver(Exception):
    """Rolls the probe's transaction back."""


class Draft(NamedTuple):  # one for every order placed: a frozen dataclass takes four times as long
    """An order priced and worded, not yet written."""

    order_id: str
    customer_id: str
    request: PlaceOrder
    total_minor: int
    lines: Sequence[Mapping[str, Any]]
    created_at: datetime
    answer: StoredAnswer
    payload: bytes


def draft_order(request: PlaceOrder, known: Mapping[str, Mapping[str, Any]], *, customer_id: str, now: datetime) -> Draft:
    """Price the lines and word the answer. Pure. Raises `Mismatch` if `known` says no."""
    lines, errors, total = [], [], 0
    for number, line in enumerate(request.lines):
        believed = known.get(line.sku)
        if error := _line_error(number, believed, request.currency):
            errors.append(error)
        elif believed is not None:
            price = believed["price_minor"]
            lines.append({"line_no": number + 1, "sku": line.sku, "quantity": line.quantity, "unit_price_minor": price})
            total += price * line.quantity
    if errors:
        raise Mismatch(ValidationFailed(errors=errors))
    if request.expected_total_minor not in (None, total):
        raise Mismatch(PriceChanged(extra={"total_minor": total}))
    return _word(request, lines, total, customer_id=customer_id, now=now)


def _line_error(number: int, known: Mapping[str, Any] | None, currency: str) -> FieldError | None:
    if known is None or not known["active"]:
        return FieldError(f"/lines/{number}/sku", "unknown-sku", "not in the catalogue")
    if known["currency"] != currency:
        return FieldError("/currency", "currency-mismatch", f"this product is sold in {known['currency']}")
    return None


def _word(request: PlaceOrder, lines: Sequence[Mapping[str, Any]], total: int, *, customer_id: str, now: datetime) -> Draft:
    order_id = new_id_text()
    row = {
        "id": order_id, "customer_id": customer_id, "status": "placed", "version": 1, "currency": request.currency,
        "total_minor": total, "note": request.note, "status_reason": None, "created_at": now, "updated_at": now,
    }  # fmt: skip
    headers = {"location": f"/v1/orders/{order_id}", "etag": f'"1.{REPRESENTATION}"', "content-type": "application/json"}
    # The bytes of `events.OrderPlaced`, without making one: test_placing.py holds them to it.
    event = {"order_id": order_id, "customer_id": customer_id, "total_minor": total, "currency": request.currency, "lines": lines}
    answer = StoredAnswer(201, headers, encode(present_order(row, lines)))
    return Draft(order_id, customer_id, request, total, lines, now, answer, bounded(orjson.dumps(event)))


async def place_order(
    db: Database, creates: Creates, request: PlaceOrder, keyed: KeyedRequest, *, prices: Prices, customer_id: str, now: datetime, retention: timedelta
) -> StoredAnswer:
    """The answer to this key: a new 201, or the one given before (`replayed`).

    Idempotent per (principal, key). Raises `IdempotencyKeyReused`, `IdempotencyInFlight`,
    `ValidationFailed`, `PriceChanged`, `Overloaded`, `DependencyUnavailable`; whatever is raised, nothing is written.
    """

    async def known() -> Mapping[str, Mapping[str, Any]]:
        return await prices([line.sku for line in request.lines])

    beliefs = await known()
    for _ in range(_RUNS):
        try:
            draft = draft_order(request, beliefs, customer_id=customer_id, now=now)
        except Mismatch as mismatch:
            answer_or_facts = await _ask_the_database(db, request, keyed, mismatch, customer_id=customer_id, now=now)
            if isinstance(answer_or_facts, StoredAnswer):
                return answer_or_facts
            beliefs = answer_or_facts
            continue
        outcome, answer = await retry_contention(partial(_run, creates, draft, keyed, retention))
        if answer is not None:
            (_REPLAYED if answer.replayed else _NEW).inc()
            return answer
        if outcome == "stale":
            async with db.connection() as connection:
                beliefs = await find_products(connection, [line.sku for line in request.lines])
    raise Overloaded("the catalogue or the key kept changing")


async def _run(creates: Creates, draft: Draft, keyed: KeyedRequest, retention: timedelta) -> tuple[str, StoredAnswer | None]:
    with lock_wait_is_in_flight():
        row = await creates.run(_arguments(draft, keyed, retention), order=(keyed.principal, keyed.key))
    await failpoints.hit("after-key-claim")
    if row["outcome"] == "created":
        return "created", draft.answer
    if row["outcome"] == "seen":
        return "seen", replay(row, keyed)
    return row["outcome"], None


def _arguments(draft: Draft, keyed: KeyedRequest, retention: timedelta) -> tuple[Any, ...]:
    request = draft.request
    return (
        keyed.principal, keyed.key, keyed.fingerprint, dict(draft.answer.headers), draft.answer.body, retention,
        draft.order_id, draft.customer_id, request.currency, draft.total_minor, request.note, draft.created_at,
        [line["sku"] for line in draft.lines], [line["quantity"] for line in draft.lines], [line["unit_price_minor"] for line in draft.lines],
        new_id_text(), draft.payload, context_headers(),
    )  # fmt: skip


async def _ask_the_database(
    db: Database, request: PlaceOrder, keyed: KeyedRequest, mismatch: Mismatch, *, customer_id: str, now: datetime
) -> StoredAnswer | Mapping[str, Mapping[str, Any]]:
    """The slow path: a finished or running twin first, then the catalogue as it is; still no → the error."""

    async def probe() -> StoredAnswer | Mapping[str, Mapping[str, Any]]:
        facts: Mapping[str, Mapping[str, Any]] = {}
        try:
            async with db.transaction() as connection:
                stored = await probe_key(connection, keyed)
                if stored is not None:
                    return stored
                facts = await find_products(connection, [line.sku for line in request.lines])
                raise _ProbeOver
        except _ProbeOver:
            return facts

    answer = await retry_contention(probe)
    if isinstance(answer, StoredAnswer):
        return answer
    try:
        draft_order(request, answer, customer_id=customer_id, now=now)
    except Mismatch as still:
        raise still.error from mismatch
    return answer
