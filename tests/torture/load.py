"""The customers: they buy hot and plain things, change their minds, repeat themselves, click twice, walk their pages, ask too often.

Every call is written down; an unclear answer is repeated with the same key until it is definite. What one of them cannot get
an answer to in 40 s is counted, and he goes on.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import jwt

from service.dev.issuer import key_id, load_key
from tests.faults.checker.evidence import Op
from tests.faults.shopper import History, Shopper, Undecided
from tests.torture.rig import Rig

CUSTOMERS: Final = 12
# Hot ones run out again and again; the rest have plenty.
HOT: Final = ("SKU-0002", "SKU-0002", "SKU-0020")  # of SKU-0002 there are 100 at first
PLAIN: Final = tuple(f"SKU-{number:04d}" for number in range(30, 60))
_PAUSE_S: Final = (0.15, 0.8)
_GREED: Final = 60
_LOOKS, _LOOK_S = 30, 0.15
_REGRETFUL: Final = 3
_GLANCES: Final = 4
_TOKEN_S: Final = 3_000


@dataclass(slots=True)
class Crowd:
    """What the customers share."""

    rig: Rig
    history: History
    seed: int
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    orders: list[tuple[str, str]] = field(default_factory=list)  # principal, order id
    undecided: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    last_ok: float = 0.0

    def note(self, op: Op) -> None:
        self.answers[op.outcome if op.status else "silent"] += 1
        self.rig.refused_tokens += op.status == 401
        if op.outcome == "ok":
            self.last_ok = op.completed


class _Noting(History):
    """The history, with the crowd's counters beside it."""

    def __init__(self, history: History, crowd: Crowd) -> None:
        self._inner, self._crowd = history, crowd

    def next_id(self) -> int:
        return self._inner.next_id()

    def write(self, op: Op) -> None:
        self._inner.write(op)
        self._crowd.note(op)


class Customer(Shopper):
    """One principal with a mind of its own, decided by the seed."""

    def __init__(self, crowd: Crowd, principal: str, *, role: str = "customer") -> None:
        super().__init__(crowd.rig.http, "", principal, _Noting(crowd.history, crowd))
        self.crowd, self.role = crowd, role
        self.random = random.Random(f"{crowd.seed}-{principal}")
        self._signed: dict[int, str] = {}

    def token(self) -> str:
        skew_s = self.crowd.rig.skew_s
        if skew_s not in self._signed:
            self._signed[skew_s] = skewed_token(self.crowd.rig, self._principal, self.role, skew_s)
        return self._signed[skew_s]

    async def live(self) -> None:
        """One step after the other until told to stop."""
        while not self.crowd.stop.is_set():
            try:
                await self._step()
            except Undecided:
                self.crowd.undecided += 1
            await asyncio.sleep(self.random.uniform(*_PAUSE_S))

    async def _step(self) -> None:
        lines = self._lines()
        placed = await self._until_definite("place", "/v1/orders", self._order(lines))
        if placed.outcome != "ok":
            return
        self.crowd.orders.append((self._principal, placed.order_id))
        match self.random.randrange(20):
            case 0:
                await self.repeat(placed, *lines)
            case 1:
                await self._twins()
            case 2:  # another body under the key is refused
                await self._until_definite("place", "/v1/orders", self._order((("SKU-0099", 7),)), key=placed.key)
            case 3 | 4 | 5 | 6 | 7:
                await asyncio.sleep(self.random.uniform(0, 1.5))
                await self.cancel(placed.order_id)
                await self.get(placed.order_id)
            case 8:
                await self._walk()
            case 9:
                await self._race(placed)
            case 10:  # somebody else's order: a 404 like any other
                _, order_id = self.random.choice(self.crowd.orders)
                await self._until_definite("spy", f"/v1/orders/{order_id}", None)
            case _:
                await self.get(placed.order_id)

    def _lines(self) -> tuple[tuple[str, int], ...]:
        skus = {self.random.choice(HOT) if self.random.random() < 0.4 else self.random.choice(PLAIN) for _ in range(self.random.randint(1, 3))}
        return tuple((sku, self.random.randint(1, 3)) for sku in sorted(skus))

    async def _twins(self) -> None:
        """The same order twice at once, and once more with another key's worth of patience."""
        lines = self._lines()
        first = Op(0, "", "", "place", 0, 0, 0, key=f"twin-{self._principal}-{self.random.getrandbits(64):x}")
        await asyncio.gather(self.repeat(first, *lines), self.repeat(first, *lines))

    async def _race(self, placed: Op) -> None:
        """Two cancels that name one version: at most one of them may win it."""
        seen = await self.get(placed.order_id)
        path = f"/v1/orders/{placed.order_id}/cancel"
        await asyncio.gather(*(self._until_definite("cancel", path, {}, if_match=seen.version) for _ in range(2)))

    async def _walk(self) -> None:
        """All pages of the own orders; an unclear answer ends the walk."""
        before = [order_id for principal, order_id in self.crowd.orders if principal == self._principal]
        walk = Op(self._history.next_id(), self._principal, self._principal, "walk", time.time(), 0.0, 200, before=before)
        path = "/v1/orders?limit=20"
        while path:
            page = await self._call("list", path, None, key="", if_match=0)
            self._history.write(page)
            if page.outcome != "ok":
                return
            walk.seen += [order["id"] for order in page.answer["items"]]
            cursor = page.answer["next_cursor"]
            path = f"/v1/orders?limit=20&cursor={cursor}" if cursor else ""
        walk.completed = time.time()
        self._history.write(walk)


class Regretful(Customer):
    """Cancels as soon as the order is reserved: while its charge is out, or made and not noted yet because something broke (G6)."""

    async def _step(self) -> None:
        placed = await self._until_definite("place", "/v1/orders", self._order(((self.random.choice(PLAIN), 1),)))
        if placed.outcome != "ok":
            return
        self.crowd.orders.append((self._principal, placed.order_id))
        status = "placed"
        for _ in range(_LOOKS):
            status = (await self.get(placed.order_id)).answer.get("status", status)
            if status != "placed":
                break
            await asyncio.sleep(_LOOK_S)
        if status == "reserved":
            await self.cancel(placed.order_id)


class Greedy(Customer):
    """Asks for one thing many times at once, again and again: what is admitted of it is L1's evidence."""

    async def _step(self) -> None:
        asked = [self._call("get", "/v1/products/SKU-0001", None, key="", if_match=0) for _ in range(_GREED)]
        for op in await asyncio.gather(*asked):
            self._history.write(op)
        await asyncio.sleep(self.random.uniform(1.0, 3.0))


class Staff(Customer):
    """Ships what is paid; restocks the hot ones and changes prices (as admin)."""

    async def _call(self, kind: str, path: str, body: Any, *, key: str, if_match: int) -> Op:
        op = await super()._call(kind, path, body, key=key, if_match=if_match)
        op.canaries = []  # an operator may see everybody's orders
        return op

    async def _step(self) -> None:
        await asyncio.sleep(self.random.uniform(0.1, 0.6))
        if self.role == "admin":
            sku = self.random.choice(HOT)
            chance = self.random.random()
            if chance < 0.3:
                await self._restock(sku)
            elif chance < 0.7:
                await self._two_deliveries(sku)
            else:
                seen = await self._until_definite("get", f"/v1/products/{sku}", None)
                body = {"price_minor": self.random.randint(100, 900) * 10}
                await self._until_definite("patch", f"/v1/products/{sku}", body, if_match=seen.version)
                await self._until_definite("get", f"/v1/products/{sku}", None)
        elif self.crowd.orders:
            _, order_id = self.random.choice(self.crowd.orders[-200:])
            seen = await self.get(order_id)
            if seen.answer.get("status") == "paid":
                await self._until_definite("ship", f"/v1/orders/{order_id}/ship", {}, if_match=seen.version)
                await self.get(order_id)

    async def _restock(self, sku: str) -> None:
        await self._until_definite("restock", f"/v1/products/{sku}/restock", {"quantity": self.random.randint(5, 20)})

    async def _two_deliveries(self, sku: str) -> None:
        """Booked at once while others look: what is read between the two writes must not stay in the cache after the second (C3)."""

        async def look() -> None:
            for _ in range(_GLANCES):
                await self._until_definite("get", f"/v1/products/{sku}", None)

        await asyncio.gather(self._restock(sku), self._restock(sku), look(), look())
        await self._until_definite("get", f"/v1/products/{sku}", None)


def people(crowd: Crowd) -> list[Customer]:
    """Everybody who calls the API during a run."""
    buyers = [Customer(crowd, f"buyer-{number:02d}") for number in range(CUSTOMERS)]
    buyers += [Regretful(crowd, f"regret-{number}") for number in range(_REGRETFUL)]
    keepers = [Staff(crowd, name, role="admin") for name in ("keeper", "clerk")]
    return [*buyers, Greedy(crowd, "greedy"), Staff(crowd, "packer", role="operator"), *keepers]


def skewed_token(rig: Rig, principal: str, role: str, skew_s: int) -> str:
    """As the issuer makes it, by a clock that is `skew_s` off."""
    key, now = load_key(rig.home), int(time.time()) + skew_s
    claims: dict[str, Any] = {
        "iss": rig.urls["issuer"], "aud": "plumbline", "sub": principal, "role": role, "iat": now, "exp": now + _TOKEN_S, "jti": f"{principal}-{now}",
    }  # fmt: skip
    return jwt.encode(claims, key, algorithm="ES256", headers={"typ": "at+jwt", "kid": key_id(key)})


async def answers_now(rig: Rig, principal: str = "probe") -> bool:
    """Is one read answered, now?"""
    try:
        token = skewed_token(rig, principal, "customer", 0)
        answer = await rig.http.get("/v1/products/SKU-0001", headers={"authorization": f"Bearer {token}"}, timeout=2)
    except httpx.HTTPError:
        return False
    return answer.status_code == 200
