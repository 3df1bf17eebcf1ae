"""Signals reach the processes they name, the supervisor brings back what was killed, and orders go on."""

from __future__ import annotations

import pytest

from tests.faults.control import StackControl, state_of, wait_for
from tests.faults.sweep import World


@pytest.fixture
def control(world: World) -> StackControl:
    return StackControl(world.home)


@pytest.mark.parametrize("name", ["relay", "redis"])
def test_a_killed_process_is_gone_and_replaced(control: StackControl, name: str) -> None:
    killed = control.kill(name)
    wait_for(lambda: state_of(killed) in {"", "Z"}, f"{name} survived")
    assert control.await_replaced(name, killed) != killed


def test_a_terminated_process_is_replaced(control: StackControl) -> None:
    ended = control.terminate("reaper")
    assert control.await_replaced("reaper", ended) != ended


def test_a_stopped_process_stops_and_goes_on(control: StackControl) -> None:
    with control.stopped("worker") as pid:
        wait_for(lambda: state_of(pid) == "T", "the worker was not stopped")
    wait_for(lambda: state_of(pid) in {"S", "R"}, "the worker did not go on")


def test_an_unknown_name_is_a_sentence(control: StackControl) -> None:
    with pytest.raises(LookupError, match="no process 'nobody'"):
        control.pid("nobody")
