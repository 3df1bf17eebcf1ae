"""The OpenAPI document against the API: schemathesis makes requests of it, for every role; 0 findings.

Checked: no 5xx, declared statuses, media types and bodies only, and nothing accepted that the document forbids. Not
checked: that what the document allows is accepted, because a SKU that is none and an order of somebody else fit it too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given
from hypothesis import settings as bounded
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi import checks as told

from service.dev.issuer import mint
from service.web.auth import SCOPES
from tests.integration.processes import running_apis
from tests.support.servers import Servers

_CHECKS = [
    not_a_server_error,
    told.status_code_conformance,
    told.content_type_conformance,
    told.response_headers_conformance,
    told.response_schema_conformance,
    told.negative_data_rejection,
]


@pytest.fixture(scope="module")
def api(servers: Servers, db: Any) -> Iterator[str]:
    with running_apis(servers, 1) as (url,):
        yield url


def find(api: str, servers: Servers, role: str, *, examples: int) -> int:
    """Requests sent; raises what schemathesis raises for a finding."""
    document = httpx.get(f"{api}/openapi.json").json()
    schema = schemathesis.openapi.from_dict(document, config=SchemathesisConfig())
    sent = 0
    quiet = bounded(max_examples=examples, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    for result in schema.get_all_operations():
        operation = result.ok()

        @quiet
        @given(case=operation.as_strategy())
        def ask(case: Any) -> None:
            nonlocal sent
            sent += 1
            token = mint(servers.home, sub=f"schema-{role}", role=role)
            response = case.call(base_url=api, headers={"Authorization": f"Bearer {token}"}, timeout=30)
            case.validate_response(response, checks=_CHECKS)

        ask()
    return sent


@pytest.mark.parametrize("role", sorted(SCOPES))
def test_what_the_document_says_is_what_happens(api: str, servers: Servers, role: str) -> None:
    assert find(api, servers, role, examples=4) > 16 * 2


@pytest.mark.slow
@pytest.mark.parametrize("role", sorted(SCOPES))
def test_what_the_document_says_is_what_happens_at_length(api: str, servers: Servers, role: str) -> None:
    sent = find(api, servers, role, examples=200)
    print(f"\n{role}: {sent} requests, 0 findings")
    assert sent > 16 * 50
