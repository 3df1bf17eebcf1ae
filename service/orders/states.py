"""The order's life as one pure table: which step may be taken from which status.

Nothing else in the project decides whether a transition is legal; SQL guards are built from here
(`reserve_stock.sql` takes `reserve` and `sell_out` in one statement). tests/unit/test_order_states.py walks every pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Step:
    """A transition: legal from `sources`, ends in `target`, announced as `event`."""

    sources: tuple[str, ...]
    target: str
    event: str


STEPS: Final[dict[str, Step]] = {
    "reserve": Step(("placed",), "reserved", "order.reserved"),
    "sell_out": Step(("placed",), "rejected", "order.rejected"),
    "pay": Step(("reserved",), "paid", "order.paid"),
    "decline": Step(("reserved",), "rejected", "order.rejected"),
    "ship": Step(("paid",), "shipped", "order.shipped"),
    "cancel": Step(("placed", "reserved", "paid"), "cancelled", "order.cancelled"),
    "expire": Step(("placed", "reserved"), "expired", "order.expired"),
}

# Not decided yet: the reaper looks at these, and `closed_at` is empty.
WAITING: Final = frozenset({"placed", "reserved"})
TERMINAL: Final = frozenset({"rejected", "shipped", "cancelled", "expired"})


def may(step: str, status: str) -> bool:
    """True if `step` is legal from `status`."""
    return status in STEPS[step].sources
