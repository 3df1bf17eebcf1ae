"""One pod of some code version under paced writes: places, reserves, pays, ships, cancels, reaps, and says how each went.

Run as a file, with the code tree to test first on PYTHONPATH: it imports `service` and `workers`, and nothing of this package.
Prints one JSON line a write ([time, kind, status, ms]); at SIGTERM, what every order it touched must look like.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
import time
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx

import service.app
from service.dev.issuer import create_issuer, mint
from service.errors import ServiceError
from service.foundation.db import Connection, Database
from service.foundation.lifecycle import Lifecycle
from service.orders.operations import move
from service.outbox import new_id
from service.products import operations
from service.settings import load_settings
from service.web.jwks import KeySet
from workers.reaper import Reaper

SETTINGS = load_settings()


class Pod:
    """The API in this process, and what workers do, done by the same code."""

    def __init__(self, http: httpx.AsyncClient, db: Database) -> None:
        self.http, self.db = http, db
        self.reaper = Reaper(SETTINGS, db, Lifecycle())
        home = Path(SETTINGS.app.home)
        tokens = {role: mint(home, sub=f"{role}-{uuid4()}", role=role) for role in ("customer", "operator")}
        self.headers = {role: {"authorization": f"Bearer {token}"} for role, token in tokens.items()}
        self.waiting: dict[str, deque[dict[str, Any]]] = {status: deque() for status in ("placed", "reserved", "paid")}
        self.expected: dict[str, tuple[str, int]] = {}

    async def post(self, path: str, *, role: str = "customer", body: Any = None, **headers: str) -> httpx.Response:
        sent = self.headers[role] | {"idempotency-key": str(uuid4())} | {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.post(f"/v1{path}", json=body or {}, headers=sent)

    async def write(self) -> tuple[str, int]:
        """One write; (kind, status)."""
        kind = random.choices(("place", "reserve", "pay", "ship", "cancel"), (30, 25, 20, 15, 10))[0]
        source = {"reserve": "placed", "pay": "reserved", "ship": "paid", "cancel": "placed"}.get(kind)
        if source is None or not self.waiting[source]:
            return "place", await self.place()
        order = self.waiting[source].popleft()
        return kind, await (self.by_door(kind, order) if kind in {"ship", "cancel"} else self.by_hand(kind, order))

    async def place(self) -> int:
        sku = f"SKU-{random.randint(3, 1000):04d}"
        answer = await self.post("/orders", body={"lines": [{"sku": sku, "quantity": 1}], "currency": "EUR"})
        if answer.status_code == 201:
            self.note(answer.json(), "placed", 1)
        return answer.status_code

    async def by_door(self, kind: str, order: dict[str, Any]) -> int:
        version = self.expected[order["id"]][1]
        answer = await self.post(f"/orders/{order['id']}/{kind}", role="operator", if_match=f'"{version}.1"')
        if answer.status_code == 200:
            self.note(order, answer.json()["status"], version + 1)
        return answer.status_code

    async def by_hand(self, kind: str, order: dict[str, Any]) -> int:
        order_id, version = UUID(order["id"]), self.expected[order["id"]][1]
        try:
            async with self.db.transaction() as connection:
                done = await move(connection, order_id, "pay") is not None if kind == "pay" else await reserve_one(connection, order) == "reserved"
        except ServiceError:
            return 503
        if done:
            self.note(order, {"reserve": "reserved", "pay": "paid"}[kind], version + 1)
        return 200 if done else 409

    def note(self, order: dict[str, Any], status: str, version: int) -> None:
        self.expected[order["id"]] = (status, version)
        if status in self.waiting:
            self.waiting[status].append(order)


async def reserve_one(connection: Connection, order: dict[str, Any]) -> str:
    """`reserved` or why not. The old code takes one wish and its event beside it, the new one many that name theirs."""
    facts = {name: order[name] for name in ("customer_id", "total_minor", "currency")} | {
        "order_id": UUID(order["id"]),
        "skus": [line["sku"] for line in order["lines"]],
        "quantities": [line["quantity"] for line in order["lines"]],
    }
    reserve: Any = operations.reserve
    fields = operations.Reservation.__dataclass_fields__
    if "consumer" in fields:
        return str((await reserve(connection, [operations.Reservation(consumer="inventory", event_id=new_id(), **facts)]))[0])
    if "event_id" in fields:
        return str((await reserve(connection, [operations.Reservation(event_id=new_id(), **facts)], consumer="inventory"))[0])
    return str(await reserve(connection, operations.Reservation(**facts), consumer="inventory", event_id=new_id()))


async def run(rate: float) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    issuer = httpx.AsyncClient(transport=httpx.ASGITransport(create_issuer(SETTINGS)))
    service.app.KeySet = partial(KeySet, client=issuer)  # type: ignore[misc, assignment]
    app = service.app.create_app(SETTINGS)
    db = Database(SETTINGS.db, application="traffic-worker")
    await db.open()
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://localhost") as http,
    ):
        await app.state.resources.keys.load()
        pod = Pod(http, db)
        print(json.dumps("ready"), flush=True)
        next_at, reap_at = time.monotonic(), time.monotonic()
        while not stopping.is_set():
            begin = time.monotonic()
            kind, status = await pod.write()
            print(json.dumps([time.time(), kind, status, round((time.monotonic() - begin) * 1000, 1)]), flush=True)
            if begin > reap_at:
                reap_at = begin + 2
                await pod.reaper.run_once()
            next_at = max(next_at + 1 / rate, begin)
            await asyncio.sleep(max(0.0, next_at - time.monotonic()))
        print(json.dumps(pod.expected), flush=True)
    await db.close()


if __name__ == "__main__":
    asyncio.run(run(float(sys.argv[1])))
