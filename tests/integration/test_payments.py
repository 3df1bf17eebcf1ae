"""Money under crashes, cancels and duplicates: G6 in our rows and in the provider's book, whichever provider it is."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
import uvicorn
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.dev.psp import create_provider
from service.foundation import failpoints
from service.orders.operations import move
from service.payments import HttpProvider, Money, ProviderAway, ProviderError
from service.settings import Settings
from service.web.health import QuietServer
from tests.integration.facts import Facts
from tests.integration.workshop import DeskProvider, Workshop, open_desk


@pytest.fixture(params=["desk", "http"])
async def shop(request: pytest.FixtureRequest, db: Any, settings: Settings, login: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Workshop]:
    """The handlers with the in-process provider, and with the HTTP client against the fake provider's app."""
    desk = open_desk(settings, f"payments-{request.param}")
    if request.param == "desk":
        yield Workshop(db, settings, login, desk, DeskProvider(desk))
        return
    monkeypatch.setattr("service.dev.psp.Provider", lambda ledger, dials: desk)
    async with over(settings, create_provider(settings.app.home / "unused")) as provider:
        yield Workshop(db, settings, login, desk, provider)


@contextlib.asynccontextmanager
async def over(settings: Settings, app: ASGIApp) -> AsyncIterator[HttpProvider]:
    """The HTTP client against an app on a port of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = QuietServer(uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    async with provider_at(settings, listener.getsockname()[1]) as made:
        yield made
    server.should_exit = True
    await task


@contextlib.asynccontextmanager
async def provider_at(settings: Settings, port: int) -> AsyncIterator[HttpProvider]:
    made = HttpProvider(settings.payments.model_copy(update={"url": f"http://127.0.0.1:{port}", "timeout_ms": 300}))
    yield made
    await made.close()


async def states(facts: Facts, order_id: str) -> list[tuple[str, str]]:
    return [tuple(row) for row in await facts.rows("SELECT kind, state FROM payment WHERE order_id = $1 ORDER BY kind", UUID(order_id))]


async def test_a_reserved_order_is_charged_once_and_paid(shop: Workshop, facts: Facts) -> None:
    order_id = await shop.reserved()
    reserved = await shop.event(order_id, "order.reserved")
    assert [await shop.handle("payments", reserved) for _ in range(3)] == ["applied", "duplicate", "duplicate"]
    assert await shop.status(order_id) == ("paid", None)
    assert await states(facts, order_id) == [("charge", "captured")]
    await shop.assert_money_adds_up(order_id)


async def test_ten_deliveries_at_once_charge_once(shop: Workshop, facts: Facts) -> None:
    order_id = await shop.reserved()
    reserved = await shop.event(order_id, "order.reserved")
    outcomes = await asyncio.gather(*(shop.handle("payments", reserved) for _ in range(10)))
    assert outcomes.count("applied") == 1
    assert await facts.events(order_id) == [("order.placed", 1), ("order.reserved", 2), ("order.paid", 3)]
    await shop.assert_money_adds_up(order_id)


async def test_a_declined_charge_rejects_and_gives_the_stock_back(shop: Workshop, facts: Facts) -> None:
    sku = await facts.add_product(price_minor=113, pieces=5)
    shop.desk.dials.magic_totals = True
    order_id = await shop.reserved((sku, 1))
    assert await shop.tell(order_id, "order.reserved", "payments") == ["applied"]
    assert await shop.status(order_id) == ("rejected", "payment_declined")
    await shop.settle([order_id])
    assert await facts.stock(sku) == 5
    assert await states(facts, order_id) == [("charge", "declined")]
    await shop.assert_money_adds_up(order_id)


@pytest.mark.parametrize("point", ["after-intent", "after-charge-before-settle"])
async def test_a_crash_repeats_the_same_key(shop: Workshop, facts: Facts, point: str) -> None:
    order_id = await shop.reserved()
    failpoints.arm([f"{point}=error"])
    with pytest.raises(failpoints.FailpointError):
        await shop.tell(order_id, "order.reserved", "payments")
    assert await states(facts, order_id) == [("charge", "started")], "the intent is there, the inbox row is not"
    assert await shop.tell(order_id, "order.reserved", "payments") == ["applied"]
    assert await shop.status(order_id) == ("paid", None)
    await shop.assert_money_adds_up(order_id)


@pytest.mark.parametrize("point", ["after-intent", "after-charge-before-settle"])
async def test_a_crash_that_meets_a_cancel_leaves_no_money(shop: Workshop, facts: Facts, point: str) -> None:
    order_id = await shop.reserved()
    failpoints.arm([f"{point}=error"])
    with pytest.raises(failpoints.FailpointError):
        await shop.tell(order_id, "order.reserved", "payments")
    await shop.cancel(order_id)
    assert await shop.tell(order_id, "order.cancelled", "payments") == ["applied"]
    assert await shop.tell(order_id, "order.reserved", "payments") == ["superseded"]
    assert await shop.status(order_id) == ("cancelled", None)
    refunded = point == "after-charge-before-settle"
    assert await states(facts, order_id) == ([("charge", "captured"), ("refund", "refunded")] if refunded else [("charge", "voided")])
    assert (await facts.events(order_id))[-1][0] == ("order.refunded" if refunded else "order.cancelled")
    await shop.assert_money_adds_up(order_id)


@pytest.mark.parametrize("charged", [True, False])
async def test_a_crash_after_the_void_repeats_it(shop: Workshop, facts: Facts, *, charged: bool) -> None:
    order_id = await shop.reserved()
    failpoints.arm([] if charged else ["after-intent=error"])
    with contextlib.nullcontext() if charged else pytest.raises(failpoints.FailpointError):
        await shop.tell(order_id, "order.reserved", "payments")
    await shop.cancel(order_id)
    failpoints.arm(["after-void-before-record=error"])
    with pytest.raises(failpoints.FailpointError):
        await shop.tell(order_id, "order.cancelled", "payments")
    assert [(await shop.tell(order_id, "order.cancelled", "payments"))[0] for _ in range(2)] == ["applied", "duplicate"]
    assert await states(facts, order_id) == ([("charge", "captured"), ("refund", "refunded")] if charged else [("charge", "voided")])
    await shop.assert_money_adds_up(order_id)


async def test_a_crash_after_the_refund_makes_no_second_one(shop: Workshop, facts: Facts) -> None:
    order_id = await shop.reserved()
    await shop.tell(order_id, "order.reserved", "payments")
    await shop.cancel(order_id)
    refund = shop.provider.refund

    async def lost(key: str, order: UUID, money: Money) -> str:
        await refund(key, order, money)
        shop.provider.refund = refund  # type: ignore[method-assign]
        raise ConnectionResetError("killed before it could write it down")

    shop.provider.refund = lost  # type: ignore[method-assign]
    with pytest.raises(ConnectionResetError):
        await shop.tell(order_id, "order.cancelled", "payments")
    assert await states(facts, order_id) == [("charge", "captured")], "the provider has refunded, our rows do not know it yet"
    assert await shop.tell(order_id, "order.cancelled", "payments") == ["applied"]
    assert await states(facts, order_id) == [("charge", "captured"), ("refund", "refunded")]
    await shop.assert_money_adds_up(order_id)


async def test_a_decline_that_meets_a_cancel_stays_a_cancel(shop: Workshop, facts: Facts) -> None:
    sku = await facts.add_product(price_minor=113, pieces=5)
    shop.desk.dials.magic_totals = True
    order_id = await shop.reserved((sku, 1))
    failpoints.arm(["after-charge-before-settle=error"])
    with pytest.raises(failpoints.FailpointError):
        await shop.tell(order_id, "order.reserved", "payments")
    await shop.cancel(order_id)
    assert await shop.tell(order_id, "order.cancelled", "payments") == ["applied"]
    assert await shop.tell(order_id, "order.reserved", "payments") == ["superseded"]
    await shop.settle([order_id])
    assert (await shop.status(order_id), await facts.stock(sku)) == (("cancelled", None), 5)
    assert await states(facts, order_id) == [("charge", "declined")]
    await shop.assert_money_adds_up(order_id)


async def test_a_cancel_heard_first_means_no_charge_at_all(shop: Workshop, facts: Facts) -> None:
    order_id = await shop.reserved()
    await shop.cancel(order_id)
    assert await shop.tell(order_id, "order.cancelled", "payments") == ["superseded"]
    assert await shop.tell(order_id, "order.reserved", "payments") == ["superseded"]
    assert await states(facts, order_id) == []
    assert f"charge:{order_id}" not in shop.desk.ledger.charges
    await shop.assert_money_adds_up(order_id)


async def test_a_charge_that_arrives_after_its_void_is_refused(shop: Workshop, facts: Facts) -> None:
    order_id = await shop.reserved()
    charge, order = shop.provider.charge, UUID(order_id)

    async def late(key: str, _: UUID, money: Money) -> str:
        await shop.cancel(order_id)
        assert await shop.tell(order_id, "order.cancelled", "payments") == ["applied"]
        return await charge(key, order, money)

    shop.provider.charge = late  # type: ignore[method-assign]
    assert await shop.tell(order_id, "order.reserved", "payments") == ["superseded"]
    assert await states(facts, order_id) == [("charge", "voided")]
    await shop.assert_money_adds_up(order_id)


@pytest.mark.parametrize("point", ["after-intent", "after-charge-before-settle"])
async def test_an_expired_order_is_settled_like_a_cancelled_one(shop: Workshop, facts: Facts, point: str) -> None:
    order_id = await shop.reserved()
    failpoints.arm([f"{point}=error"])
    with pytest.raises(failpoints.FailpointError):
        await shop.tell(order_id, "order.reserved", "payments")
    async with shop.db.transaction() as connection:
        assert await move(connection, UUID(order_id), "expire", reason="not finished in time")
    await shop.settle([order_id])
    refunded = point == "after-charge-before-settle"
    assert await states(facts, order_id) == ([("charge", "captured"), ("refund", "refunded")] if refunded else [("charge", "voided")])
    await shop.assert_money_adds_up(order_id)


@pytest.mark.parametrize(("known", "status"), [(True, "paid"), (False, "rejected")])
async def test_an_old_intent_is_looked_up_never_repeated(shop: Workshop, facts: Facts, status: str, *, known: bool) -> None:
    order_id = await shop.reserved()
    failpoints.arm([f"{'after-charge-before-settle' if known else 'after-intent'}=error"])
    with pytest.raises(failpoints.FailpointError):
        await shop.tell(order_id, "order.reserved", "payments")
    await facts.run("UPDATE payment SET created_at = now() - interval '25 hours' WHERE order_id = $1", UUID(order_id))
    booked = dict(shop.desk.ledger.charges)
    await shop.settle([order_id])
    assert shop.desk.ledger.charges == booked, "no charge was sent"
    assert (await shop.status(order_id))[0] == status
    await shop.assert_money_adds_up(order_id)


async def test_cancels_racing_charges_always_add_up(shop: Workshop) -> None:
    dice = random.Random(23)
    orders = [await shop.reserved() for _ in range(24)]

    async def race(order_id: str) -> None:
        reserved = await shop.event(order_id, "order.reserved")

        async def undo() -> None:
            await asyncio.sleep(dice.uniform(0, 0.02))
            answer = await shop.login("workshop").cancel({"id": order_id, "version": 2})
            if answer.status_code == 200:
                await shop.tell(order_id, "order.cancelled", "payments")

        await asyncio.gather(shop.handle("payments", reserved), undo())

    for start in range(0, len(orders), 4):
        await asyncio.gather(*(race(order) for order in orders[start : start + 4]))
    await shop.settle(orders)
    await shop.assert_money_adds_up(*orders)
    assert {(await shop.status(order))[0] for order in orders} <= {"paid", "cancelled"}


class Weather:
    """A provider that answers as told; never, if told nothing."""

    def __init__(self, answer: Response | None) -> None:
        self.answer, self.calls = answer, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls += 1
        assert (scope["method"], scope["path"]) == ("POST", "/charge")
        if self.answer is None:
            await receive()
            await receive()  # until the caller has gone
        else:
            await self.answer(scope, receive, send)


ANSWERS = {
    "timeout": None,
    "500": Response(status_code=500),
    "400": Response(b"{}", 400),
    "a redirect": RedirectResponse("/charge"),
    "unknown state": Response(b'{"state": "pending"}'),
    "no JSON": Response(b"<html>"),
    "a list": Response(b"[]"),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_that_is_no_state_is_this_orders_problem(settings: Settings, name: str) -> None:
    async with over(settings, Weather(ANSWERS[name])) as provider:
        with pytest.raises(ProviderError):
            await provider.charge("charge:x", UUID(int=1), Money(1, "EUR"))


async def test_a_provider_that_ends_the_connection_is_this_orders_problem(settings: Settings) -> None:
    hung_up = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with hung_up, provider_at(settings, hung_up.sockets[0].getsockname()[1]) as provider:
        with pytest.raises(ProviderError):
            await provider.charge("charge:x", UUID(int=1), Money(1, "EUR"))


@pytest.mark.parametrize("backlog", [None, 0], ids=["refused", "not accepted in time"])
async def test_a_provider_that_is_not_reached_is_nobodys_fault(settings: Settings, backlog: int | None) -> None:
    with contextlib.ExitStack() as sockets:
        deaf = sockets.enter_context(socket.socket())
        deaf.bind(("127.0.0.1", 0))
        if backlog is not None:
            deaf.listen(backlog)
            for _ in range(2):  # as many as wait to be accepted: the next one's handshake is not answered
                waiting = sockets.enter_context(socket.socket())
                waiting.setblocking(False)  # noqa: FBT003 - its one parameter
                waiting.connect_ex(deaf.getsockname())
        async with provider_at(settings, deaf.getsockname()[1]) as provider:
            with pytest.raises(ProviderAway):
                await provider.charge("charge:x", UUID(int=1), Money(1, "EUR"))


async def test_a_provider_that_keeps_failing_is_left_alone(settings: Settings) -> None:
    weather = Weather(Response(status_code=503))
    async with over(settings, weather) as provider:
        for _ in range(60):
            with pytest.raises((ProviderAway, ProviderError)):
                await provider.charge("charge:x", UUID(int=1), Money(1, "EUR"))
        assert (provider.breaker.state, weather.calls) == ("open", 20), "its outage is nobody's dead letter"
