"""`plumbline demo` keeps its promises on a running stack, any number of times, and says so when one is broken."""

from __future__ import annotations

from tests.stories.shop import Shop


async def test_the_demo_holds(shop: Shop) -> None:
    code, output = await shop.plumbline("demo")
    assert code == 0, output
    assert output.count("PASS") == 8
    assert "8 of 8 promises held" in output
    assert "FAIL" not in output
    await shop.holds()


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


async def test_an_unknown_scene_is_a_usage_error(shop: Shop) -> None:
    code, output = await shop.plumbline("demo", "--scene", "99")
    assert (code, "there is no scene 99" in output) == (2, True), output
