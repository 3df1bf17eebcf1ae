"""`plumbline demo` keeps its promises on a running stack, any number of times, and says so when one is broken."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.dev.state import ROOT
from tests.stories.shop import Shop
from tests.support.servers import free_base_port

pytestmark = pytest.mark.alone  # all nine scenes, kills and outages among them, one after the other

_WAY = re.compile(r"^ +[\d.]+ s  (\w+)", re.MULTILINE)  # scene 6 tells a message's way: seconds, step


@pytest.mark.broker
async def test_the_demo_holds(shop: Shop) -> None:
    code, output = await shop.plumbline("demo")
    assert code == 0, output
    assert output.count("PASS") == 9
    assert "9 of 9 promises held" in output
    assert "FAIL" not in output
    told = _WAY.findall(output)
    assert told == ["retried", "due", "retried", "due", "dead", "replay", "handled"], output
    page = (ROOT / "docs" / "worker.md").read_text()
    assert _however_many_tiers(_WAY.findall(page)) == _however_many_tiers(told), "docs/worker.md shows another way than the tools print"
    await shop.holds()


def _however_many_tiers(steps: list[str]) -> str:
    """The stack of the page has three tiers, this one has two."""
    return re.sub(r"(retried due )+", "retried due ", " ".join(steps))


async def test_a_promise_that_does_not_hold_fails_the_demo(shop: Shop) -> None:
    await shop.dial(decline_rate=1.0)
    try:
        code, output = await shop.plumbline("demo", "--scene", "4", "--scene", "2")
    finally:
        await shop.dial(decline_rate=0.0)
    assert code == 1, output
    assert "0 of 2 promises held" in output
    assert output.count("ended rejected (payment_declined) instead of paid") == 2, output
    await shop.holds()


@pytest.mark.slow
async def test_where_no_stack_runs_the_demo_starts_one(shop: Shop, tmp_path: Path) -> None:
    """With limits, which the stories' stack runs without; `make test` sees this scene on the README's stack."""
    own = {"PLUMBLINE_HOME": str(tmp_path), "HTTP_PORT": str(free_base_port())}
    code, output = await shop.plumbline("demo", "--scene", "7", env=own)
    assert code == 0, output
    the_limit_is_shown(output)


def the_limit_is_shown(output: str) -> None:
    """Scene 7 saw a limit."""
    assert "1 of 1 promises held" in output
    assert re.search(r"\d+ answered, \d+ refused: 429, Retry-After \d+ s", output), output
    assert "lifted" not in output


async def test_an_unknown_scene_is_a_usage_error(shop: Shop) -> None:
    code, output = await shop.plumbline("demo", "--scene", "99")
    assert (code, "there is no scene 99" in output) == (2, True), output
