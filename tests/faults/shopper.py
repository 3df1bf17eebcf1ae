"""A customer who records every call, retries with the same key until the outcome is definite, and never forgets.

What it writes is the clients' history the checker reads (`Op`, one JSON object a line).
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import re
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import httpx

from tests.faults.checker.evidence import Op

_CANARY: Final = re.compile(r"canary-of-([a-z0-9-]+)")
_COSTS: Final = {"get": 1, "spy": 1, "list": 2, "walk": 2}
_PAUSE_S: Final = 0.1
_DEADLINE_S: Final = 40.0


class Undecided(AssertionError):
    """No definite answer came in time."""


class History:
    """Appends operations to a file; one per run, shared by all shoppers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("a", encoding="utf-8")
        self._numbers = itertools.count(1)

    def next_id(self) -> int:
        return next(self._numbers)

    def write(self, op: Op) -> None:
        self._file.write(json.dumps(asdict(op)) + "\n")
        self._file.flush()


class Shopper:
    """One principal, calling one API. Subclasses may decide which token goes with a call."""

    def __init__(self, http: httpx.AsyncClient, token: str, principal: str, history: History) -> None:
        self._http, self._token, self._principal, self._history = http, token, principal, history

    def token(self) -> str:
        """What the next call is signed with."""
        return self._token

    async def place(self, *lines: tuple[str, int]) -> Op:
        """Place an order; answers the definite operation."""
        return await self._until_definite("place", "/v1/orders", self._order(lines))

    async def repeat(self, earlier: Op, *lines: tuple[str, int]) -> Op:
        """Send an earlier place again, with its key."""
        return await self._until_definite("place", "/v1/orders", self._order(lines), key=earlier.key)

    def _order(self, lines: Sequence[tuple[str, int]]) -> dict[str, Any]:
        return {"lines": [{"sku": s, "quantity": q} for s, q in lines], "currency": "EUR", "note": f"canary-of-{self._principal}"}

    async def cancel(self, order_id: str) -> Op:
        """Cancel whatever version it has: reads and tries again when somebody was faster."""
        deadline = time.monotonic() + _DEADLINE_S
        while True:
            seen = await self.get(order_id)
            op = await self._until_definite("cancel", f"/v1/orders/{order_id}/cancel", {}, if_match=seen.version)
            if op.status != 412 or time.monotonic() > deadline:
                return op

    async def get(self, order_id: str) -> Op:
        """Read it; retried until it is answered."""
        return await self._until_definite("get", f"/v1/orders/{order_id}", None)

    async def await_status(self, order_id: str, *wanted: str) -> Op:
        """Read until the order has one of these statuses. Raises `Undecided`."""
        deadline = time.monotonic() + _DEADLINE_S
        while (op := await self.get(order_id)).answer["status"] not in wanted:
            if time.monotonic() > deadline:
                raise Undecided(f"order {order_id} is {op.answer['status']} after {_DEADLINE_S:g} s, not {' or '.join(wanted)}")
            await asyncio.sleep(_PAUSE_S)
        return op

    async def _until_definite(self, kind: str, path: str, body: Any, *, key: str = "", if_match: int = 0) -> Op:
        """POST with a body and one key for all attempts (a patch has none), else GET."""
        key = "" if body is None or kind == "patch" else key or str(uuid4())
        deadline = time.monotonic() + _DEADLINE_S
        while True:
            op = await self._call(kind, path, body, key=key, if_match=if_match)
            self._history.write(op)
            if op.outcome != "info":
                return op
            if time.monotonic() > deadline:
                raise Undecided(f"{kind} {key or path} still has no definite answer after {_DEADLINE_S:g} s (last: {op.status} {op.slug})")
            await asyncio.sleep(_PAUSE_S)

    async def _call(self, kind: str, path: str, body: Any, *, key: str, if_match: int) -> Op:
        content = None if body is None else json.dumps(body).encode()
        headers = {"authorization": f"Bearer {self.token()}", "content-type": "application/json"}
        headers |= {"idempotency-key": key} if key else {}
        headers |= {"if-match": f'"{if_match}.1"'} if if_match else {}
        op = Op(self._history.next_id(), self._principal, self._principal, kind, time.time(), 0.0, 0, key=key, if_match=if_match)
        op.cost, op.body_hash = _COSTS.get(kind, 5), _digest(path.encode() + (content or b""))
        try:
            method = "GET" if content is None else "PATCH" if kind == "patch" else "POST"
            answer = await self._http.request(method, path, content=content, headers=headers)
        except httpx.HTTPError:
            op.completed = time.time()
            return op
        op.completed, op.status = time.time(), answer.status_code
        _read_answer(op, answer)
        return op


def _read_answer(op: Op, answer: httpx.Response) -> None:
    data = answer.json() if answer.content else {}
    op.degraded = ";degraded" in answer.headers.get("ratelimit", "")
    op.canaries = sorted(set(_CANARY.findall(answer.text + str(answer.headers))))
    if answer.is_success:
        op.answer_hash, op.answer = _digest(answer.content), data
        op.order_id, op.version = data.get("id") or data.get("sku", ""), data.get("version", 0)
        op.etag, op.location = answer.headers.get("etag", ""), answer.headers.get("location", "")
        op.replayed = answer.headers.get("idempotent-replayed") == "true"
    else:
        op.slug = data.get("code", "")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
