"""Pricing and wording an order: the answer, the event and the row say the same, or the first mismatch is named."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import PriceChanged, ValidationFailed
from service.events import OrderPlaced
from service.orders.placing import Mismatch, draft_order
from service.orders.schemas import OrderOut, PlaceOrder

_NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


def _known(price_minor: int = 250, *, currency: str = "EUR", active: bool = True) -> dict[str, Any]:
    return {"price_minor": price_minor, "currency": currency, "active": active}


def _wish(*lines: tuple[str, int], **more: Any) -> PlaceOrder:
    return PlaceOrder.model_validate({"lines": [{"sku": sku, "quantity": count} for sku, count in lines], "currency": "EUR"} | more)


def _mismatch(wish: PlaceOrder, known: dict[str, Any]) -> Any:
    with pytest.raises(Mismatch) as caught:
        draft_order(wish, known, customer_id="anna", now=_NOW)
    return caught.value.error


_LINES = st.dictionaries(
    st.from_regex(r"[A-Z0-9][A-Z0-9_-]{0,6}", fullmatch=True), st.tuples(st.integers(1, 10_000), st.integers(0, 10**12)), min_size=1, max_size=8
)


@settings(max_examples=40)
@given(_LINES)
def test_answer_event_and_row_say_the_same(lines: dict[str, tuple[int, int]]) -> None:
    wish = _wish(*((sku, count) for sku, (count, _) in lines.items()), note="hello")
    draft = draft_order(wish, {sku: _known(price) for sku, (_, price) in lines.items()} | {"OTHER-SKU": _known()}, customer_id="anna", now=_NOW)
    total = sum(count * price for count, price in lines.values())
    answer, event = OrderOut.model_validate_json(draft.answer.body), OrderPlaced.model_validate_json(draft.payload)
    assert draft.total_minor == answer.total_minor == event.total_minor == total
    assert [line["unit_price_minor"] for line in draft.lines] == [price for _, price in lines.values()]
    worded = [(number, sku, count, price) for number, (sku, (count, price)) in enumerate(lines.items(), start=1)]
    assert [(line.line_no, line.sku, line.quantity, line.unit_price_minor) for line in answer.lines] == worded
    assert [(line.line_no, line.sku, line.quantity, line.unit_price_minor) for line in event.lines] == worded
    assert str(draft.order_id) == answer.id == str(event.order_id)
    assert draft.customer_id == answer.customer_id == event.customer_id == "anna"
    assert draft.payload == event.model_dump_json().encode(), "written without the model, to the letter as the model writes it"


def test_the_answer_is_worded_once() -> None:
    draft = draft_order(_wish(("TEA", 2)), {"TEA": _known()}, customer_id="anna", now=_NOW)
    body = orjson.loads(draft.answer.body)
    assert draft.answer.status == 201
    assert not draft.answer.replayed
    assert draft.answer.headers == {"location": f"/v1/orders/{draft.order_id}", "etag": '"1.1"', "content-type": "application/json"}
    assert (body["status"], body["version"], body["note"], body["status_reason"]) == ("placed", 1, None, None)
    assert body["created_at"] == body["updated_at"] == "2030-01-02T03:04:05.000000Z"
    assert draft.created_at == _NOW


def test_each_draft_is_an_order_of_its_own() -> None:
    ids = [draft_order(_wish(("TEA", 1)), {"TEA": _known()}, customer_id="a", now=_NOW).order_id for _ in range(50)]
    assert len(set(ids)) == 50


def test_the_largest_order_fits_into_a_bigint() -> None:
    skus = [f"S{number}" for number in range(100)]
    draft = draft_order(_wish(*((sku, 10_000) for sku in skus)), {sku: _known(10**12) for sku in skus}, customer_id="a", now=_NOW)
    assert draft.total_minor == 10**18 < 2**63


@pytest.mark.parametrize(
    ("known", "pointer", "code"),
    [
        ({}, "/lines/1/sku", "unknown-sku"),
        ({"CUP": _known(active=False)}, "/lines/1/sku", "unknown-sku"),
        ({"CUP": _known(active=False, currency="USD")}, "/lines/1/sku", "unknown-sku"),
        ({"CUP": _known(currency="USD")}, "/currency", "currency-mismatch"),
    ],
)
def test_a_line_that_cannot_be_sold_is_named(known: dict[str, Any], pointer: str, code: str) -> None:
    error = _mismatch(_wish(("TEA", 1), ("CUP", 1), expected_total_minor=1), {"TEA": _known()} | known)
    assert isinstance(error, ValidationFailed), "before the total, which could not be known"
    assert [(found.pointer, found.code) for found in error.errors] == [(pointer, code)]


def test_every_wrong_line_is_named() -> None:
    error = _mismatch(_wish(("A", 1), ("B", 1), ("C", 1)), {"B": _known(currency="USD")})
    assert [found.pointer for found in error.errors] == ["/lines/0/sku", "/currency", "/lines/2/sku"]


@pytest.mark.parametrize("expected", [0, 499, 501])
def test_another_total_than_expected_tells_the_true_one(expected: int) -> None:
    error = _mismatch(_wish(("TEA", 2), expected_total_minor=expected), {"TEA": _known(250)})
    assert isinstance(error, PriceChanged)
    assert error.extra == {"total_minor": 500}


@pytest.mark.parametrize(("price", "expected"), [(250, 500), (0, 0), (250, None)])
def test_the_expected_total_or_none_is_fine(price: int, expected: int | None) -> None:
    wish = _wish(("TEA", 2), expected_total_minor=expected)
    assert draft_order(wish, {"TEA": _known(price)}, customer_id="anna", now=_NOW).total_minor == 2 * price
