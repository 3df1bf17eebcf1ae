"""What a demo scene has at hand: customers who speak HTTP, the provider's books, processes to kill, and a narrator.

Everything a scene does is printed as the line a person would type, with what came back.
A promise that does not hold raises `Broken`. Test: `tests/stories/test_the_demo_holds.py`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import asyncpg
import httpx

from service.dev.issuer import mint
from service.dev.state import read_stack
from service.orders.states import TERMINAL

Order = dict[str, Any]
Line = tuple[str, int]

_POLL_S = 0.15  # slow enough for the rate limit of one customer
_TELL_S = 2.0
_PATIENCE_S = 90.0
# Lines about one record, and how each is told.
_WAY = {
    "record.retried": "to tier {tier}, due in {due_in_s} s: {error}",
    "record.due": "in tier {tier}, begun {late_s} s after it was due",
    "record.dead": "dead letter {dead_letter}, in the topic and in the table",
    "replay": "an outbox row takes it back to tier 1",
    "record.handled": "{outcome}",
}


class Broken(Exception):
    """A promise did not hold; the message says what was seen instead."""


class Stage:
    """One running stack, seen from outside. Use as a context manager."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.urls: Mapping[str, str] = read_stack(home)["urls"]
        self._run = uuid4().hex[:6]
        self._people = 0
        self._http = httpx.Client(timeout=10)
        self.unavailable = 0  # answers 503 so far: each was sent again, and some scenes promise that there is none

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    # -- telling

    def say(self, text: str) -> None:
        """What happens, in words."""
        print(f"     {text}", flush=True)

    def show(self, line: str) -> None:
        """What is typed."""
        print(f"   $ {line}", flush=True)

    def expect(self, holds: object, otherwise: str) -> None:
        """Raise `Broken` with `otherwise` unless it holds."""
        if not holds:
            raise Broken(otherwise)

    def wait(self, look: Callable[[], Any], what: str, *, timeout_s: float = _PATIENCE_S) -> Any:
        """Ask until the answer is true and return it; says every two seconds what it waits for. Raises `Broken`."""
        begin = told = time.monotonic()
        while not (found := look()):
            now = time.monotonic()
            if now - begin > timeout_s:
                raise Broken(f"waited {timeout_s:g} s in vain: {what}")
            if now - told > _TELL_S:
                told = now
                self.say(f"… {now - begin:2.0f} s: {what}")
            time.sleep(_POLL_S)
        return found

    # -- customers

    def somebody(self) -> str:
        """A new customer: nobody's rate limit is in the way of another scene."""
        self._people += 1
        return f"demo-{self._run}-{self._people}"

    def call(self, method: str, path: str, sub: str, *, body: object = None, role: str = "customer", **headers: str) -> httpx.Response:
        """One request; a 429 or 503 is waited out and sent again with the same key, as `Retry-After` asks."""
        sent = {"authorization": f"Bearer {mint(self.home, sub=sub, role=role, issuer=self.urls['issuer'])}"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            response = self._http.request(method, f"{self.urls['api']}/v1{path}", json=body, headers=sent)
            self.unavailable += response.status_code == 503
            if response.status_code not in {429, 503} or time.monotonic() > deadline:
                return response
            time.sleep(min(5.0, float(response.headers.get("retry-after", "1"))))

    def get_once(self, path: str, sub: str) -> httpx.Response:
        """One GET, sent once: a refusal is an answer."""
        token = mint(self.home, sub=sub, role="customer", issuer=self.urls["issuer"])
        return self._http.get(f"{self.urls['api']}/v1{path}", headers={"authorization": f"Bearer {token}"})

    def place(self, *lines: Line, sub: str = "", key: str = "", shown: bool = True) -> httpx.Response:
        """POST /v1/orders; a fresh customer and key unless named."""
        body = {"lines": [{"sku": sku, "quantity": quantity} for sku, quantity in lines], "currency": "EUR"}
        key = key or str(uuid4())
        if shown:
            self.show(f"curl -X POST $API/v1/orders -H 'Idempotency-Key: {key[:8]}…' -d '{json.dumps(body, separators=(',', ':'))}'")
        return self.call("POST", "/orders", sub or self.somebody(), body=body, idempotency_key=key)

    def placed(self, *lines: Line, sub: str = "", shown: bool = True) -> Order:
        """As `place`, and it must be a 201; tells the answer when shown."""
        answer = self.place(*lines, sub=sub, shown=shown)
        self.expect(answer.status_code == 201, f"placing answered {answer.status_code}: {answer.text[:200]}")
        order: Order = answer.json()
        if shown:
            self.say(f"201 {order['status']}, {money(order)}")
        return order

    def place_at_once(self, people: int, *lines: Line) -> list[Order]:
        """So many customers at the same moment."""
        with ThreadPoolExecutor(people) as pool:
            return list(pool.map(lambda _: self.placed(*lines, shown=False), range(people)))

    def read(self, order: Order) -> Order:
        """The order as its owner sees it now."""
        answer = self.call("GET", f"/orders/{order['id']}", order["customer_id"])
        self.expect(answer.status_code == 200, f"reading order {order['id']} answered {answer.status_code}: {answer.text[:200]}")
        found: Order = answer.json()
        return found

    def await_status(self, orders: Sequence[Order], *statuses: str) -> list[Order]:
        """Wait until each order has one of `statuses`; answers them as they are then. `Broken` if one ends otherwise."""
        ended: dict[str, Order] = {}

        def look() -> bool:
            for order in orders:
                if order["id"] not in ended and (now := self.read(order))["status"] in {*statuses, *TERMINAL}:
                    why = f" ({now['status_reason']})" if now["status_reason"] else ""
                    self.expect(now["status"] in statuses, f"order {order['id']} ended {now['status']}{why} instead of {' or '.join(statuses)}")
                    ended[order["id"]] = now
            return len(ended) == len(orders)

        self.wait(look, f"{' or '.join(statuses)} ({len(orders)} order{'s' * (len(orders) > 1)})")
        return [ended[order["id"]] for order in orders]

    def cancel(self, order: Order) -> Order:
        """Cancel the order as it is now; a 412 (it moved on meanwhile) is looked at again."""
        for _ in range(5):
            now = self.read(order)
            tag = f'"{now["version"]}.1"'
            self.show(f"curl -X POST $API/v1/orders/{order['id'][:8]}…/cancel -H 'If-Match: {tag}'")
            answer = self.call("POST", f"/orders/{order['id']}/cancel", order["customer_id"], body={}, if_match=tag, idempotency_key=str(uuid4()))
            if answer.status_code != 412:
                break
        self.expect(answer.status_code == 200, f"cancelling answered {answer.status_code}: {answer.text[:200]}")
        self.say(f"200 cancelled, it was {now['status']}")
        cancelled: Order = answer.json()
        return cancelled

    def story(self, order: Order, last: str) -> list[str]:
        """Wait until the order's timeline ends with `last`; tells and answers its steps."""

        def look() -> list[str]:
            answer = self.call("GET", f"/orders/{order['id']}/timeline", order["customer_id"])
            steps = [entry["type"].removeprefix("order.") for entry in answer.json()["items"]] if answer.status_code == 200 else []
            return steps if steps[-1:] == [last] else []

        steps: list[str] = self.wait(look, f"the timeline ends with {last}")
        self.say(" → ".join(steps))
        return steps

    def way(self, order: Order, replayed_at: str) -> list[str]:
        """Tell the way of the order's charge, as the workers' lines have it, and when a person sent it again; answers the steps."""
        self.show(f"grep {order['id'][:8]}… logs/worker*.log | grep payments")
        files = sorted((self.home / "logs").glob("worker*.log"))
        found = [json.loads(line) for file in files for line in file.read_text().splitlines() if line.startswith("{") and order["id"] in line]
        lines = [line for line in found if line.get("group") == "payments" and line["event"] in _WAY]
        lines = sorted([*lines, {"event": "replay", "timestamp": replayed_at}], key=lambda line: datetime.fromisoformat(line["timestamp"]))
        begin = datetime.fromisoformat(lines[0]["timestamp"])
        for line in lines:
            at_s = (datetime.fromisoformat(line["timestamp"]) - begin).total_seconds()
            self.say(f"{at_s:7.3f} s  {line['event'].removeprefix('record.'):<8} {_WAY[line['event']].format_map(line)}")
        return [line["event"].removeprefix("record.") for line in lines]

    # -- the provider and the processes

    def dial(self, **dials: object) -> None:
        """Turn the payment provider's dials."""
        self._http.post(f"{self.urls['psp']}/dials", json=dials).raise_for_status()

    def ask(self, query: str, *values: object) -> Any:
        """One value from the database, for what no customer can see."""

        async def fetch() -> Any:
            connection = await asyncpg.connect(self.urls["database"], timeout=5)
            try:
                return await connection.fetchval(query, *values)
            finally:
                await connection.close()

        return asyncio.run(fetch())

    def dials(self) -> dict[str, Any]:
        """How the provider behaves now."""
        found: dict[str, Any] = self._http.get(f"{self.urls['psp']}/dials").json()
        return found

    def provider_says(self, key: str) -> str:
        """The state the provider remembers for a key; empty when it never heard of it."""
        answer = self._http.get(f"{self.urls['psp']}/keys/{key}")
        return str(answer.json()["state"]) if answer.status_code == 200 else ""

    def charges(self, order: Order) -> int:
        """How often the provider took money for this order, by its own log."""
        lines = (self.home / "psp.jsonl").read_text().splitlines()
        entries = (json.loads(line) for line in lines if order["id"] in line)
        return sum(entry["op"] == "charge" and entry["state"] == "captured" for entry in entries)

    def kill(self, role: str) -> list[int]:
        """kill -9 all processes of a role; answers their process ids."""
        pids = [process["pid"] for process in read_stack(self.home)["processes"] if process["role"] == role]
        self.expect(pids, f"this stack runs no {role}: start it with `plumbline up`")
        self.show(f"kill -9 {' '.join(map(str, pids))}    # {role}")
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return pids

    def await_others(self, role: str, gone: Sequence[int]) -> list[int]:
        """Wait until the supervisor has put other processes in their place and they are ready; answers the new process ids."""

        def look() -> list[int]:
            found = [process for process in read_stack(self.home)["processes"] if process["role"] == role]
            pids = [process["pid"] for process in found]
            return [] if set(pids) & set(gone) or not all(self._ready(process["ops_url"]) for process in found) else pids

        found: list[int] = self.wait(look, f"another {role} takes its place")
        return found

    def _ready(self, ops_url: str | None) -> bool:
        if ops_url is None:
            return True
        with suppress(httpx.HTTPError):
            return self._http.get(f"{ops_url}/health/ready").status_code == 200
        return False


def money(order: Order) -> str:
    """`19.98 EUR`."""
    return f"{order['total_minor'] // 100}.{order['total_minor'] % 100:02d} {order['currency']}"
