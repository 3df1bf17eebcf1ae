"""The demo's scenes: one promise each, kept before the eyes of whoever looks.

A scene leaves the stack as it found it, works any number of times, and raises `Broken` if its promise does not hold.
Add one by writing a function and naming it in `SCENES`. Test: `tests/stories/test_the_demo_holds.py`.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit
from uuid import uuid4

from httpx import Response

from service.dev.stage import Order, Stage, money

if TYPE_CHECKING:
    from collections.abc import Iterator

PLENTY: Final = "SKU-0001"
SCARCE: Final = "SKU-0002"
UNLIMITED: Final = 1_000_000  # a quota as `--profile load` makes them
# 83 × 999 ends in 17, on which the provider fails as long as the dial `magic_totals` is on and `heal` is off.
HOPELESS: Final = (PLENTY, 83)
KILLS: Final = 5
_LINES_S: Final = 0.2  # lines gather for 50 ms before they are written


class Scene(NamedTuple):
    """What is promised, and the function that shows it."""

    title: str
    promise: str
    play: Callable[[Stage], None]


def placed_then_paid(stage: Stage) -> None:
    order = stage.placed((PLENTY, 2))
    [paid] = stage.await_status([order], "paid")
    stage.show(f"curl $API/v1/orders/{order['id'][:8]}…/timeline")
    steps = stage.story(order, "paid")
    stage.expect(steps == ["placed", "reserved", "paid"], f"its history is {steps}")
    stage.expect(stage.charges(paid) == 1, f"the provider charged it {stage.charges(paid)} times")
    stage.say("the provider charged it once")


def double_click(stage: Stage) -> None:
    anna, key = stage.somebody(), str(uuid4())
    stage.say("the same request eight times at once, with the same key:")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: stage.place((PLENTY, 1), sub=anna, key=key, shown=number == 0), range(8)))
    statuses = {answer.status_code for answer in answers}
    stage.expect(statuses == {201} and len({answer.content for answer in answers}) == 1, f"the answers differ: {statuses}")
    stage.say(f"8 answers, byte for byte the same: order {answers[0].json()['id'][:8]}…")
    other = stage.place((PLENTY, 2), sub=anna, key=key)
    stage.expect(other.status_code == 422, f"another order under the same key answered {other.status_code}")
    stage.say(f"422 {other.json()['code']}: another order under that key is refused")
    orders = stage.call("GET", "/orders", anna).json()["items"]
    stage.expect(len(orders) == 1, f"{len(orders)} orders were bought")
    [paid] = stage.await_status(orders, "paid")
    stage.expect(stage.charges(paid) == 1, f"the provider charged {stage.charges(paid)} times")
    stage.say("one order, charged once")


def sold_out(stage: Stage) -> None:
    left, buyers = 3, 8
    admin = stage.somebody()
    available = _available(stage, admin)
    if available < left:
        body = {"quantity": left - available}
        stage.call("POST", f"/products/{SCARCE}/restock", admin, role="admin", body=body, idempotency_key=str(uuid4()))
    hoarded = [stage.placed((SCARCE, available - left), shown=False)] if available > left else []
    stage.await_status(hoarded, "paid")
    stage.say(f"{left} pieces of {SCARCE} are left; {buyers} customers want one, at the same moment:")
    stage.show(f'curl -X POST $API/v1/orders -d \'{{"lines":[{{"sku":"{SCARCE}","quantity":1}}],"currency":"EUR"}}\'    # × {buyers}')
    ends = stage.await_status(stage.place_at_once(buyers, (SCARCE, 1)), "paid", "rejected")
    paid = [order for order in ends if order["status"] == "paid"]
    reasons = {order["status_reason"] for order in ends if order["status"] == "rejected"}
    stage.say(f"{len(paid)} paid, {buyers - len(paid)} rejected ({', '.join(sorted(reasons))})")
    stage.expect(len(paid) == left and reasons == {"out_of_stock"}, f"{left} should have been paid")
    for order in [*paid, *hoarded]:
        _cancel_quietly(stage, order)
    whole = max(available, left)
    stage.wait(lambda: _available(stage, admin) == whole, f"all {whole} pieces are back after cancelling")
    stage.say(f"cancelled again: all {whole} pieces are back")


def cancel_refunds(stage: Stage) -> None:
    order = stage.placed((PLENTY, 3))
    stage.await_status([order], "paid")
    stage.say("paid; the customer changes their mind:")
    stage.cancel(order)
    stage.story(order, "refunded")
    _money_went_back(stage, order)


def cancel_while_charging(stage: Stage) -> None:
    with _dialled(stage, latency_ms=2000):
        stage.say("the provider takes two seconds for every answer now")
        order = stage.placed((PLENTY, 4))
        intent = "SELECT count(*) FROM payment WHERE order_id = $1 AND state = 'started'"
        stage.wait(lambda: stage.ask(intent, order["id"]), "the charge begins")
        stage.say("reserved, and the charge is under way; the customer changes their mind:")
        stage.cancel(order)
    stage.wait(lambda: stage.provider_says(f"charge:{order['id']}"), "the provider has decided")
    if stage.provider_says(f"charge:{order['id']}") == "voided":
        stage.expect(stage.charges(order) == 0, "a voided charge was captured")
        stage.say("the charge was voided before it was captured: nothing was taken")
        return
    stage.story(order, "refunded")
    _money_went_back(stage, order)


def hopeless_order(stage: Stage) -> None:
    admin = stage.somebody()
    with _dialled(stage, magic_totals=True, heal=False):
        stage.say("the provider answers 500 to every total that ends in 17:")
        hopeless = stage.placed(HOPELESS)
        others = stage.place_at_once(3, (PLENTY, 1))
        stage.await_status(others, "paid")
        stage.say(f"three orders placed after it are paid; this one is {stage.read(hopeless)['status']}")
        letter = stage.wait(lambda: _letter(stage, admin, hopeless), "its retries run out, tier by tier")
        stage.show("plumbline dlq list")
        stage.say(f"parked: {letter['consumer']}, {letter['error_class']}: {letter['error_message']}, {letter['attempts']} attempts")
    with _dialled(stage, heal=True):
        stage.say("the provider is healed; an operator replays the dead letter:")
        stage.show(f"plumbline dlq replay {letter['id']}")
        answer = stage.call("POST", f"/admin/dead-letters/{letter['id']}/replay", admin, role="admin", body={})
        stage.expect(answer.status_code == 202, f"the replay answered {answer.status_code}: {answer.text[:200]}")
        [paid] = stage.await_status([hopeless], "paid")
    stage.expect(stage.charges(paid) == 1, f"it was charged {stage.charges(paid)} times")
    stage.say(f"paid, {money(paid)}, charged once; its way:")
    time.sleep(_LINES_S)
    stage.way(hopeless, answer.json()["resolved_at"])


def limit_obeyed(stage: Stage) -> None:
    anna, path = stage.somebody(), "/products?limit=1"

    def ask(_: object = None) -> Response:
        return stage.get_once(path, anna)

    stage.show(f"curl -i $API/v1{path}")
    first = ask()
    stage.say(f"RateLimit-Policy: {first.headers['ratelimit-policy']}")
    if int(first.headers["ratelimit-policy"].partition("q=")[2].partition(";")[0]) < UNLIMITED:
        stage.say("sixty of them, as fast as they go (a list costs 2):")
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(ask, range(60)))
        refused = [answer for answer in answers if answer.status_code == 429]
        stage.expect(refused, "nobody was refused")
        stage.expect({answer.status_code for answer in answers} == {200, 429}, "something else was answered")
        stage.say(f"{len(answers) - len(refused)} answered, {len(refused)} refused: 429, Retry-After {refused[-1].headers['retry-after']} s")
    else:
        stage.say("this stack runs with lifted limits (--profile load): nobody can be refused here")
    stage.say("now the same customer waits as RateLimit says:")
    answer = ask()
    stage.say(f"RateLimit: {answer.headers['ratelimit']}")
    for _ in range(8):
        time.sleep(_pace_s(answer.headers["ratelimit"], cost=2))
        answer = ask()
        stage.expect(answer.status_code == 200, f"a request paced by the header was answered {answer.status_code}")
    stage.say("eight more, none refused")


def _pace_s(ratelimit: str, *, cost: int) -> float:
    """Seconds until the next call of `cost`: at the smallest r/t, or the t of what has not enough left."""
    found = [(int(left), int(reset_s)) for left, reset_s in re.findall(r";r=(\d+);t=(\d+)", ratelimit)]
    return max(reset_s if left < cost else cost * reset_s / left for left, reset_s in found)


def redis_killed(stage: Stage) -> None:
    orders = [stage.placed((PLENTY, 1))]
    before = stage.unavailable
    gone = stage.kill("redis")
    for number in range(5):
        orders.append(stage.placed((PLENTY, 1), shown=number == 0))
        stage.read(orders[-1])
    stage.expect(stage.unavailable == before, f"{stage.unavailable - before} answers were 503")
    stage.say("five orders placed and read without it: no answer failed")
    [pid] = stage.await_others("redis", gone)
    stage.wait(lambda: _listens(stage.urls["redis"]), "Redis listens again")
    stage.await_status(orders, "paid")
    stage.say(f"Redis is back (pid {pid}); all {len(orders)} orders are paid")


def worker_killed(stage: Stage) -> None:
    orders: list[Order] = []
    for number in range(1, KILLS + 1):
        orders += stage.place_at_once(3, (PLENTY, 1))
        gone = stage.kill("worker")
        orders += stage.place_at_once(2, (PLENTY, 1))
        stage.await_others("worker", gone)
        stage.say(f"kill {number} of {KILLS}: 3 orders were on their way, 2 more came while nobody worked; another one started")
    paid = stage.await_status(orders, "paid")
    times = [stage.charges(order) for order in paid]
    stage.expect(times == [1] * len(paid), f"charged {times} times")
    stage.say(f"all {len(paid)} orders are paid, each charged once")


SCENES: Final = (
    Scene("Placed, then paid", "201 means committed; stock and money follow by themselves", placed_then_paid),
    Scene("A double click buys once", "one key, one order, one answer, however often it is sent", double_click),
    Scene("The last piece is sold once", "never more orders than pieces, never a false 'sold out'", sold_out),
    Scene("A cancelled order is refunded", "the money goes back, here and at the provider", cancel_refunds),
    Scene("A cancel meets a charge", "whoever is first, no money is kept", cancel_while_charging),
    Scene("A hopeless order is parked", "others go on; after the cure it is replayed and charged once", hopeless_order),
    Scene("A limit is seen and obeyed", "who asks too fast is told so, who paces by the header never is", limit_obeyed),
    Scene("Redis is killed", "it holds nothing whose loss matters: sales go on", redis_killed),
    Scene("A worker is killed five times", "nothing is lost, nothing happens twice", worker_killed),
)


def _available(stage: Stage, sub: str) -> int:
    return int(stage.call("GET", f"/products/{SCARCE}/availability", sub, role="admin").json()["available"])


def _cancel_quietly(stage: Stage, order: Order) -> None:
    now = stage.read(order)
    headers = {"if_match": f'"{now["version"]}.1"', "idempotency_key": str(uuid4())}
    answer = stage.call("POST", f"/orders/{order['id']}/cancel", order["customer_id"], body={}, **headers)
    stage.expect(answer.status_code == 200, f"cancelling answered {answer.status_code}: {answer.text[:200]}")


def _money_went_back(stage: Stage, order: Order) -> None:
    states = {what: stage.provider_says(f"{what}:{order['id']}") for what in ("charge", "refund")}
    stage.expect(states == {"charge": "captured", "refund": "refunded"}, f"the provider says {states}")
    stage.say(f"the provider's books: charge captured, refund made, {money(order)}")


def _letter(stage: Stage, admin: str, order: Order) -> dict[str, Any] | None:
    page = stage.call("GET", "/admin/dead-letters?status=open&limit=100", admin, role="admin").json()
    return next((item for item in page["items"] if item["aggregate_id"] == order["id"]), None)


def _listens(url: str) -> bool:
    parts = urlsplit(url)
    with suppress(OSError), socket.create_connection((parts.hostname or "", parts.port or 0), timeout=1):
        return True
    return False


@contextmanager
def _dialled(stage: Stage, **dials: object) -> Iterator[None]:
    """Turn the provider's dials for the length of a block."""
    before = stage.dials()
    stage.dial(**dials)
    try:
        yield
    finally:
        stage.dial(**{name: before[name] for name in dials})
