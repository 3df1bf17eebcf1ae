"""One client process of the limiter's proofs: asks as fast as it can, or paces itself by what the answers say.

`python -m tests.integration.limit_client` with `{"urls": […], "token": "…", "requests": n, "pace": bool}` on stdin;
one JSON line an answer: status and the RateLimit header.
"""

from __future__ import annotations

import http.client
import json
import re
import sys
import time
from typing import Any
from urllib.parse import urlsplit

_PATHS = (("/v1/products/SKU-0001", 1), ("/v1/products/SKU-0001", 1), ("/v1/products?limit=1", 2))
_POLICY = re.compile(r'"(\w+)";r=(\d+);t=(\d+)')


def wait_for(ratelimit: str, cost: int) -> float:
    """Seconds to wait before a call of `cost`: at the smallest r/t of the header, or the t of what has not enough left."""
    waits = [t if r < cost else cost * t / r for _, r, t in ((name, int(r), int(t)) for name, r, t in _POLICY.findall(ratelimit))]
    return max(waits, default=0.0)


def main() -> None:
    """All requests, one after the other, in turn to each URL."""
    task: dict[str, Any] = json.load(sys.stdin)
    doors = [http.client.HTTPConnection(urlsplit(url).netloc, timeout=30) for url in task["urls"]]
    said = ""
    for number in range(task["requests"]):
        path, cost = _PATHS[number % len(_PATHS)]
        if task["pace"]:
            time.sleep(wait_for(said, cost))
        door = doors[number % len(doors)]
        door.request("GET", path, headers={"authorization": f"Bearer {task['token']}"})
        answer = door.getresponse()
        answer.read()
        said = answer.headers.get("ratelimit", "")
        print(json.dumps({"status": answer.status, "ratelimit": said, "cost": cost}))


if __name__ == "__main__":
    main()
