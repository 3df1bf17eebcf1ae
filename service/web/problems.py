"""Errors as RFC 9457 problem documents: the only place where an error becomes bytes.

A problem says what went wrong and never repeats input; a 5xx says nothing about the inside.
Each slug has a section in docs/problems.md.
"""

from __future__ import annotations

import random
from typing import Any, Final

import orjson
from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from service.errors import FieldError, Overloaded, ServiceError, Unavailable, problem_types

MEDIA_TYPE: Final = "application/problem+json"
_MAX_ERRORS: Final = 20
_STORE: Final = {"cache-control": "no-store"}


class ProblemError(BaseModel):
    """One wrong thing: RFC 6901 pointer into the body, or the parameter's name."""

    pointer: str
    code: str
    detail: str


class Problem(BaseModel):
    """RFC 9457 problem; `type` is `/problems/<code>`."""

    type: str
    title: str
    status: int
    code: str
    request_id: str
    detail: str | None = None
    errors: list[ProblemError] | None = None


def problem_response(error: ServiceError, *, request_id: str) -> Response:
    """The answer for an error of the tree."""
    content: dict[str, Any] = {
        "type": f"/problems/{error.slug}",
        "title": error.title,
        "status": error.status,
        "code": error.slug,
        "request_id": request_id,
    }
    if error.detail:
        content["detail"] = error.detail
    if error.errors:
        content["errors"] = [{"pointer": e.pointer, "code": e.code, "detail": e.detail} for e in error.errors[:_MAX_ERRORS]]
    headers = _STORE | error.headers
    if isinstance(error, Unavailable) and "retry-after" not in headers:
        headers["retry-after"] = str(random.randint(1, 3) if isinstance(error, Overloaded) else random.randint(1, 2))  # noqa: S311 - jitter
    return Response(orjson.dumps(content | error.extra), status_code=error.status, headers=headers, media_type=MEDIA_TYPE)


def field_errors(error: ValidationError, *, query: bool = False) -> list[FieldError]:
    """What pydantic found, as pointers and our own sentences; the input is never repeated."""
    found = []
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        path = [str(part).replace("~", "~0").replace("/", "~1") for part in item["loc"]]
        pointer = path[0] if query and path else "".join(f"/{part}" for part in path)
        found.append(FieldError(pointer, item["type"].replace("_", "-"), item["msg"].removeprefix("Value error, ")))
    return found


def problem_examples(*slugs: str) -> dict[int | str, dict[str, Any]]:
    """OpenAPI `responses` for these slugs, grouped by status.

    By reference, not by model: FastAPI would make a validator for each of 200, an eighth of the time until the API is ready.
    """
    kinds = problem_types()
    grouped: dict[int | str, dict[str, Any]] = {}
    for slug in slugs:
        kind = kinds[slug]
        entry = grouped.setdefault(kind.status, {"content": {MEDIA_TYPE: {"examples": {}, "schema": {"$ref": "#/components/schemas/Problem"}}}})
        example = {"type": f"/problems/{slug}", "title": kind.title, "status": kind.status, "code": slug, "request_id": "01890a5d-ac96-774b"}
        entry["content"][MEDIA_TYPE]["examples"][slug] = {"value": example}
        entry["description"] = " / ".join(sorted({kinds[s].title for s in slugs if kinds[s].status == kind.status}))
    return grouped
