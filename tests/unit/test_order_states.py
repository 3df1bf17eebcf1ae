"""The table of states, pair by pair, against the drawing of the contract."""

from __future__ import annotations

import pytest

from service.events import TYPES
from service.models import ORDER_STATUSES
from service.orders.states import STEPS, TERMINAL, may

LEGAL = {
    ("reserve", "placed"): "reserved",
    ("sell_out", "placed"): "rejected",
    ("pay", "reserved"): "paid",
    ("decline", "reserved"): "rejected",
    ("ship", "paid"): "shipped",
    ("cancel", "placed"): "cancelled",
    ("cancel", "reserved"): "cancelled",
    ("cancel", "paid"): "cancelled",
    ("expire", "placed"): "expired",
    ("expire", "reserved"): "expired",
}


@pytest.mark.parametrize("status", ORDER_STATUSES)
@pytest.mark.parametrize("step", STEPS)
def test_every_pair(step: str, status: str) -> None:
    assert may(step, status) == ((step, status) in LEGAL)
    if may(step, status):
        assert STEPS[step].target == LEGAL[step, status]


def test_nothing_leaves_an_end_and_everything_else_does() -> None:
    assert frozenset({"rejected", "shipped", "cancelled", "expired"}) == TERMINAL
    leaving = {status for step in STEPS.values() for status in step.sources}
    assert leaving == set(ORDER_STATUSES) - TERMINAL


def test_each_step_says_the_event_of_its_target() -> None:
    for step in STEPS.values():
        assert step.event == f"order.{step.target}"
        assert step.event in TYPES


def test_a_charge_finds_the_order_in_the_same_statuses_whatever_becomes_of_it() -> None:
    assert STEPS["pay"].sources == STEPS["decline"].sources, "settle_charge.sql moves both by one list"
