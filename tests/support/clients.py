"""An API client for tests: one token, a fresh key unless told otherwise."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx


class ApiClient:
    """What a customer, operator or admin can do; every method answers the raw response."""

    def __init__(self, http: httpx.AsyncClient, token: str) -> None:
        self.http = http
        self.headers = {"authorization": f"Bearer {token}"}

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self.http.get(f"/v1{path}", headers=self.headers | _wire(headers))

    async def post(self, path: str, body: Any = None, *, key: str | None = "", **headers: str) -> httpx.Response:
        """`key=""`: a fresh one; `key=None`: no Idempotency-Key header."""
        sent = self.headers | _wire(headers)
        if key is not None:
            sent["idempotency-key"] = key or str(uuid4())
        return await self.http.post(f"/v1{path}", json={} if body is None else body, headers=sent)

    async def patch(self, path: str, body: Any, **headers: str) -> httpx.Response:
        return await self.http.patch(f"/v1{path}", json=body, headers=self.headers | _wire(headers))

    async def place(self, *lines: tuple[str, int], key: str | None = "", **extra: Any) -> httpx.Response:
        """POST /orders; `("SKU-0001", 1)` when no line is named."""
        wanted = [{"sku": sku, "quantity": quantity} for sku, quantity in lines or (("SKU-0001", 1),)]
        return await self.post("/orders", {"lines": wanted, "currency": "EUR", **extra}, key=key)

    async def cancel(self, order: dict[str, Any], *, key: str | None = "", etag: str | None = None) -> httpx.Response:
        return await self.post(f"/orders/{order['id']}/cancel", key=key, if_match=etag or f'"{order["version"]}.1"')

    async def ship(self, order: dict[str, Any], *, key: str | None = "", etag: str | None = None) -> httpx.Response:
        return await self.post(f"/orders/{order['id']}/ship", key=key, if_match=etag or f'"{order["version"]}.1"')


def _wire(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
