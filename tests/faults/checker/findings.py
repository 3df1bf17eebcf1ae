"""What a check says: how much it looked at, what it found, and how sure nothing can make one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tests.faults.checker.evidence import Evidence


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise. `subject`: the order, key, principal or process whose timeline tells the story; `at`: when, if known."""

    subject: str
    detail: str
    at: float = 0.0


@dataclass(slots=True)
class Verdict:
    """One check's result; `checked` counts what could have broken the promise."""

    checked: int = 0
    violations: list[Violation] = field(default_factory=list)

    def expect(self, held: bool, subject: object, detail: str, *, at: float = 0.0) -> None:  # noqa: FBT001 - reads as a sentence at the call
        """Count one chance, and a violation unless `held`."""
        self.checked += 1
        if not held:
            self.violations.append(Violation(str(subject), detail, at))

    @property
    def upper_bound(self) -> float:
        """95 % upper bound of the true rate when none of `checked` failed: the rule of three."""
        return min(1.0, 3 / self.checked) if self.checked else 1.0


@dataclass(frozen=True, slots=True)
class Check:
    """A named promise and the function that judges it."""

    name: str
    text: str
    judge: Callable[[Evidence], Verdict]


def by(rows: Iterable[dict[str, object]], *names: str) -> dict[object, list[dict[str, object]]]:
    """Rows grouped by one column, or by a tuple of several."""
    grouped: dict[object, list[dict[str, object]]] = {}
    for row in rows:
        key = row[names[0]] if len(names) == 1 else tuple(row[name] for name in names)
        grouped.setdefault(key, []).append(row)
    return grouped
