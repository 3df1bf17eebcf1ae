"""What operators see, over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query
from starlette.responses import Response

from service.admin import letters, operations, schemas
from service.foundation import status
from service.foundation.db import retry_contention
from service.foundation.redis import RedisAway
from service.web.call import Call, parse_id
from service.web.paging import cut_page, decode_uuid_cursor, encode_cursor, link_next
from service.web.resources import Resources
from service.web.route import GatedRoute, policy

router = APIRouter(prefix="/v1/admin", tags=["admin"], route_class=GatedRoute)

_NO_STORE = {"content-type": "application/json", "cache-control": "no-store"}


@router.get("/dead-letters", response_model=schemas.DeadLetterPage)
@policy("ops:admin", cost=2, problems=("invalid-cursor",))
async def dead_letters(call: Call, query: Annotated[schemas.DeadLetterQuery, Query()]) -> Response:
    """Newest first; without `status` all of them."""
    before = decode_uuid_cursor("dead-letter", query.cursor)
    async with call.db.connection() as connection:
        rows = await operations.list_dead_letters(connection, status=query.status, consumer=query.consumer, before=before, limit=query.limit + 1)
    page, more = cut_page(rows, query.limit)
    cursor = encode_cursor("dead-letter", str(page[-1]["id"])) if more else None
    headers = dict(_NO_STORE)
    if cursor is not None:
        headers["link"] = link_next("/v1/admin/dead-letters", query.model_dump(), cursor)
    return Response(orjson.dumps({"items": [schemas.present_dead_letter(row) for row in page], "next_cursor": cursor}), headers=headers)


@router.get("/dead-letters/{letter_id}", response_model=schemas.DeadLetterDetail)
@policy("ops:admin", problems=("not-found",))
async def dead_letter(call: Call, letter_id: str) -> Response:
    """One dead letter with its headers and the beginning of its payload."""
    async with call.db.connection() as connection:
        row = await operations.get_dead_letter(connection, parse_id(letter_id))
    return Response(orjson.dumps(schemas.present_detail(row)), headers=_NO_STORE)


@router.post("/dead-letters/{letter_id}/replay", status_code=202, response_model=schemas.DeadLetterOut)
@policy("ops:admin", cost=5, problems=("not-found", "invalid-transition"))
async def replay(call: Call, letter_id: str, body: schemas.Empty) -> Response:
    """Send it to its group once more; asked again, nothing more happens. Without an envelope it can only be discarded."""
    return await _decide(call, letter_id, letters.replay)


@router.post("/dead-letters/{letter_id}/discard", status_code=202, response_model=schemas.DeadLetterOut)
@policy("ops:admin", cost=5, problems=("not-found", "invalid-transition"))
async def discard(call: Call, letter_id: str, body: schemas.Empty) -> Response:
    """Give it up for good; who did is in the audit log."""
    return await _decide(call, letter_id, letters.discard)


async def _decide(call: Call, letter_id: str, decide: Callable[..., Awaitable[letters.Decision]]) -> Response:
    found = parse_id(letter_id)

    async def attempt() -> letters.Decision:
        async with call.db.transaction() as connection:
            return await decide(connection, found, actor=call.caller.subject)

    decision = await retry_contention(attempt)
    return Response(orjson.dumps(schemas.present_dead_letter(decision.letter)), status_code=202, headers=_NO_STORE)


@router.get("/overview", response_model=schemas.Overview)
@policy("ops:admin")
async def overview(call: Call) -> Response:
    """Orders, outbox, groups, dead letters and this process, in one look."""
    resources = call.resources
    async with call.db.connection() as connection:
        found = await operations.overview(connection, stuck_after_s=resources.settings.orders.expire_after_s)
    try:
        groups: dict[str, Any] | None = await status.read(resources.redis)
    except RedisAway:
        groups = None
    return Response(orjson.dumps(found | {"groups": groups, "process": _process(resources)}), headers=_NO_STORE)


def _process(resources: Resources) -> dict[str, Any]:
    return {
        "in_flight": resources.admission.in_flight,
        "limit": resources.admission.limit,
        "breakers": {breaker.name: breaker.state for breaker in (resources.db.breaker, resources.redis.breaker)},
        "cache": resources.cache.hit_ratios(),
    }
