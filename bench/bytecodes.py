"""`python -m bench.bytecodes`: what Python does for a cached read, counted: bytecodes and calls by file, objects left to the collector.

One process and no server: requests come as bytes, Redis' answers from memory, the service's own objects do the rest.
Counts are the same on a busy machine; they belong to one version of Python. C code (parsing, JSON, hashing) does not count.
Held by tests/budgets/test_hot_path.py.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import os
import sys
import time
from collections import Counter
from contextlib import redirect_stdout
from pathlib import Path
from types import FrameType
from typing import Any, Final

import uvloop
from uvicorn.server import ServerState

from service.app import create_app, open_resources
from service.dev.state import ROOT
from service.foundation import log, tracing
from service.foundation.lifecycle import Lifecycle
from service.foundation.redis_wire import _Protocol
from service.settings import load_settings
from service.web import server
from service.web.auth import SCOPES, Caller

_CONNECTIONS, _ROUNDS = 4, 10
_ID: Final = "01a21892-606e-76f7-a5ca-10d77e08014a"
_ORDER: Final = {
    "id": _ID, "customer_id": "reader", "status": "placed", "version": 1, "currency": "EUR", "total_minor": 24_300,
    "lines": [{"line_no": n, "sku": f"SKU-000{n}", "quantity": n, "unit_price_minor": 8_100} for n in (1, 2)],
    "note": None, "status_reason": None, "created_at": "2030-01-01T00:00:00.000001Z", "updated_at": "2030-01-01T00:00:00.000001Z",
}  # fmt: skip
_TOKEN: Final = b"x" * 500


class Client:
    """A transport: `answered` resolves when something was written."""

    def __init__(self) -> None:
        self.answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def write(self, data: bytes) -> None:
        self.answered.set_result(data)

    def close(self) -> None:
        """Nothing to close."""

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 80)}.get(name, default)


class Redis:
    """A transport that answers the charge (allowed, two policies) and the peek of one order, a turn of the loop later."""

    def __init__(self, wire: _Protocol) -> None:
        words = (b"1", json.dumps(_ORDER).encode(), str(int(time.time() * 1000)).encode())
        entry = b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
        self._wire, self._answer = wire, b"*5\r\n:1\r\n:19\r\n:0\r\n:599\r\n:0\r\n*3\r\n" + entry

    def write(self, data: bytes) -> None:
        asyncio.get_running_loop().call_soon(self._wire.data_received, self._answer * data.count(b"HMGET"))


class Tally:
    """Counts what is traced."""

    def __init__(self) -> None:
        self.bytecodes, self.calls = Counter[str](), 0

    def trace(self, frame: FrameType, event: str, _argument: object) -> Any:
        if frame.f_code.co_filename == __file__:
            return None  # the client's
        if event == "call":
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            self.calls += 1
        elif event == "opcode":
            self.bytecodes[_place(frame.f_code.co_filename)] += 1
        return self.trace


def _place(file: str) -> str:
    """`service/web/route.py`, or the package a file belongs to."""
    _, installed, package = file.rpartition("site-packages/")
    return package.partition("/")[0] if installed else file.removeprefix(f"{ROOT}/").rpartition("/lib/")[2]


async def count(*, match: bool) -> dict[str, Any]:
    """A read of a cached order (`match`: one that is not modified), a request: bytecodes, calls, garbage."""
    settings = load_settings()
    telemetry = settings.telemetry.model_copy(update={"sample_ratio": 0.0, "log_format": "json", "log_level": "info"})
    log.configure(telemetry, process="orders-api", version="bench")
    tracing.configure(telemetry, process="orders-api", version="bench")
    patient = settings.redis.model_copy(update={"timeout_ms": 60_000})
    settings = settings.model_copy(update={"telemetry": telemetry, "redis": patient})
    app = create_app(settings)
    app.state.resources = resources = open_resources(settings, Lifecycle())
    caller = Caller("reader", "customer", SCOPES["customer"], "0" * 16)
    resources.authenticator._remember(hashlib.sha256(_TOKEN).digest(), caller, time.time() + 60)  # noqa: SLF001 - verified a moment ago
    wire = resources.redis._wire._protocol = _Protocol()  # noqa: SLF001 - connected to no server
    wire.connection_made(Redis(wire))  # type: ignore[arg-type]  # of a transport it has what is called
    config = server._config(app.enter, settings.http)  # noqa: SLF001 - the server as it is
    config.load()
    head = [f"GET /v1/orders/{_ID} HTTP/1.1".encode(), b"host: 127.0.0.1", b"authorization: Bearer " + _TOKEN]
    request = b"\r\n".join([*head, *([b'if-none-match: "1.1"'] if match else []), b"", b""])
    state, protocols = ServerState(), list[Any]()
    for _ in range(_CONNECTIONS):
        protocols.append(config.http_protocol_class(config=config, server_state=state, app_state={}))  # type: ignore[call-arg]  # declared as asyncio's, made as uvicorn makes it
        protocols[-1].connection_made(Client())

    async def read() -> None:
        for protocol in protocols:
            protocol.transport.answered = asyncio.get_running_loop().create_future()
            protocol.data_received(request)
        answers = [await protocol.transport.answered for protocol in protocols]
        assert {answer[:12] for answer in answers} == {b"HTTP/1.1 304" if match else b"HTTP/1.1 200"}, answers
        while state.tasks:  # noqa: ASYNC110 - one turn of the loop each
            await asyncio.sleep(0)

    return await _measure(read)


async def _measure(read: Any) -> dict[str, Any]:
    for _ in range(3):
        await read()
    tally, requests = Tally(), _CONNECTIONS * _ROUNDS
    gc.collect()
    gc.disable()
    for _ in range(_ROUNDS):
        await read()
    garbage = gc.collect() / requests
    sys.settrace(tally.trace)
    try:
        for _ in range(_ROUNDS):
            await read()
    finally:
        sys.settrace(None)
        gc.enable()
    by_place = {place: number / requests for place, number in tally.bytecodes.most_common()}
    return {"bytecodes": sum(by_place.values()), "calls": tally.calls / requests, "garbage": garbage, "by_place": by_place}


def main() -> int:
    """Count and print; `--json` for a program."""
    counts = {}
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):  # log lines are made, and go nowhere
        for name, match in (("GET order, 304", True), ("GET order, cached", False)):
            counts[name] = uvloop.run(count(match=match))
        log.drain()
    if "--json" in sys.argv:
        print(json.dumps(counts))
        return 0
    for name, found in counts.items():
        print(f"{name}: {found['bytecodes']:.0f} bytecodes, {found['calls']:.0f} calls, {found['garbage']:.1f} objects for the collector")
        print("\n".join(f"  {number:6.0f}  {place}" for place, number in found["by_place"].items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
