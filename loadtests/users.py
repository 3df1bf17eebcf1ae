"""The people: each kind has one `act`, used as a task in a closed run and started by the dispatcher in an open one.

Requests carry the name of their route template; bodies are checked, not only statuses, because a fast wrong
answer is no answer. Everything is sent by `Actor.call`, which tells locust and the recorder.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, ClassVar, Final

import gevent
from locust import FastHttpUser, between, constant, task

from loadtests.crew import Crew
from loadtests.customers import Customer, any_sku, basket, sku, traceparent

Check = Callable[[Any], str]
_ORDERS: Final = "/v1/orders"
_ORDER: Final = "/v1/orders/{id}"
_HOT: Final = 50  # ranks of the Zipf draw
_CLIENT_TIMEOUT_S: Final = 1.0
_TRIES: Final = 6
_PAGES: Final = 5


class Actor(FastHttpUser):
    """What all kinds share: a customer, a way to send, and the moment an arrival was due (None in a closed run)."""

    abstract = True
    crew: ClassVar[Crew]
    connection_timeout = 5.0
    network_timeout = 10.0
    max_retries = 0

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.rng = random.Random()
        self.customer: Customer = self.crew.anybody(self.rng)
        self.due: float | None = None
        self.failed = False

    def begin(self, due: float) -> None:
        """The dispatcher hands over an arrival: another customer, its due moment."""
        self.due, self.failed = due, False
        self.customer = self.crew.anybody(self.rng)

    @task
    def live(self) -> None:
        """One action of a closed run."""
        self.act()

    def act(self) -> None:
        """What this kind does once."""
        raise NotImplementedError

    def call(
        self, method: str, path: str, name: str, *, want: tuple[int, ...], who: Customer | None = None, role: str = "customer",
        body: object = None, check: Check | None = None, hold: bool = False, **headers: str,
    ) -> Any:  # fmt: skip
        """Send, check, count. `hold`: the arrival is not settled by this answer (it will be sent again)."""
        sent = {"authorization": f"Bearer {self.crew.wallet.fresh(who or self.customer, role)}", "traceparent": traceparent(self.rng)}
        sent |= {key.replace("_", "-"): value for key, value in headers.items()}
        if self.crew.public_name:
            sent["Host"] = self.crew.public_name
        started = time.monotonic()
        with self.client.request(method, path, name=name, json=body, headers=sent, catch_response=True) as answer:
            outcome, error = _judge(answer, want, check)
            if outcome == "ok":
                answer.success()
            else:
                answer.failure(error)
        ended = time.monotonic()
        due = None if hold and outcome != "ok" else self.due
        self.due = self.due if due is None else None
        self.failed |= outcome != "ok" and not hold
        intended_ms = None if due is None else (ended - due) * 1000
        self.crew.note(f"{method} {name}", ended, raw_ms=(ended - started) * 1000, intended_ms=intended_ms, outcome=outcome, error=error)
        if intended_ms is not None:
            self.environment.stats.get(f"{name} (from intended)", method).log(intended_ms, 0)
        return answer

    def order(self, skus: list[str], *, key: str = "", hold: bool = False) -> Any:
        """Place an order and remember it."""
        body = basket(self.rng, skus)
        return self.send_order(body, key or f"load-{self.rng.getrandbits(96):024x}", hold=hold)

    def send_order(self, body: dict[str, Any], key: str, *, hold: bool = False) -> Any:
        """POST /v1/orders with this key; the answer must be what was asked for, and ours."""
        owner, wanted = self.customer.name, [(line["sku"], line["quantity"]) for line in body["lines"]]

        def check(answer: Any) -> str:
            order = answer.json()
            said = [(line["sku"], line["quantity"]) for line in order["lines"]]
            total = sum(line["quantity"] * line["unit_price_minor"] for line in order["lines"])
            if order["customer_id"] != owner or said != wanted or order["total_minor"] != total:
                return f"the answer is not the order that was placed: {order}"
            self.customer.orders.append((order["id"], answer.headers["etag"]))
            return ""

        return self.call("POST", _ORDERS, _ORDERS, want=(201,), body=body, check=check, hold=hold, idempotency_key=key)


class Shopper(Actor):
    """Browses 10 times, looks at 5 products, buys once."""

    wait_time = between(0.5, 1.5)

    def act(self) -> None:
        kind = self.rng.choices(("browse", "detail", "buy"), weights=(10, 5, 1))[0]
        if kind == "browse":
            self.call("GET", "/v1/products?limit=20", "/v1/products", want=(200,), check=lambda answer: _page(answer, 20))
        elif kind == "detail":
            name = any_sku(self.rng)
            self.call("GET", f"/v1/products/{name}", "/v1/products/{sku}", want=(200,), check=lambda a: _same(a.json()["sku"], name))
        else:
            self.order(self.rng.sample([sku(1), *(sku(n) for n in range(3, 13))], self.rng.randint(1, 3)))


class Looker(Actor):
    """Looks at one product after the other: the cheapest thing there is, for experiments about measuring itself."""

    wait_time = constant(0)

    def act(self) -> None:
        name = any_sku(self.rng)
        self.call("GET", f"/v1/products/{name}", "/v1/products/{sku}", want=(200,), check=lambda a: _same(a.json()["sku"], name))


class Buyer(Actor):
    """Buys, and nothing else: what capacity in orders a second is measured with."""

    wait_time = constant(0)

    def act(self) -> None:
        self.order([any_sku(self.rng)])


class OrderTracker(Actor):
    """Polls an order with its ETag, and now and then its timeline."""

    wait_time = between(0.5, 1.5)

    def act(self) -> None:
        if not self.customer.orders:
            self.order([any_sku(self.rng)])
            return
        order_id, tag = self.rng.choice(self.customer.orders)
        if self.rng.random() < 0.1:
            self.call("GET", f"{_ORDERS}/{order_id}/timeline", f"{_ORDER}/timeline", want=(200,), check=_in_order)
            return
        owner = self.customer.name

        def check(answer: Any) -> str:
            if answer.status_code == 304:
                return _same(answer.headers["etag"], tag)
            if order_id in {known for known, _ in self.customer.orders}:
                self.customer.orders.append((order_id, answer.headers["etag"]))
            return _same(answer.json()["customer_id"], owner)

        self.call("GET", f"{_ORDERS}/{order_id}", _ORDER, want=(200, 304), check=check, if_none_match=tag)


class RetryingClient(Actor):
    """Gives up waiting after a second and sends again with the same key, with jitter, until the answer is definite."""

    wait_time = between(0.2, 0.8)
    network_timeout = _CLIENT_TIMEOUT_S

    def act(self) -> None:
        body, key = basket(self.rng, [any_sku(self.rng)]), f"retry-{self.rng.getrandbits(96):024x}"
        for attempt in range(_TRIES):
            answer = self.send_order(body, key, hold=attempt < _TRIES - 1)
            if answer.status_code == 201:
                if self.rng.random() < 0.2:  # the answer was lost on the way: an impatient person clicks again
                    self.send_order(body, key)
                return
            gevent.sleep(self.rng.uniform(0, min(2.0, 0.1 * 2**attempt)))


class HotKeyBuyer(Actor):
    """Buys what everybody buys: Zipf over 50 products, or one single product."""

    wait_time = between(0.1, 0.3)
    single: ClassVar[bool] = False

    def act(self) -> None:
        rank = 1 if self.single else self.crew.zipf.draw(self.rng)
        self.order([sku(rank if rank == 1 else rank + 1)])  # rank 2 is SKU-0003


class DeepPager(Actor):
    """Walks a list by its cursors: newest first, nothing twice."""

    wait_time = between(1, 2)

    def act(self) -> None:
        path, seen = f"{_ORDERS}?limit=20", list[str]()
        for _ in range(_PAGES):
            answer = self.call("GET", path, _ORDERS, want=(200,), check=lambda a: _page(a, 20))
            if answer.status_code != 200:
                return
            page = answer.json()
            seen += [item["id"] for item in page["items"]]
            if page["next_cursor"] is None:
                break
            path = f"{_ORDERS}?limit=20&cursor={page['next_cursor']}"
        if seen != sorted(set(seen), reverse=True):
            self.crew.recorder.complain(f"GET {_ORDERS}", f"a walk over {len(seen)} orders repeated one or was out of order")
            self.failed = True


class Abuser(Actor):
    """Ignores every limit; being refused with 429 and Retry-After is the right answer. Needs the default profile."""

    wait_time = constant(0)

    def begin(self, due: float) -> None:
        super().begin(due)
        self.customer = self.crew.customers[0]  # one principal, or no bucket is ever empty

    def act(self) -> None:
        self.call("GET", f"{_ORDERS}?limit=1", f"{_ORDERS} (abused)", want=(200, 429), check=_refused_properly)


class Operator(Actor):
    """Ships what is paid and looks at the dead letters: the rare, important work beside the crowd."""

    fixed_count = 1
    wait_time = constant(1)

    def act(self) -> None:
        operator, admin = self.crew.operator, self.crew.admin
        if operator is not None:
            page = self.call("GET", f"{_ORDERS}?status=paid&limit=1", f"{_ORDERS} (operator)", want=(200,), who=operator, role="operator")
            for order in page.json()["items"] if page.status_code == 200 else []:
                self.call(
                    "POST", f"{_ORDERS}/{order['id']}/ship", f"{_ORDER}/ship", want=(200, 409, 412), who=operator, role="operator", body={},
                    idempotency_key=f"ship-{order['id']}", if_match=f'"{order["version"]}.1"',
                )  # fmt: skip
        if admin is not None:
            self.call("GET", "/v1/admin/dead-letters", "/v1/admin/dead-letters", want=(200,), who=admin, role="admin")


KINDS: Final[dict[str, type[Actor]]] = {
    kind.__name__: kind for kind in (Shopper, Looker, Buyer, OrderTracker, RetryingClient, HotKeyBuyer, DeepPager, Abuser, Operator)
}
# Which kinds make up a run, and how much of each.
MIXES: Final[dict[str, dict[str, float]]] = {
    "shop": {"Shopper": 80, "OrderTracker": 15, "DeepPager": 3, "Operator": 2},
    "buy": {"Buyer": 1},
    "look": {"Looker": 1},
    "hotkey": {"HotKeyBuyer": 1},
    "retry": {"RetryingClient": 1},
    "abuse": {"Abuser": 90, "Shopper": 10},
    "list": {"DeepPager": 1},
}


def _judge(answer: Any, want: tuple[int, ...], check: Check | None) -> tuple[str, str]:
    """Outcome and what to say about it."""
    status = answer.status_code
    if status in want:
        try:
            complaint = check(answer) if check is not None and (status != 304 or answer.headers.get("etag")) else ""
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            complaint = f"the body is not what {status} promises: {type(error).__name__} {error}"
        return ("ok", "") if not complaint else ("error", complaint)
    if status == 0:
        kind = type(answer.error).__name__ if answer.error else "no answer"
        return ("timeout" if "timeout" in f"{kind} {answer.error}".lower() else "error", f"{kind}: {answer.error}")
    outcome = {429: "limited", 503: "shed"}.get(status, "error")
    if outcome != "error" and not answer.headers.get("retry-after"):
        return "error", f"{status} without Retry-After"
    return outcome, f"{status} {(answer.text or '')[:150]}"


def _same(found: object, wanted: object) -> str:
    return "" if found == wanted else f"{found!r} instead of {wanted!r}"


def _page(answer: Any, limit: int) -> str:
    items = answer.json()["items"]
    return "" if len(items) <= limit else f"{len(items)} items on a page of {limit}"


def _in_order(answer: Any) -> str:
    versions = [entry["version"] for entry in answer.json()["items"]]
    return "" if versions == sorted(set(versions)) else f"the timeline is out of order: {versions}"


def _refused_properly(answer: Any) -> str:
    return "" if answer.status_code == 200 or int(answer.headers.get("retry-after", 0)) >= 1 else "429 without Retry-After"
