"""The payment provider as a port: charge, void, refund, find; each call is safe to repeat with its key.

An answer is a business fact (`captured`, `declined`, `voided`, `refunded`). `ProviderAway` means nobody answered
or the breaker is open: pause. `ProviderError` means it answered with an error or took too long: this order's problem.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol
from uuid import UUID

import httpx
import orjson
from opentelemetry.trace import SpanKind

from service.foundation import metrics
from service.foundation.breaker import Breaker
from service.foundation.tracing import span
from service.settings import PaymentSettings

STATES: Final = frozenset({"captured", "declined", "voided", "refunded"})


class ProviderAway(Exception):
    """No connection, or known to be down: not this order's fault."""


class ProviderError(Exception):
    """An error answer or a timeout for this order."""


@dataclass(frozen=True, slots=True)
class Money:
    """Integer minor units of an ISO 4217 currency."""

    amount_minor: int
    currency: str


class Provider(Protocol):
    """What the saga needs of a provider; `key` makes each call idempotent there."""

    async def charge(self, key: str, order_id: UUID, money: Money) -> str:
        """`captured`, `declined`, or `voided` if the key was voided before."""
        ...

    async def void(self, key: str, order_id: UUID) -> str:
        """The charge's final state: `voided`, `declined`, or `captured` (too late: refund it)."""
        ...

    async def refund(self, key: str, order_id: UUID, money: Money) -> str:
        """`refunded`."""
        ...

    async def find(self, key: str) -> str | None:
        """The state the provider remembers for a key, or None."""
        ...


class HttpProvider:
    """A provider behind HTTP, guarded by a breaker."""

    def __init__(self, settings: PaymentSettings) -> None:
        self._client = httpx.AsyncClient(base_url=settings.url, timeout=settings.timeout_ms / 1000, verify=settings.url.startswith("https:"))
        self.breaker = Breaker("provider", changed=metrics.show_breaker)
        metrics.show_breaker(self.breaker.name, "closed")

    async def charge(self, key: str, order_id: UUID, money: Money) -> str:
        return await self._post("charge", key, order_id, money)

    async def void(self, key: str, order_id: UUID) -> str:
        return await self._post("void", key, order_id, None)

    async def refund(self, key: str, order_id: UUID, money: Money) -> str:
        return await self._post("refund", key, order_id, money)

    async def find(self, key: str) -> str | None:
        response = await self._call("GET", f"/keys/{key}", None)
        return None if response.status_code == 404 else _state(response)

    async def close(self) -> None:
        """Close the HTTP client."""
        await self._client.aclose()

    async def _post(self, operation: str, key: str, order_id: UUID, money: Money | None) -> str:
        body: dict[str, Any] = {"key": key, "order_id": str(order_id)}
        if money is not None:
            body |= {"amount_minor": money.amount_minor, "currency": money.currency}
        with span(f"provider {operation}", SpanKind.CLIENT, attributes={"http.request.method": "POST", "provider.operation": operation}):
            return _state(await self._call("POST", f"/{operation}", body))

    async def _call(self, method: str, path: str, body: dict[str, Any] | None) -> httpx.Response:
        if not self.breaker.allow():
            raise ProviderAway("breaker open")
        try:
            response = await self._client.request(method, path, content=None if body is None else orjson.dumps(body))
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            self.breaker.failed()
            raise ProviderAway("no connection") from error
        except httpx.HTTPError as error:
            self._fail()
            raise ProviderError(type(error).__name__) from error
        if response.status_code >= 500:
            self._fail()
            raise ProviderError(f"answered {response.status_code}")
        self.breaker.succeeded()
        return response

    def _fail(self) -> None:
        """One bad order is this order's problem; many in a row are the provider's."""
        self.breaker.failed()
        if self.breaker.state == "open":
            raise ProviderAway("breaker opened")


def _state(response: httpx.Response) -> str:
    try:
        answer = orjson.loads(response.content) if response.status_code == 200 else None
    except orjson.JSONDecodeError as error:
        raise ProviderError("an answer that is not JSON") from error
    state = answer.get("state") if isinstance(answer, dict) else None
    if state not in STATES:
        raise ProviderError(f"unexpected answer {response.status_code}")
    return str(state)
