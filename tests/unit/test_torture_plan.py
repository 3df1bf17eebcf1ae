"""The torture's schedule is the seed's alone, has room for every kind, and overlaps; the planted bugs still fit the code."""

from __future__ import annotations

import subprocess

import pytest

from service.dev.state import ROOT
from tests.faults.checker.checks import CHECKS
from tests.torture.faults import kinds_for
from tests.torture.mutants import Mutant, mutants
from tests.torture.nemesis import Step, plan

SEEDS = range(40)
MEMORY = kinds_for("memory")


def _spans(steps: list[Step]) -> list[tuple[float, float, str]]:
    return [(step.at_s, step.at_s + (step.seconds or 1.5), step.kind.slot) for step in steps]


def test_one_seed_is_one_schedule() -> None:
    assert plan(7, 60, MEMORY) == plan(7, 60, MEMORY)
    assert plan(7, 60, MEMORY) != plan(8, 60, MEMORY)


@pytest.mark.parametrize("broker", ["memory", "real"])
def test_a_minute_has_room_for_every_kind(broker: str) -> None:
    kinds = kinds_for(broker)  # type: ignore[arg-type]
    for seed in SEEDS:
        assert {step.kind.name for step in plan(seed, 60, kinds)} == {kind.name for kind in kinds}


def test_there_are_thirty_faults_a_minute_and_four_in_ten_meet_another() -> None:
    for seed in SEEDS:
        spans = _spans(plan(seed, 60, MEMORY))
        met = sum(any(a is not b and a[0] < b[1] and b[0] < a[1] for b in spans) for a in spans)
        assert len(spans) >= 30
        assert met / len(spans) >= 0.4, seed


def test_faults_of_one_slot_exclude_each_other() -> None:
    for seed in SEEDS:
        spans = sorted(_spans(plan(seed, 60, MEMORY)))
        for number, (begin, end, slot) in enumerate(spans):
            assert not [other for other in spans[number + 1 :] if other[2] == slot and other[0] < min(end, 60) and begin < 60 and other[0] < 60]


def test_there_are_twelve_planted_bugs_or_more() -> None:
    assert len(mutants()) >= 12


@pytest.mark.parametrize("mutant", mutants(), ids=lambda mutant: mutant.name)
def test_a_planted_bug_fits_the_code_and_names_promises(mutant: Mutant) -> None:
    done = subprocess.run(["git", "apply", "--check", str(mutant.patch)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"plant it anew: {done.stderr}"
    assert mutant.text
    assert set(mutant.promises) <= {check.name for check in CHECKS}
