"""The table of order states, pair by pair, against the drawing in the domain."""

from __future__ import annotations

import pytest

from service.models import ORDER_STATUSES
from service.orders.states import STEPS, TERMINAL, may

_LEGAL = {
    "reserve": {"placed"}, "sell_out": {"placed"}, "pay": {"reserved"}, "decline": {"reserved"},
    "ship": {"paid"}, "cancel": {"placed", "reserved", "paid"}, "expire": {"placed", "reserved"},
}  # fmt: skip


@pytest.mark.parametrize("status", ORDER_STATUSES)
@pytest.mark.parametrize("step", STEPS)
def test_every_pair_is_as_drawn(step: str, status: str) -> None:
    assert may(step, status) is (status in _LEGAL[step])


def test_no_step_leaves_a_terminal_status() -> None:
    assert not [(name, status) for name, step in STEPS.items() for status in step.sources if status in TERMINAL]


def test_every_step_ends_in_a_known_status_and_says_so() -> None:
    assert {step.target for step in STEPS.values()} <= set(ORDER_STATUSES)
    assert all(step.event == f"order.{step.target}" for step in STEPS.values())
