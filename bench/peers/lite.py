"""Litestar, bare: its router and its responses, nothing else of it."""

from __future__ import annotations

from litestar import Litestar, Request, Response, get, post

from bench.peers import common
from bench.peers.bare import Shop

shop = Shop()


@post("/v1/orders")
async def place(request: Request) -> Response[bytes]:
    status, body = await shop.place(await request.body())
    return Response(body, status_code=status, media_type="application/json")


@get("/v1/orders/{order_id:str}")
async def read(order_id: str) -> Response[bytes]:
    status, body = await shop.read(order_id)
    return Response(body, status_code=status, media_type="application/json")


if __name__ == "__main__":
    common.serve(Litestar([place, read], on_startup=[shop.open], openapi_config=None))
