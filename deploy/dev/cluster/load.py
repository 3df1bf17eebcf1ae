"""Asks an API for its products at a fixed rate and counts what failed: the judge of a rolling update.

Every request is a new connection: a client that keeps connections open retries silently and hides the loss.
SIGTERM ends it early: then what was begun is finished and counted. Closing line: `N requests, M failed`; exit 1 when any
failed or fewer than 100 were sent. Standard library only.
"""

from __future__ import annotations

import argparse
import http.client
import signal
import sys
import threading
import time
import urllib.parse
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

LEAST = 100


def one(url: str, headers: dict[str, str], outcomes: Counter[str], lock: threading.Lock) -> None:
    parts = urllib.parse.urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=10)
    try:
        connection.request("GET", parts.path or "/", headers={**headers, "Connection": "close"})
        response = connection.getresponse()
        response.read()
        outcome = str(response.status)
    except (OSError, http.client.HTTPException) as error:
        outcome = type(error).__name__
    finally:
        connection.close()
    with lock:
        outcomes[outcome] += 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", required=True, help="base URL")
    parser.add_argument("--path", default="/v1/products/SKU-0001")
    parser.add_argument("--token", default="")
    parser.add_argument("--host", default="", help="Host header, when it is not the URL's")
    parser.add_argument("--rate", type=float, default=50, help="requests a second")
    parser.add_argument("--seconds", type=float, default=60, help="at most")
    options = parser.parse_args()
    headers = {
        name: value for name, value in (("Host", options.host), ("Authorization", f"Bearer {options.token}" if options.token else "")) if value
    }
    outcomes, lock = Counter[str](), threading.Lock()
    enough = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: enough.set())
    started, sent = time.monotonic(), 0
    with ThreadPoolExecutor(max_workers=64) as pool:
        while sent < int(options.rate * options.seconds) and not enough.wait(max(0.0, started + sent / options.rate - time.monotonic())):
            sent += 1
            pool.submit(one, options.url.rstrip("/") + options.path, headers, outcomes, lock)
    good = sum(count for status, count in outcomes.items() if status.startswith("2"))
    failed = sum(outcomes.values()) - good
    print(f"outcomes: {dict(outcomes)}")
    print(f"{good + failed} requests, {failed} failed")
    return 0 if failed == 0 and good == sent >= LEAST else 1


if __name__ == "__main__":
    sys.exit(main())
