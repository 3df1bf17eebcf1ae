"""The closed model in locust: so many users, each waiting for its answer and thinking before it asks again.

Right for "what do N people with think time feel", wrong for "does it hold this rate": when the server slows
down, so do its users. The number of users follows the course's form (`LoadTestShape`).
"""

from __future__ import annotations

from typing import Any, ClassVar

from locust import LoadTestShape

from loadtests import users
from loadtests.crew import Crew
from loadtests.shapes import COURSES


def cast(mix: str, crew: Crew, *, think: bool) -> list[type[users.Actor]]:
    """The classes of a mix with their weights. `think` False: everybody asks again at once."""
    kinds = []
    for name, share in users.MIXES[mix].items():
        kind = users.KINDS[name]
        kind.weight, kind.crew = max(1, round(share)), crew
        if not think:
            kind.wait_time = lambda self: 0
        kinds.append(kind)
    return kinds


class ClosedShape(LoadTestShape):
    """Users over time, in the form of a course; ends the run."""

    abstract = True  # installed by hand: locust would use it in open runs too
    options: ClassVar[Any]

    def tick(self) -> tuple[int, float] | None:
        """How many users there should be now, and how fast to get there; None: the end."""
        at_s = self.get_run_time()
        course = COURSES[self.options.shape](float(self.options.num_users or 1), self.options.seconds)
        if at_s >= course.shape.seconds:
            return None
        return max(1, round(course.shape.rate(at_s))), 100.0
