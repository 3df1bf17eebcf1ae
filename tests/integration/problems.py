"""What a problem document must look like, whoever answers it."""

from __future__ import annotations

import httpx

from service.errors import problem_types


def assert_problem(answer: httpx.Response, code: str, what: object) -> None:
    """RFC 9457 with our fields, of the status the error tree gives this code."""
    kind = problem_types()[code]
    assert (answer.status_code, answer.headers["content-type"]) == (kind.status, "application/problem+json"), (what, answer.text[:300])
    problem = answer.json()
    wanted = {"type": f"/problems/{code}", "title": kind.title, "status": kind.status, "code": code, "request_id": answer.headers["x-request-id"]}
    assert {name: problem.get(name) for name in wanted} == wanted, what
    assert answer.headers["cache-control"] == "no-store", what
    if kind.status in (429, 503):
        assert int(answer.headers["retry-after"]) >= 1, what


def assert_points_at(answer: httpx.Response, pointer: str, what: object) -> None:
    assert_problem(answer, "validation-failed", what)
    errors = answer.json()["errors"]
    assert pointer in {error["pointer"] for error in errors}, (what, errors)
    assert all(set(error) == {"pointer", "code", "detail"} for error in errors)
    assert len(errors) <= 20, "an answer does not grow with its attack"
