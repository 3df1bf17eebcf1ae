"""BlackSheep, bare: its router and its responses, nothing else of it."""

from __future__ import annotations

from blacksheep import Application, Content, Request, Response, get, post

from bench.peers import common
from bench.peers.bare import Shop

shop, app = Shop(), Application()


@app.on_start
async def start(_: Application) -> None:
    await shop.open()


@post("/v1/orders")
async def place(request: Request) -> Response:
    status, body = await shop.place(await request.read() or b"")
    return Response(status, content=Content(b"application/json", body))


@get("/v1/orders/{order_id}")
async def read(order_id: str) -> Response:
    status, body = await shop.read(order_id)
    return Response(status, content=Content(b"application/json", body))


if __name__ == "__main__":
    common.serve(app)
