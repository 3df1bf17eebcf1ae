"""The tree of errors is the contract's list of problems, no more and no less."""

from __future__ import annotations

import orjson
import pytest

from service.errors import FieldError, Overloaded, ServiceError, ValidationFailed, problem_types
from service.web.problems import problem_response

CONTRACT = {
    400: {"malformed-request", "invalid-json", "invalid-cursor", "idempotency-key-missing", "idempotency-key-invalid",
          "invalid-precondition", "unknown-host"},
    401: {"unauthenticated"}, 403: {"forbidden"}, 404: {"not-found"}, 405: {"method-not-allowed"}, 408: {"request-timeout"},
    409: {"idempotency-in-flight", "invalid-transition", "price-changed"}, 412: {"precondition-failed"}, 413: {"too-large"}, 414: {"uri-too-long"},
    415: {"unsupported-media-type"}, 422: {"validation-failed", "idempotency-key-reused"}, 428: {"precondition-required"}, 429: {"quota-exceeded"},
    431: {"headers-too-large"}, 500: {"internal"}, 503: {"overloaded", "dependency-unavailable"},
}  # fmt: skip


def test_every_problem_of_the_contract_and_no_other() -> None:
    found: dict[int, set[str]] = {}
    for slug, kind in problem_types().items():
        found.setdefault(kind.status, set()).add(slug)
    assert found == CONTRACT


@pytest.mark.parametrize("slug", sorted(problem_types()))
def test_each_becomes_a_problem_document(slug: str) -> None:
    kind = problem_types()[slug]
    answer = problem_response(kind("because", headers={"x-a": "b"}, extra={"total_minor": 5}), request_id="r-12345678")
    assert (answer.status_code, answer.headers["content-type"], answer.headers["cache-control"]) == (
        kind.status,
        "application/problem+json",
        "no-store",
    )
    assert orjson.loads(answer.body) == {
        "type": f"/problems/{slug}", "title": kind.title, "status": kind.status, "code": slug,
        "request_id": "r-12345678", "detail": "because", "total_minor": 5,
    }  # fmt: skip
    assert answer.headers["x-a"] == "b"
    assert ("retry-after" in answer.headers) == (kind.status == 503)


def test_unavailable_is_jittered_and_an_own_retry_after_wins() -> None:
    waits = {problem_response(Overloaded(), request_id="r").headers["retry-after"] for _ in range(100)}
    assert waits == {"1", "2", "3"}
    assert problem_response(Overloaded(headers={"retry-after": "9"}), request_id="r").headers["retry-after"] == "9"


def test_an_answer_does_not_grow_with_its_attack() -> None:
    errors = [FieldError(f"/lines/{n}", "missing", "x") for n in range(1_000)]
    assert len(orjson.loads(problem_response(ValidationFailed(errors=errors), request_id="r").body)["errors"]) == 20


def test_the_unexpected_says_nothing() -> None:
    body = orjson.loads(problem_response(ServiceError(), request_id="r").body)
    assert set(body) == {"type", "title", "status", "code", "request_id"}
