"""The named shapes of a run: how the rate moves, and which part of it the objectives are about.

A spike says when it rises and falls, so that recovery can be measured; an outage says when the dependency is cut.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from loadtests.arrivals import Leg, Shape

_RISE_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Course:
    """A shape, and the seconds in which something is done to the system (spike or outage); (0, 0): nothing is."""

    shape: Shape
    event_s: tuple[float, float] = (0.0, 0.0)


def steady(rate: float, seconds: float) -> Course:
    """One rate."""
    return Course(Shape([Leg(seconds, rate, rate)]))


def ramp(rate: float, seconds: float) -> Course:
    """From a tenth of the rate to the rate, then a fifth of the time at the rate."""
    return Course(Shape([Leg(seconds * 0.8, rate / 10, rate), Leg(seconds * 0.2, rate, rate)]))


def step(rate: float, seconds: float) -> Course:
    """Five equal steps up to the rate."""
    return Course(Shape([Leg(seconds / 5, rate * k / 5, rate * k / 5) for k in range(1, 6)]))


def spike(rate: float, seconds: float) -> Course:
    """A fifth of the rate, a jump to the rate for a fifth of the time, and back: is it well again, and how soon?"""
    calm, high = rate / 5, seconds / 5
    before = (seconds - high) * 0.4
    after = seconds - before - high - 2 * _RISE_S
    legs = [Leg(before, calm, calm), Leg(_RISE_S, calm, rate), Leg(high, rate, rate), Leg(_RISE_S, rate, calm), Leg(after, calm, calm)]
    return Course(Shape(legs), (before, before + high + 2 * _RISE_S))


def outage(rate: float, seconds: float) -> Course:
    """Steady, with 5 s in the middle during which a dependency is away."""
    return Course(Shape([Leg(seconds, rate, rate)]), (seconds / 2 - 2.5, seconds / 2 + 2.5))


def stress(rate: float, seconds: float) -> Course:
    """From a tenth of the rate upwards until something gives."""
    return Course(Shape([Leg(seconds, rate / 10, rate)]))


COURSES: Final[dict[str, Callable[[float, float], Course]]] = {
    "steady": steady, "ramp": ramp, "step": step, "spike": spike, "outage": outage, "stress": stress,
}  # fmt: skip
