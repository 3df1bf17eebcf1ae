"""The catalogue over HTTP: translate, open the transaction, answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query
from starlette.responses import Response

from service.answers import StoredAnswer, lock_key, store_answer
from service.errors import NotFound, PreconditionFailed
from service.foundation.cache import Ref
from service.foundation.db import retry_contention
from service.products import operations, schemas
from service.products.reading import read_product
from service.web.call import Call
from service.web.etags import PRIVATE_JSON, entry_response, etag, version_of
from service.web.exchange import Reply
from service.web.head import head_lines
from service.web.idempotency import answer_response
from service.web.paging import cut_page, decode_cursor, encode_cursor, page_lines
from service.web.route import GatedRoute, policy

router = APIRouter(prefix="/v1", tags=["products"], route_class=GatedRoute)

_AVAILABILITY_MS = 1_000


def _product_of(arguments: Mapping[str, Any]) -> Sequence[Ref]:
    return [("product", arguments["sku"])]


@router.get("/products", response_model=schemas.ProductPage)
@policy("catalog:read", cost=2, lane="sheddable", problems=("invalid-cursor",))
async def list_(call: Call, query: Annotated[schemas.ProductListQuery, Query()]) -> Response:
    """The catalogue by SKU."""
    after = "" if query.cursor is None else decode_cursor("product", query.cursor)
    async with call.db.connection() as connection:
        rows = await operations.list_products(connection, after=after, limit=query.limit + 1)
    page, more = cut_page(rows, query.limit)
    cursor = encode_cursor("product", page[-1]["sku"]) if more else None
    items = [schemas.present_product(row) for row in page]
    return Reply(orjson.dumps({"items": items, "next_cursor": cursor}), page_lines("/v1/products", query.model_dump(), cursor))


@router.get("/products/{sku}", response_model=schemas.ProductOut, responses={304: {"description": "Not modified"}})
@policy("catalog:read", problems=("not-found",), peeks=_product_of)
async def get(call: Call, sku: str) -> Response:
    """One product."""
    entry = await read_product(call.cache, call.db, sku, peeks=call.peeks)
    if not entry.exists:
        raise NotFound
    return entry_response(call.exchange.head, entry, schemas.REPRESENTATION)


@router.get("/products/{sku}/availability", response_model=schemas.Availability)
@policy("catalog:read", problems=("not-found",))
async def availability(call: Call, sku: str) -> Response:
    """Pieces left; advisory, only a reservation decides."""

    async def load() -> bytes:
        async with call.db.connection() as connection:
            available = await operations.get_availability(connection, sku)
        return orjson.dumps({"sku": sku, "available": available})

    body = await call.cache.short_lived(f"availability:{sku}", _AVAILABILITY_MS, load, use_redis=call.peeks is not None)
    return Reply(body, PRIVATE_JSON)


@router.patch("/products/{sku}", response_model=schemas.ProductOut)
@policy("catalog:write", cost=5, lane="critical", if_match=True, problems=("not-found",))
async def change(call: Call, sku: str, body: schemas.ProductPatch) -> Response:
    """Change name, price or activity; the version grows by one."""

    async def attempt() -> Response:
        async with call.db.transaction() as connection:
            try:
                row = await operations.change_product(connection, sku, body.changes(), version=call.required_version())
            except PreconditionFailed as error:
                current = int(str(error.extra["current_version"]))
                raise PreconditionFailed(headers={"etag": etag(current, schemas.REPRESENTATION)}) from error
        await call.cache.invalidate_after_commit("product", sku, row["version"])
        tag = etag(row["version"], schemas.REPRESENTATION)
        return Reply(orjson.dumps(schemas.present_product(row)), PRIVATE_JSON + head_lines([(b"etag", tag.encode())]))

    return await retry_contention(attempt)


@router.post("/products/{sku}/restock", response_model=schemas.Restocked)
@policy("catalog:write", cost=5, lane="critical", keyed=True, problems=("not-found",))
async def restock(call: Call, sku: str, body: schemas.Restock) -> Response:
    """Add pieces to stock, once per key."""

    async def attempt() -> StoredAnswer:
        async with call.db.transaction() as connection:
            stored = await lock_key(connection, call.keyed)
            if stored is not None:
                return stored
            version = await operations.restock(connection, sku, body.quantity)
            content = orjson.dumps({"sku": sku, "quantity": body.quantity, "version": version})
            headers = {"content-type": "application/json", "etag": etag(version, schemas.REPRESENTATION)}
            return await store_answer(connection, call.keyed, StoredAnswer(200, headers, content), retention=call.retention)

    answer = await retry_contention(attempt)
    await call.cache.invalidate_after_commit("product", sku, version_of(answer.headers["etag"]))
    return answer_response(answer)
