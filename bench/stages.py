"""`python -m bench.stages`: where one request's CPU goes, stage by stage: a cached read that is a 304, and a create.

One process, real PostgreSQL and Redis, the service's own objects; each stage runs alone, again and again, and the least
CPU time of its rounds counts, so that a busy machine shows less. Stages run warm: together they cost less than
a request does among others, which is why shares are printed, and ratios to the floors come from `make bench`.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import uvloop
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from bench.arms import prepare
from bench.errors import BenchError
from bench.loadgen import KEY_FIELD
from bench.rounds import CONNECTIONS
from bench.servers import Rig, running_rig
from service.answers import KeyedRequest, fingerprint
from service.app import Dispatch, create_app
from service.dev.children import StackError
from service.foundation import log, tracing
from service.orders.placing import draft_order, place_order
from service.orders.schemas import PlaceOrder
from service.products.reading import cached_products
from service.settings import load_settings
from service.web import server
from service.web.body import parse_json
from service.web.call import Call
from service.web.exchange import Exchange
from service.web.guard import Guard
from service.web.idempotency import answer_response, read_key
from service.web.observe import Observe
from service.web.route import GatedRoute

_ROUNDS, _CALLS = 12, 20
# Stages that decide whether a request may go on: the gates.
_GATES: Final = ("guard", "token", "bucket", "admission", "key")


class Transport:
    """Takes what is written; nothing leaves the process."""

    def write(self, data: bytes) -> None:
        """Taken."""

    def close(self) -> None:
        """Nothing to close."""

    pause_reading = resume_reading = close

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 80)}.get(name, default)

    def is_closing(self) -> bool:
        return False


@dataclass(slots=True)
class Table:
    """CPU microseconds by stage."""

    title: str
    stages: dict[str, float] = field(default_factory=dict)
    seldom: dict[str, float] = field(default_factory=dict)  # not a part of every request, so of no share

    async def time(self, name: str, stage: Callable[[], Awaitable[object] | object], *, seldom: bool = False) -> None:
        """Add a stage: the least of the rounds, a call; what waits is in flight as often as the ladder's requests are."""

        async def worker() -> None:
            for _ in range(_CALLS):
                if (awaited := stage()) is not None and hasattr(awaited, "__await__"):
                    await awaited

        best = float("inf")
        for _ in range(_ROUNDS):
            started = time.thread_time()
            await asyncio.gather(*(worker() for _ in range(CONNECTIONS)))
            best = min(best, (time.thread_time() - started) / (_CALLS * CONNECTIONS) * 1e6)
        (self.seldom if seldom else self.stages)[name] = best

    def show(self) -> str:
        """Lines for a person: microseconds and the share of the sum of all stages."""
        whole = sum(self.stages.values())
        gates = sum(us for name, us in self.stages.items() if name.split(":")[0] in _GATES)
        rows = [f"{self.title:<58}{'µs':>7}{'share':>8}"]
        rows += [f"  {name:<56}{us:>7.1f}{us / whole:>8.0%}" for name, us in self.stages.items()]
        rows += [f"  {'all gates together':<56}{gates:>7.1f}{gates / whole:>8.0%}"]
        return "\n".join([*rows, *(f"  {name:<56}{us:>7.1f}" for name, us in self.seldom.items())])


async def measure() -> list[Table]:
    """Both tables. The environment names the servers; the frames of `bench/arms.py` are the requests."""
    settings = load_settings()
    log.configure(settings.telemetry, process="orders-api", version="bench")
    tracing.configure(settings.telemetry, process="orders-api", version="bench")
    app = create_app(settings)
    frames = json.loads(os.environ["BENCH_FRAMES"])
    async with app.router.lifespan_context(app):
        await app.state.resources.keys.load()
        gc.collect()
        gc.freeze()
        return [await _read(app, bytes.fromhex(frames["get_304"])), await _create(app, bytes.fromhex(frames["create_all_on"]))]


async def _read(app: FastAPI, frame: bytes) -> Table:
    table, request = Table("GET order, 304"), await _Request.of(app, frame)
    route = request.scope["route"]
    order_id = request.scope["path_params"]["order_id"]
    await request.time_ends(table)
    refs = [("order", order_id)]
    call = await request.time_gates(table, cost=1, refs=refs)
    while call.peeks is None or not call.peeks:  # read once, so that it is in the cache
        await route.endpoint(call, order_id=order_id)
        call.peeks = (await app.state.resources.limiter.charge(call.caller, 1, refs)).peeks
    await table.time("read: the entry, its owner, ETag and answer", lambda: route.endpoint(call, order_id=order_id))
    return table


async def _create(app: FastAPI, frame: bytes) -> Table:
    table, request = Table("POST order"), await _Request.of(app, frame)
    resources, body = app.state.resources, frame.partition(b"\r\n\r\n")[2]
    raw = parse_json(body, max_depth=16)
    order = PlaceOrder.model_validate(raw)
    await request.time_ends(table)
    await table.time("body: JSON, strictly", lambda: parse_json(body, max_depth=16))
    await table.time("body: the model", lambda: PlaceOrder.model_validate(raw))
    call = await request.time_gates(table, cost=5, refs=[("product", line.sku) for line in order.lines])
    await table.time("key: header and fingerprint", lambda: (read_key([b"0123456789abcdef"]), fingerprint("POST", "/v1/orders", "buyer-0", raw)))
    skus, now = [line.sku for line in order.lines], resources.clock.now()

    async def prices(wanted: Any) -> Any:
        return await cached_products(call.cache, call.db, wanted, peeks=call.peeks)

    async def placed() -> Any:
        keyed = KeyedRequest("buyer-0", str(uuid.uuid4()), b"x" * 32)
        return await place_order(
            call.db, call.resources.creates, order, keyed, prices=prices, customer_id="buyer-0", now=now, retention=timedelta(hours=24)
        )

    known, answer = await prices(skus), await placed()
    await table.time("order: prices it believes", lambda: prices(skus))
    await table.time("order: priced and worded", lambda: draft_order(order, known, customer_id="buyer-0", now=now))
    await table.time("statement: a connection, its arguments, the round trip", placed)
    table.stages["statement: a connection, its arguments, the round trip"] -= sum(
        us for name, us in table.stages.items() if name.startswith("order:")
    )
    await table.time("answer: stored headers as lines", lambda: answer_response(answer))
    return table


class _Request:
    """One request that has arrived, and what stands around its endpoint."""

    def __init__(self, app: FastAPI, frame: bytes, scope: dict[str, Any]) -> None:
        self.app, self.frame, self.scope, self.resources = app, frame, scope, app.state.resources

    @classmethod
    async def of(cls, app: FastAPI, frame: bytes) -> _Request:
        """Send it once through the server, to an application that only keeps its scope."""
        seen: list[dict[str, Any]] = []

        async def keep(scope: Scope, *_: Any) -> None:
            seen.append(dict(scope))
            scope["answer"](204, b"a: b\r\n", b"", closes=False)

        await _send(keep, frame)
        scope = seen[0] | {"app": app}
        dispatch = Dispatch(app.router)
        with _no_endpoint():
            await dispatch(scope, _nothing, _nothing)
        return cls(app, frame, scope)

    async def time_ends(self, table: Table) -> None:
        """What surrounds every request: server, observation, guard, routing."""

        async def at_once(scope: Scope, *_: Any) -> None:
            scope["answer"](204, b"a: b\r\n", b"", closes=False)

        free = [_protocol(at_once) for _ in range(CONNECTIONS)]

        async def one() -> None:
            protocol = free.pop()
            await _feed(protocol, self.frame)
            free.append(protocol)

        await table.time("server: bytes to scope, task, one write", one)
        observe = Observe(_nothing)
        await table.time("observe: ids, log line, metrics, 10 % spans", lambda: observe(self.scope, _nothing, _nothing))
        self.scope["exchange"] = Exchange(self.scope, _nothing, self.resources)
        guard = Guard(_nothing, self.resources.settings.http)
        await table.time("guard: host, sizes, address, door", lambda: guard(self.scope, _nothing, _nothing))
        dispatch = Dispatch(self.app.router)
        with _no_endpoint():
            await table.time("route", lambda: dispatch(self.scope, _nothing, _nothing))

    async def time_gates(self, table: Table, *, cost: int, refs: list[tuple[str, str]]) -> Call:
        """Token, bucket, admission; the call as the endpoint gets it."""
        call, resources = Call(self.scope["exchange"]), self.resources
        presented = call.exchange.head.all(b"authorization")
        await table.time("token: remembered", lambda: resources.authenticator.remembered(presented))
        call.caller = await resources.authenticator.authenticate(presented)
        await table.time("once a minute, the token: verified", lambda: resources.authenticator.authenticate(presented), seldom=True)
        call.peeks = (await resources.limiter.charge(call.caller, cost, refs)).peeks
        await table.time("bucket: one round trip with the peeks, head lines", lambda: resources.limiter.charge(call.caller, cost, refs))

        def slot() -> None:
            resources.admission.enter_at_once("normal")
            resources.admission.leave()

        await table.time("admission", slot)
        return call


@contextmanager
def _no_endpoint() -> Iterator[None]:
    """Routes answer nothing for the block."""
    serve = GatedRoute.serve
    GatedRoute.serve = _nothing_to_serve  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        GatedRoute.serve = serve  # type: ignore[method-assign]


async def _nothing_to_serve(_route: GatedRoute, _scope: Scope, _receive: Receive, _send: Send) -> None:
    return


async def _nothing(*_: Any) -> Any:
    return None


def _protocol(app: Any) -> Any:
    config = server._config(app, load_settings().http)  # noqa: SLF001 - the server as it is
    config.load()
    made: Any = config.http_protocol_class(config=config, server_state=ServerState(), app_state={})  # type: ignore[call-arg, operator]  # declared as asyncio's, made as uvicorn makes it
    made.connection_made(Transport())
    return made


async def _send(app: Any, frame: bytes) -> None:
    await _feed(_protocol(app), frame)


async def _feed(protocol: Any, frame: bytes) -> None:
    protocol.data_received(frame)
    while not protocol.cycle.response_complete:  # noqa: ASYNC110 - one turn of the loop each
        await asyncio.sleep(0)


def _first_frames(rig: Rig) -> dict[str, str]:
    found = {}
    for arm in prepare(rig):
        data = arm.frames.read_bytes()
        length = int.from_bytes(data[:4], "little")
        found[arm.name] = data[8 : 8 + length].replace(KEY_FIELD.encode(), b"0123456789abcdef").hex()
    return found


def main() -> int:
    """Start the servers, measure, print."""
    print("starting PostgreSQL, Redis and what fills them (half a minute) …", flush=True)
    try:
        with running_rig() as rig:
            os.environ |= rig.environment | {"OPS_PORT": "0", "BENCH_FRAMES": json.dumps(_first_frames(rig)), "APP_TELEMETRY_LOG_LEVEL": "info"}
            with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):  # log lines are made, and go nowhere
                tables = uvloop.run(measure())
                log.drain()
    except (BenchError, StackError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    print("\n\n".join(table.show() for table in tables))
    return 0


if __name__ == "__main__":
    sys.exit(main())
