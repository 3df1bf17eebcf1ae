"""A payment provider that never forgets a key: charge, void and refund over HTTP, with dials for bad weather.

Keeps an append-only log (`psp.jsonl` in the state folder) that survives a kill, because the checker reads it.
A void of an unseen key tombstones it, so a late charge is refused. `POST /dials` turns declines, errors,
latency; with `magic_totals` a total ending in 13 is declined and one ending in 17 answers 500 until healed.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

LOG_FILE: Final = "psp.jsonl"


@dataclass(slots=True)
class Dials:
    """How the provider behaves: rates in 0…1, latency in milliseconds a call."""

    decline_rate: float = 0.0
    error_rate: float = 0.0
    latency_ms: float = 0.0
    magic_totals: bool = False
    heal: bool = False


class Ledger:
    """Key → what was decided; every decision is one line of the log before it is answered."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.charges: dict[str, dict[str, Any]] = {}
        self.refunds: dict[str, dict[str, Any]] = {}
        if path.exists():
            for line in path.read_bytes().splitlines():
                self._apply(orjson.loads(line))
        self._log: TextIO = path.open("a", encoding="utf-8")

    def write(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Log, apply, answer."""
        self._log.write(orjson.dumps(entry).decode() + "\n")
        self._log.flush()
        self._apply(entry)
        return entry

    def _apply(self, entry: dict[str, Any]) -> None:
        target = self.refunds if entry["op"] == "refund" else self.charges
        target[entry["key"]] = entry


class Provider:
    """The decisions, without HTTP."""

    def __init__(self, ledger: Ledger, dials: Dials) -> None:
        self.ledger, self.dials = ledger, dials

    def charge(self, key: str, order_id: str, amount_minor: int, currency: str) -> dict[str, Any]:
        """Captured or declined; the first answer to a key is its answer for ever."""
        known = self.ledger.charges.get(key)
        if known is not None:
            return known
        declined = random.random() < self.dials.decline_rate or (self.dials.magic_totals and amount_minor % 100 == 13)
        state = "declined" if declined else "captured"
        return self.ledger.write(
            {"op": "charge", "key": key, "order_id": order_id, "amount_minor": amount_minor, "currency": currency, "state": state}
        )

    def void(self, key: str, order_id: str) -> dict[str, Any]:
        """The charge's final state; an unseen key becomes `voided` and refuses a late charge."""
        known = self.ledger.charges.get(key)
        return known or self.ledger.write({"op": "charge", "key": key, "order_id": order_id, "amount_minor": 0, "currency": "", "state": "voided"})

    def refund(self, key: str, order_id: str, amount_minor: int, currency: str) -> dict[str, Any]:
        """Refunded, once per key."""
        known = self.ledger.refunds.get(key)
        return known or self.ledger.write({
            "op": "refund", "key": key, "order_id": order_id, "amount_minor": amount_minor, "currency": currency, "state": "refunded",
        })  # fmt: skip

    def fails_now(self, amount_minor: int) -> bool:
        """True if this call should answer 500."""
        magic = self.dials.magic_totals and not self.dials.heal and amount_minor % 100 == 17
        return magic or random.random() < self.dials.error_rate


def create_provider(home: Path) -> Starlette:
    """The ASGI application; its memory is `psp.jsonl` in `home`."""
    provider = Provider(Ledger(home / LOG_FILE), Dials())

    async def decide(request: Request) -> Response:
        body = orjson.loads(await request.body())
        await asyncio.sleep(provider.dials.latency_ms / 1000)
        operation, key, order_id = request.path_params["operation"], body["key"], body["order_id"]
        if provider.fails_now(body.get("amount_minor", 0)):
            return JSONResponse({"error": "the provider is having a bad day"}, status_code=500)
        if operation == "void":
            return JSONResponse(provider.void(key, order_id))
        action = provider.charge if operation == "charge" else provider.refund
        return JSONResponse(action(key, order_id, body["amount_minor"], body["currency"]))

    async def look_up(request: Request) -> Response:
        key = request.path_params["key"]
        found = provider.ledger.charges.get(key) or provider.ledger.refunds.get(key)
        return JSONResponse(found or {"error": "unknown key"}, status_code=200 if found else 404)

    async def dials(request: Request) -> Response:
        if request.method == "POST":
            for name, value in orjson.loads(await request.body()).items():
                if not hasattr(provider.dials, name):
                    return JSONResponse({"error": f"unknown dial {name}"}, status_code=422)
                setattr(provider.dials, name, value)
        return JSONResponse({name: getattr(provider.dials, name) for name in Dials.__slots__})

    return Starlette(
        routes=[
            Route("/dials", dials, methods=["GET", "POST"]),
            Route("/keys/{key:path}", look_up),
            Route("/{operation:str}", decide, methods=["POST"]),
        ]
    )
