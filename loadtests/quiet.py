"""A step of a search is worth its time only on a quiet machine: wait for one, and repeat a step that was disturbed.

Waiting makes nothing valid: a step that was disturbed in spite of it is measured again, and after the last try its
reason ends the search (exit 2). Only what held although it was disturbed may be believed: what others take from a
machine makes no service faster. Test: `tests/unit/test_load_quiet.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import psutil

from loadtests.report.terminal import reason
from loadtests.run import Run
from loadtests.verdict import Check

TRIES: Final = 3
_PATIENCE_S: Final = 40.0
_BUSY: Final = 25.0  # percent of the machine: an idle stack with a JVM takes about ten


def await_quiet(*, load: Callable[[], float] = lambda: float(psutil.cpu_percent(interval=1)), clock: Callable[[], float] = time.monotonic) -> bool:
    """Until the machine was idle for two seconds in a row, at most 40 s. `load`: percent over the second it takes."""
    deadline, calm = clock() + _PATIENCE_S, 0
    while calm < 2 and clock() < deadline:
        calm = calm + 1 if load() < _BUSY else 0
    return calm >= 2


def disturbances(run: Run) -> list[Check]:
    """What made the run invalid."""
    return [check for check in run.checks if check.kind == "validity" and not check.holds]


def held_anyway(run: Run) -> bool:
    """All objectives were met and every arrival was offered, disturbed or not: true of the undisturbed service too."""
    return not run.recorder.dispatch.dropped and all(check.holds for check in run.checks if check.kind == "objective")


def undisturbed(
    step: Callable[[], Run], *, tries: int = TRIES, believe: Callable[[Run], bool] = lambda _: False,
    wait: Callable[[], bool] = await_quiet, say: Callable[[str], None] = print,
) -> Run:  # fmt: skip
    """`step` (measured and judged), again while it was invalid and not to be believed; the last one, whatever it was."""
    for left in reversed(range(tries)):
        wait()
        run = step()
        found = disturbances(run)
        if not found or believe(run):
            break
        say(f"  invalid: {'; '.join(reason(check) for check in found)}" + ("; once more" if left else ""))
    return run
