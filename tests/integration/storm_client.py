"""One client process of the storm: reads its orders of the day as JSON, answers what it was told, one JSON line a request.

`python -m tests.integration.storm_client` with `{"urls": […], "token": "…", "keys": […], "in_flight": n}` on stdin.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import sys
from typing import Any

import httpx

_DEADLINE_S = 90.0
# 408: a client the host did not let speak for ten seconds.
_AGAIN = frozenset({408, 429, 503})


async def _place(client: httpx.AsyncClient, task: dict[str, Any], key: str) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {task['token']}", "idempotency-key": key}
    body = {"lines": [{"sku": "SKU-0001", "quantity": 1 + int(key.rsplit("-", 1)[1]) % 9}], "currency": "EUR", "note": key}
    seen: list[int] = []
    async with asyncio.timeout(_DEADLINE_S):
        while True:
            try:
                response = await client.post(f"{random.choice(task['urls'])}/v1/orders", json=body, headers=headers)
            except httpx.HTTPError as error:
                seen.append(0)
                print(f"{type(error).__name__}: {error}", file=sys.stderr)
                continue
            seen.append(response.status_code)
            if response.status_code in _AGAIN or response.status_code == 409:
                await asyncio.sleep(random.uniform(0.01, 0.1))
                continue
            digest = hashlib.sha256(response.content).hexdigest()
            return {"key": key, "seen": seen, "digest": digest, "body": response.text, "replayed": "idempotent-replayed" in response.headers}


async def main() -> None:
    """All keys, `in_flight` at a time."""
    task = json.load(sys.stdin)
    flight = asyncio.Semaphore(task["in_flight"])

    async def one(key: str) -> None:
        async with flight:
            print(json.dumps(await _place(client, task, key)))

    # Neither full nor expiring: a pool that is closes an idle connection it has just given to a request (httpx reads that as a broken server).
    limits = httpx.Limits(max_connections=task["in_flight"] * len(task["urls"]), keepalive_expiry=None)
    async with httpx.AsyncClient(timeout=20, limits=limits) as client:
        await asyncio.gather(*(one(key) for key in task["keys"]))


if __name__ == "__main__":
    asyncio.run(main())
