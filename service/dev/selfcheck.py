"""The proof behind `ready`: one order is placed over HTTP and followed until it is paid.

It passes through every process of the stack. When it fails `up` says which state the order stuck in.
Test: `tests/integration/test_stack.py`.
"""

from __future__ import annotations

import http.client
import json
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_SKU = "SKU-0001"  # seeded with plenty of stock, at a price no dial of the provider reacts to
_PATIENCE_S = 5.0


class SelfCheckError(Exception):
    """The stack runs but does not do its work; the message says where to look."""


def place_and_pay(urls: Mapping[str, str], home: Path, *, timeout_s: float = 30.0) -> float:
    """Place one order and wait until it is paid; answers the seconds it took. `urls` as in `stack.json`. Raises `SelfCheckError`."""
    from service.dev.issuer import mint  # noqa: PLC0415 - half of what `up` would load before it starts anything

    api, token = urls["api"], mint(home, sub="self-check", role="customer", issuer=urls["issuer"])
    begin = time.monotonic()
    order = _call(api, "POST", "/v1/orders", token, {"lines": [{"sku": _SKU, "quantity": 1}], "currency": "EUR"})
    deadline = begin + timeout_s
    while order["status"] != "paid":
        if order["status"] not in {"placed", "reserved"} or time.monotonic() > deadline:
            raise SelfCheckError(
                f"order {order['id']} is {order['status']} ({order.get('status_reason')}) after {time.monotonic() - begin:.0f} s "
                f"instead of paid: see {home}/logs/worker.log, or run `plumbline doctor`"
            )
        time.sleep(0.05)
        order = _call(api, "GET", f"/v1/orders/{order['id']}", token)
    return time.monotonic() - begin


def _call(api: str, method: str, path: str, token: str, body: object = None) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    if method == "POST":
        headers["Idempotency-Key"] = f'"{uuid.uuid4()}"'
    patience = time.monotonic() + _PATIENCE_S
    while (answer := _ask(api, method, path, headers, body))[0] == 503 and time.monotonic() < patience:
        time.sleep(0.2)  # as any client should: the same key again
    status, text = answer
    if status >= 300:
        raise SelfCheckError(f"{method} {path} answered {status}: {text[:300].decode(errors='replace')}")
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def _ask(api: str, method: str, path: str, headers: Mapping[str, str], body: object) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(api).netloc, timeout=10)
    try:
        connection.request(method, path, body=json.dumps(body) if body is not None else None, headers=dict(headers))
        response = connection.getresponse()
        return response.status, response.read()
    except OSError as error:
        raise SelfCheckError(f"{method} {path} got no answer ({error}): see logs/api.log in the state folder") from None
    finally:
        connection.close()
