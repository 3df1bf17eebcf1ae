"""The soak's judge: what stays is let be, and each thing that grows is named."""

from __future__ import annotations

import pytest

from tests.torture.soak import BOUNDS, grown, growth, quarters, slope_a_minute


def _run(**last: float) -> list[dict[str, float]]:
    """Ten minutes of samples, level 1,000; what is named rises in the last quarter to what it says."""
    names = [bound.name for bound in BOUNDS]
    return [{"at": float(at), **{name: last.get(name, 1000.0) if at >= 450 else 1000.0 for name in names}} for at in range(600)]


def test_what_stays_is_let_be() -> None:
    assert grown(growth(_run())) == []


@pytest.mark.parametrize("bound", BOUNDS, ids=lambda bound: bound.name)
def test_each_thing_that_grows_is_named(bound: object) -> None:
    assert isinstance(bound, type(BOUNDS[0]))
    most = bound.times * 1000 + bound.slack
    assert grown(growth(_run(**{bound.name: most}))) == []
    found = grown(growth(_run(**{bound.name: most + 1})))
    assert len(found) == 1
    assert bound.what in found[0]


def test_a_slope_is_per_minute_and_of_the_second_half() -> None:
    rising = [{"at": float(at), "memory_mib": 500 + max(0, at - 300) / 60} for at in range(600)]
    assert slope_a_minute(rising, "memory_mib") == pytest.approx(1.0, rel=0.01)
    assert slope_a_minute(rising[:300], "memory_mib") == 0.0
    assert slope_a_minute([], "memory_mib") == 0.0


def test_moments_without_a_figure_are_left_out() -> None:
    assert quarters([{"at": 0.0}, {"at": 1.0, "dead": 2.0}, {"at": 2.0}], "dead") == (2.0, 2.0)
