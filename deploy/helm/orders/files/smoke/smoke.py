"""One scene of `helm test`: ready, refusal or order. Standard library only, so the image needs nothing added.

Exit 0: the scene held; 1: it did not, and the last line says what was seen. Test: tests/helm/test_smoke.py.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIMEOUT_S = 10
CANCEL_ATTEMPTS = 10


class SceneFailed(Exception):
    """What was expected and what was seen."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: Any


def call(
    method: str, url: str, *, token: str | None = None, body: object = None, headers: dict[str, str] | None = None
) -> Answer:
    """One request; an HTTP error is an answer too. Raises `SceneFailed` when nothing answers."""
    request = urllib.request.Request(url, method=method)
    request.add_header("Host", os.environ["SMOKE_HOST"])
    for name, value in (headers or {}).items():
        request.add_header(name, value)
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            return _answer(response.status, dict(response.headers), response.read())
    except urllib.error.HTTPError as error:
        return _answer(error.code, dict(error.headers), error.read())
    except OSError as error:
        raise SceneFailed(f"{method} {url}: {error}; is the Service up and the network policy open?") from None


def _answer(status: int, headers: dict[str, str], raw: bytes) -> Answer:
    lowered = {name.lower(): value for name, value in headers.items()}
    is_json = "json" in lowered.get("content-type", "")
    return Answer(status, lowered, json.loads(raw) if is_json and raw else raw.decode(errors="replace"))


def expect(answer: Answer, status: int, what: str) -> Answer:
    if answer.status != status:
        raise SceneFailed(f"{what}: expected {status}, got {answer.status}: {str(answer.body)[:300]}")
    print(f"{what}: {status}")
    return answer


def ready() -> None:
    expect(call("GET", f"{os.environ['SMOKE_OPS']}/health/ready"), 200, "GET /health/ready")


def refusal() -> None:
    """A token that is none is refused before anything else is looked at."""
    answer = call("GET", f"{os.environ['SMOKE_API']}/v1/orders", token="not.a.token")
    expect(answer, 401, "GET /v1/orders with a bad token")


def order() -> None:
    """Create, read, cancel one order of the test customer."""
    api = os.environ["SMOKE_API"]
    token = Path(os.environ["SMOKE_TOKEN_FILE"]).read_text(encoding="utf-8").strip()
    body = {"lines": [{"sku": os.environ["SMOKE_SKU"], "quantity": 1}], "currency": "EUR"}
    created = call("POST", f"{api}/v1/orders", token=token, body=body, headers={"Idempotency-Key": str(uuid.uuid4())})
    expect(created, 201, "POST /v1/orders")
    url = f"{api}/v1/orders/{created.body['id']}"
    # The workers move the order while we look: a stale version is read again, never forced.
    for _ in range(CANCEL_ATTEMPTS):
        read = expect(call("GET", url, token=token), 200, "GET /v1/orders/{id}")
        headers = {"Idempotency-Key": str(uuid.uuid4()), "If-Match": read.headers["etag"]}
        cancelled = call("POST", f"{url}/cancel", token=token, body={}, headers=headers)
        if cancelled.status != 412:
            break
    expect(cancelled, 200, "POST /v1/orders/{id}/cancel")
    if cancelled.body["status"] != "cancelled":
        raise SceneFailed(f"the cancelled order says {cancelled.body['status']!r}")


SCENES: dict[str, Callable[[], None]] = {"ready": ready, "refusal": refusal, "order": order}


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in SCENES:
        print(f"usage: smoke.py {'|'.join(SCENES)}", file=sys.stderr)
        return 2
    try:
        SCENES[arguments[0]]()
    except SceneFailed as failure:
        print(f"FAILED {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
