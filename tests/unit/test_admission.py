"""Admission in virtual time: lanes, order, timeouts and cancellations; no slot is ever lost or given twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

import pytest

from service.errors import Overloaded
from service.foundation.metrics import registry
from service.web.admission import Admission, Lane
from tests.support.virtual_time import VirtualLoop

_WAIT_S = 0.1


def _run(story: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(story)


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _fill(admission: Admission) -> None:
    for _ in range(admission.limit):
        await admission.enter("critical")


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("limit", "lane", "slots"), [(20, "critical", 20), (20, "normal", 17), (20, "sheddable", 12), (1, "sheddable", 1), (1, "normal", 1)]
)
def test_each_lane_has_its_share(limit: int, lane: Lane, slots: int) -> None:
    async def story() -> None:
        admission = Admission(limit, wait_s=_WAIT_S)
        for _ in range(slots):
            await admission.enter(lane)
        assert _now() == 0
        with pytest.raises(Overloaded):
            await admission.enter(lane)
        assert _now() == pytest.approx(_WAIT_S), "waited as long as it may, and no longer"
        assert admission.in_flight == slots

    _run(story())


def test_lists_cannot_take_the_slots_of_writes() -> None:
    async def story() -> None:
        admission = Admission(20, wait_s=_WAIT_S)
        for _ in range(12):
            await admission.enter("sheddable")
        for _ in range(8):
            await admission.enter("critical")
        assert (_now(), admission.in_flight) == (0, 20)

    _run(story())


def test_the_important_lane_goes_first_and_within_a_lane_who_came_first() -> None:
    async def story() -> None:
        admission, entered = Admission(4, wait_s=_WAIT_S), []
        await _fill(admission)

        async def visit(lane: Lane, name: str) -> None:
            await admission.enter(lane)
            entered.append(name)

        lanes: list[tuple[Lane, str]] = [("sheddable", "s1"), ("normal", "n1"), ("critical", "c1"), ("critical", "c2"), ("normal", "n2")]
        visits = [asyncio.create_task(visit(lane, name)) for lane, name in lanes]
        await _settle()
        assert entered == []
        admission.leave()
        admission.leave()
        await _settle()
        assert entered == ["c1", "c2"]
        for _ in range(5):  # down to one in flight, where even a list may enter
            admission.leave()
        await asyncio.gather(*visits)
        assert entered == ["c1", "c2", "n1", "n2", "s1"]
        assert _now() < _WAIT_S

    _run(story())


def test_with_one_slot_for_all_the_important_lane_still_goes_first() -> None:
    async def story() -> None:
        admission, entered = Admission(1, wait_s=_WAIT_S), []
        await _fill(admission)

        async def visit(lane: Lane) -> None:
            await admission.enter(lane)
            entered.append(lane)
            admission.leave()

        lanes: list[Lane] = ["sheddable", "normal", "critical"]
        visits = [asyncio.create_task(visit(lane)) for lane in lanes]
        await _settle()
        admission.leave()
        await asyncio.gather(*visits)
        assert entered == ["critical", "normal", "sheddable"]

    _run(story())


def test_a_newcomer_does_not_overtake_who_waits() -> None:
    async def story() -> None:
        admission, entered = Admission(1, wait_s=_WAIT_S), []
        await _fill(admission)

        async def visit(name: str) -> None:
            await admission.enter("critical")
            entered.append(name)

        first = asyncio.create_task(visit("first"))
        await _settle()
        admission.leave()
        second = asyncio.create_task(visit("second"))
        await first
        admission.leave()
        await second
        assert entered == ["first", "second"]

    _run(story())


def test_who_gives_up_leaves_no_trace() -> None:
    async def story() -> None:
        admission = Admission(1, wait_s=_WAIT_S)
        await _fill(admission)
        waiting = asyncio.create_task(admission.enter("critical"))
        await _settle()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (admission.in_flight, len(admission._waiting["critical"])) == (1, 0)
        admission.leave()
        assert admission.in_flight == 0

    _run(story())


def test_a_slot_handed_to_somebody_cancelled_in_that_moment_goes_to_the_next() -> None:
    async def story() -> None:
        admission = Admission(1, wait_s=_WAIT_S)
        await _fill(admission)
        unlucky, next_one = (asyncio.create_task(admission.enter("critical")) for _ in range(2))
        await _settle()
        admission.leave()
        unlucky.cancel()
        await next_one
        assert unlucky.cancelled()
        assert (_now(), admission.in_flight) == (0, 1)

    _run(story())


def test_a_slot_handed_over_as_the_wait_ends_is_kept() -> None:
    async def story() -> None:
        admission = Admission(1, wait_s=_WAIT_S)
        await _fill(admission)
        asyncio.get_running_loop().call_at(_now() + _WAIT_S, admission.leave)
        await admission.enter("critical")
        assert (_now(), admission.in_flight) == (pytest.approx(_WAIT_S), 1)

    _run(story())


def test_the_gauge_says_what_is_held_also_when_nothing_comes_any_more() -> None:
    async def story() -> None:
        admission = Admission(2, wait_s=_WAIT_S)
        shown = [registry.get_sample_value("orders_admission_in_flight")]
        await admission.enter("critical")
        shown.append(registry.get_sample_value("orders_admission_in_flight"))
        admission.leave()
        assert [*shown, registry.get_sample_value("orders_admission_in_flight")] == [0, 1, 0]

    _run(story())


def test_looking_refuses_only_when_waiting_would_be_pointless() -> None:
    async def story() -> None:
        admission = Admission(2, wait_s=_WAIT_S)
        await _fill(admission)
        admission.look("critical")
        waiting = [asyncio.create_task(admission.enter("critical")) for _ in range(2)]
        await _settle()
        with pytest.raises(Overloaded):
            admission.look("critical")
        admission.look("sheddable")
        await asyncio.gather(*waiting, return_exceptions=True)
        admission.look("critical")

    _run(story())


def test_bodies_being_received_are_bounded_apart_from_the_slots() -> None:
    admission = Admission(1, wait_s=_WAIT_S)
    for _ in range(512):
        admission.begin_receiving()
    with pytest.raises(Overloaded):
        admission.begin_receiving()
    admission.end_receiving()
    admission.begin_receiving()
    assert admission.in_flight == 0


@pytest.mark.parametrize("seed", range(30))
def test_no_slot_is_lost_or_given_twice_in_a_storm(seed: int) -> None:
    async def story() -> None:
        luck, admission, inside = random.Random(seed), Admission(7, wait_s=_WAIT_S), []

        async def visit(number: int) -> str:
            # Times on a coarse grid, so that ends of waits, departures and cancellations meet in one turn of the loop.
            await asyncio.sleep(luck.randint(0, 20) / 40)
            try:
                await admission.enter(luck.choice(["critical", "normal", "sheddable"]))
            except Overloaded:
                return "shed"
            inside.append(number)
            try:
                assert len(inside) <= admission.in_flight <= 7
                await asyncio.sleep(luck.randint(0, 6) / 40)
            finally:
                inside.remove(number)
                admission.leave()
            return "served"

        visits = [asyncio.create_task(visit(number)) for number in range(120)]
        for victim in luck.sample(visits, 30):
            asyncio.get_running_loop().call_at(luck.randint(0, 30) / 40, victim.cancel)
        outcomes = await asyncio.gather(*visits, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} <= {str, asyncio.CancelledError}
        assert {"served", "shed"} <= {outcome for outcome in outcomes if isinstance(outcome, str)}
        assert admission.in_flight == 0
        assert not any(admission._waiting.values())
        await _fill(admission)
        assert admission.in_flight == 7, "all slots are still there"

    _run(story())
