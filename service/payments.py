"""The payment provider as a port: charge, void, refund, find; each call is safe to repeat with its key.

An answer is a business fact (`captured`, `declined`, `voided`, `refunded`). `ProviderAway` means nobody answered
or the breaker is open: pause. `ProviderError` means it answered with an error or took too long: this order's problem.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol
from uuid import UUID

import aiohttp
import orjson
from opentelemetry.trace import SpanKind

from service.foundation import metrics
from service.foundation.breaker import Breaker
from service.foundation.tracing import span
from service.settings import PaymentSettings

STATES: Final = frozenset({"captured", "declined", "voided", "refunded"})
# Nobody was reached: refused, or the connection did not come about in time.
NO_CONNECTION: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


class ProviderAway(Exception):
    """No connection, or known to be down: not this order's fault."""


class ProviderError(Exception):
    """An error answer or a timeout for this order."""


@dataclass(frozen=True, slots=True)
class Money:
    """Integer minor units of an ISO 4217 currency."""

    amount_minor: int
    currency: str


def open_client(timeout_s: float) -> aiohttp.ClientSession:
    """For calls of the workers: a charge costs httpx 17 times the CPU (`python -m bench.compare_clients`)."""
    times = aiohttp.ClientTimeout(total=None, connect=timeout_s, sock_read=timeout_s)
    return aiohttp.ClientSession(timeout=times, cookie_jar=aiohttp.DummyCookieJar())


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
        self._client = open_client(settings.timeout_ms / 1000)
        self._url = settings.url.rstrip("/")
        self.breaker = Breaker("provider", changed=metrics.show_breaker)
        metrics.show_breaker(self.breaker.name, "closed")

    async def charge(self, key: str, order_id: UUID, money: Money) -> str:
        return await self._post("charge", key, order_id, money)

    async def void(self, key: str, order_id: UUID) -> str:
        return await self._post("void", key, order_id, None)

    async def refund(self, key: str, order_id: UUID, money: Money) -> str:
        return await self._post("refund", key, order_id, money)

    async def find(self, key: str) -> str | None:
        status, content = await self._call("GET", f"/keys/{key}", None)
        return None if status == 404 else _state(status, content)

    async def close(self) -> None:
        """Close the HTTP client."""
        await self._client.close()

    async def _post(self, operation: str, key: str, order_id: UUID, money: Money | None) -> str:
        body: dict[str, Any] = {"key": key, "order_id": str(order_id)}
        if money is not None:
            body |= {"amount_minor": money.amount_minor, "currency": money.currency}
        with span(f"provider {operation}", SpanKind.CLIENT, attributes={"http.request.method": "POST", "provider.operation": operation}):
            return _state(*await self._call("POST", f"/{operation}", body))

    async def _call(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, bytes]:
        if not self.breaker.allow():
            raise ProviderAway("breaker open")
        try:
            data = None if body is None else orjson.dumps(body)
            async with self._client.request(method, self._url + path, data=data, allow_redirects=False) as response:
                status, content = response.status, await response.read()
        except NO_CONNECTION as error:
            self.breaker.failed()
            raise ProviderAway("no connection") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            self._fail()
            raise ProviderError(type(error).__name__) from error
        if status >= 500:
            self._fail()
            raise ProviderError(f"answered {status}")
        self.breaker.succeeded()
        return status, content

    def _fail(self) -> None:
        """One bad order is this order's problem; many in a row are the provider's."""
        self.breaker.failed()
        if self.breaker.state == "open":
            raise ProviderAway("breaker opened")


def _state(status: int, content: bytes) -> str:
    try:
        answer = orjson.loads(content) if status == 200 else None
    except orjson.JSONDecodeError as error:
        raise ProviderError("an answer that is not JSON") from error
    state = answer.get("state") if isinstance(answer, dict) else None
    if state not in STATES:
        raise ProviderError(f"unexpected answer {status}")
    return str(state)
