"""What a run is to be: model, course, people, and what is done to the system meanwhile. Named scenarios with their defaults."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from loadtests.shapes import COURSES, Course

Dependency = Literal["", "kafka", "redis", "psp", "postgres"]


@dataclass(frozen=True, slots=True)
class Plan:
    """One run. `rate`: arrivals a second (open); `users`: people (closed)."""

    name: str
    shape: str = "steady"
    rate: float = 20.0
    seconds: float = 30.0
    mix: str = "shop"
    model: Literal["open", "closed"] = "open"
    users: int = 0
    think: bool = True
    poisson: bool = False
    processes: int = 1
    pool: int = 400
    customers: int = 100
    seed: int = 1
    cut: Dependency = ""  # this dependency is away during the course's event
    count_errors: bool = True  # False: refusals are the point of the run
    profile: Literal["default", "load"] = "load"

    @property
    def course(self) -> Course:
        return COURSES[self.shape](float(self.users) if self.model == "closed" else self.rate, self.seconds)

    @property
    def open_model(self) -> bool:
        return self.model == "open"

    def arguments(self) -> list[str]:
        """For the generator's command line."""
        words = ["--model", self.model, "--shape", self.shape, "--seconds", f"{self.seconds:g}", "--mix", self.mix, "--seed", str(self.seed)]
        words += ["--pool", str(self.pool), "--customers", str(self.customers), "--generators", str(self.processes)]
        words += ["--rate", f"{self.rate:g}", "-u", str(self.processes), "-r", "100"] if self.open_model else ["-u", str(self.users)]
        words += ["--poisson"] * self.poisson + ["--no-think"] * (not self.think)
        return words + (["--processes", str(self.processes)] if self.processes > 1 else [])

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"event_s": list(self.course.event_s)}


SCENARIOS: Final[dict[str, Plan]] = {
    plan.name: plan
    for plan in (
        Plan("smoke", rate=20, seconds=12),
        Plan("steady", rate=50, seconds=30, poisson=True),
        Plan("ramp", "ramp", rate=100, seconds=40),
        Plan("spike", "spike", rate=100, seconds=40),
        Plan("soak", rate=30, seconds=600, poisson=True),
        Plan("hotkey", rate=40, seconds=20, mix="hotkey"),
        Plan("stress", "stress", rate=400, seconds=40, mix="buy", count_errors=False),
        Plan("outage", "outage", rate=20, seconds=25, mix="buy", cut="kafka"),
        Plan("retry-storm", "outage", rate=30, seconds=25, mix="retry", cut="postgres", count_errors=False),
        Plan("abuse", rate=100, seconds=10, mix="abuse", profile="default", count_errors=False),
    )
}
