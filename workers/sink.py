"""Where notifications go: a log file in the state folder, or a webhook. At least once, keyed by event id.

A crash after the send and before the inbox row sends again; receivers drop repeats by `event_id`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Protocol

import aiohttp
import orjson

from service.payments import NO_CONNECTION, ProviderAway, ProviderError, open_client

_TIMEOUT_S: Final = 3.0


class Sink(Protocol):
    """Two real ones exist: a file and a webhook."""

    async def send(self, message: dict[str, Any]) -> None:
        """Deliver one message; `message["event_id"]` is its key."""
        ...

    async def close(self) -> None:
        """Let go of what is open."""
        ...


class FileSink:
    """One JSON object a line, for development and for the checker."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)

    async def send(self, message: dict[str, Any]) -> None:
        self._file.write(orjson.dumps(message) + b"\n")  # one write: lines of several processes do not mix

    async def close(self) -> None:
        self._file.close()


class WebhookSink:
    """POST to a receiver; a refused connection pauses the group, an error answer is this message's problem."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = open_client(_TIMEOUT_S)

    async def send(self, message: dict[str, Any]) -> None:
        headers = {"content-type": "application/json", "idempotency-key": str(message["event_id"])}
        try:
            async with self._client.post(self._url, data=orjson.dumps(message), headers=headers, allow_redirects=False) as response:
                status = response.status
        except NO_CONNECTION as error:
            raise ProviderAway("the webhook refuses connections") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ProviderError(type(error).__name__) from error
        if status >= 300:
            raise ProviderError(f"the webhook answered {status}")

    async def close(self) -> None:
        await self._client.close()


def open_sink(url: str, home: Path) -> Sink:
    """The sink the settings name."""
    return WebhookSink(url) if url else FileSink(home / "notifications.jsonl")
