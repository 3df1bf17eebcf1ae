"""Orders over HTTP: translate, open the transaction, answer. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any
from uuid import UUID

import orjson
from asyncpg import Record
from fastapi import APIRouter, Query
from starlette.responses import Response

from service.answers import StoredAnswer, lock_key, store_answer
from service.errors import FieldError, Forbidden, NotFound, Overloaded, PreconditionFailed, ValidationFailed
from service.foundation.cache import Ref
from service.foundation.db import Connection, retry_contention
from service.orders import operations, schemas
from service.orders.placing import place_order
from service.orders.reading import read_order
from service.products.reading import cached_products
from service.web.call import Call, canonical_id, parse_id
from service.web.etags import PRIVATE_JSON, entry_response, etag, version_of
from service.web.exchange import Reply
from service.web.idempotency import answer_response
from service.web.paging import cut_page, decode_uuid_cursor, encode_cursor, page_lines
from service.web.route import GatedRoute, policy

router = APIRouter(prefix="/v1", tags=["orders"], route_class=GatedRoute)

Operation = Callable[..., Awaitable[Record]]


def _lines_of(arguments: Mapping[str, Any]) -> Sequence[Ref]:
    return [("product", line.sku) for line in arguments["body"].lines]


def _order_of(arguments: Mapping[str, Any]) -> Sequence[Ref]:
    return [("order", arguments["order_id"])]


@router.post("/orders", status_code=201, response_model=schemas.OrderOut)
@policy("orders:write", cost=5, lane="critical", keyed=True, problems=("price-changed",), peeks=_lines_of)
async def place(call: Call, body: schemas.PlaceOrder) -> Response:
    """Place an order. Prices come from the catalogue; a retry with the same key gets the same answer."""
    if call.resources.backlog_rows >= call.resources.settings.orders.backlog_cap:
        raise Overloaded("too many events wait for publication")
    customer_id = _customer_of(call, body)

    async def prices(skus: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        return await cached_products(call.cache, call.db, skus, peeks=call.peeks)

    now = call.resources.clock.now()
    creates = call.resources.creates
    answer = await place_order(call.db, creates, body, call.keyed, prices=prices, customer_id=customer_id, now=now, retention=call.retention)
    return answer_response(answer)


def _customer_of(call: Call, body: schemas.PlaceOrder) -> str:
    if call.caller.role == "operator":
        if body.customer_id is None:
            raise ValidationFailed(errors=[FieldError("/customer_id", "missing", "an operator orders for a customer")])
        return body.customer_id
    if body.customer_id is not None:
        raise Forbidden("only an operator may order for somebody else")
    return call.caller.subject


@router.get("/orders/{order_id}", response_model=schemas.OrderOut, responses={304: {"description": "Not modified"}})
@policy("orders:read", problems=("not-found",), peeks=_order_of)
async def get(call: Call, order_id: str) -> Response:
    """One order. Somebody else's order is the same 404 as a missing one."""
    entry = await read_order(call.cache, call.db, canonical_id(order_id), peeks=call.peeks)
    # After the cache, on the owner inside the payload: what is cached is the same for everybody.
    if not entry.exists or not call.caller.may_see(entry.value["customer_id"]):
        raise NotFound
    return entry_response(call.exchange.head, entry, schemas.REPRESENTATION)


@router.get("/orders", response_model=schemas.OrderPage)
@policy("orders:read", cost=2, lane="sheddable", problems=("invalid-cursor",))
async def list_(call: Call, query: Annotated[schemas.OrderListQuery, Query()]) -> Response:
    """Newest first. Operators and auditors see all customers' orders or one customer's."""
    if query.customer_id is not None and not call.caller.may_see(query.customer_id):
        raise Forbidden("only your own orders")
    owner = query.customer_id if call.caller.sees_all else call.caller.subject
    before = decode_uuid_cursor("order", query.cursor)
    async with call.db.connection() as connection:
        rows = await operations.list_orders(connection, operations.OrderFilter(owner, query.status), before=before, limit=query.limit + 1)
    page, more = cut_page(rows, query.limit)
    cursor = encode_cursor("order", str(page[-1]["id"])) if more else None
    items = [schemas.present_order(row, row["lines"]) for row in page]
    return Reply(schemas.encode({"items": items, "next_cursor": cursor}), page_lines("/v1/orders", query.model_dump(), cursor))


@router.get("/orders/{order_id}/timeline", response_model=schemas.Timeline)
@policy("orders:read", problems=("not-found",))
async def timeline(call: Call, order_id: str) -> Response:
    """What happened to the order, by version; fed by its events, so a moment behind."""
    async with call.db.connection() as connection:
        owner, entries = await operations.get_timeline(connection, parse_id(order_id))
    if not call.caller.may_see(owner):
        raise NotFound
    return Reply(orjson.dumps({"items": entries}), PRIVATE_JSON)


@router.post("/orders/{order_id}/cancel", response_model=schemas.OrderOut)
@policy("orders:write", cost=5, lane="critical", keyed=True, if_match=True, problems=("not-found", "invalid-transition"))
async def cancel(call: Call, order_id: str, body: schemas.Empty) -> Response:
    """Cancel an order that is placed, reserved or paid; stock and money go back."""
    return await _change(call, order_id, operations.cancel_order)


@router.post("/orders/{order_id}/ship", response_model=schemas.OrderOut)
@policy("orders:fulfil", cost=5, lane="critical", keyed=True, if_match=True, problems=("not-found", "invalid-transition"))
async def ship(call: Call, order_id: str, body: schemas.Empty) -> Response:
    """Ship a paid order."""
    return await _change(call, order_id, operations.ship_order)


async def _change(call: Call, order_id: str, operation: Operation) -> Response:
    """Replay, object, precondition, operation: one transaction, so a crash leaves all or nothing."""

    async def attempt() -> StoredAnswer:
        async with call.db.transaction() as connection:
            stored = await lock_key(connection, call.keyed)
            if stored is not None:
                return stored
            found = await _visible(connection, call, order_id)
            try:
                row = await operation(connection, found, version=call.required_version())
            except PreconditionFailed as error:
                current = error.extra["current_version"]
                raise PreconditionFailed(headers={"etag": etag(int(str(current)), schemas.REPRESENTATION)}) from error
            answer = StoredAnswer(200, _headers(row), _body(row))
            return await store_answer(connection, call.keyed, answer, retention=call.retention)

    answer = await retry_contention(attempt)
    await call.cache.invalidate_after_commit("order", order_id, version_of(answer.headers["etag"]))
    return answer_response(answer)


async def _visible(connection: Connection, call: Call, order_id: str) -> UUID:
    row = await operations.get_order(connection, parse_id(order_id))
    if not call.caller.may_see(row["customer_id"]):
        raise NotFound
    found: UUID = row["id"]
    return found


def _headers(row: Record) -> dict[str, str]:
    return {"content-type": "application/json", "etag": etag(row["version"], schemas.REPRESENTATION)}


def _body(row: Record) -> bytes:
    return schemas.encode(schemas.present_order(row, row["lines"]))
