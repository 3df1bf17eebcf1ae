"""After a deployment: asks Prometheus for the error ratio and fails when the new version burns the budget.

Exit 0: the time passed quietly; 1: three looks in a row were bad; 2: Prometheus could not be asked three times in a row,
which is as good a reason to go back. Standard library only. Test: tests/deploy/test_slo_watch.py.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import urllib.parse
import urllib.request

# 14.4 times the 99.9 % objective's budget: the page threshold. No traffic is no error.
LIMIT = 14.4 * 0.001
METRIC = "orders_http_requests_total"
QUERY = f'sum(rate({METRIC}{{job="orders-api",status=~"5.*"}}[2m])) / (sum(rate({METRIC}{{job="orders-api"}}[2m])) > 0)'
BAD_LOOKS = 3


def error_ratio(prometheus: str, query: str) -> float | None:
    """Share of failed requests, None without traffic. Raises `OSError` or `ValueError` when it cannot be asked."""
    url = f"{prometheus.rstrip('/')}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    with urllib.request.urlopen(url, timeout=10) as response:
        body = json.load(response)
    if body.get("status") != "success":
        raise ValueError(f"Prometheus answered {str(body)[:200]}")
    result = body["data"]["result"]
    return float(result[0]["value"][1]) if result else None


def watch(prometheus: str, *, query: str, duration_s: float, every_s: float) -> int:
    """Looks as often as fits into the time, however slow a look is; the exit code."""
    bad = blind = 0
    for _ in range(max(BAD_LOOKS, math.ceil(duration_s / every_s))):
        try:
            ratio = error_ratio(prometheus, query)
        except (OSError, ValueError, KeyError) as error:
            blind += 1
            print(f"cannot ask ({blind} of {BAD_LOOKS}): {error}", flush=True)
            if blind == BAD_LOOKS:
                print("FAILED: Prometheus cannot be asked; check PROMETHEUS_URL and the runner's network", file=sys.stderr)
                return 2
        else:
            blind = 0
            bad = bad + 1 if ratio is not None and ratio > LIMIT else 0
            print("no traffic" if ratio is None else f"error ratio {ratio:.5f} (limit {LIMIT:.5f})", flush=True)
            if bad == BAD_LOOKS:
                print(f"FAILED: above the limit {BAD_LOOKS} times in a row; rolling back is right", file=sys.stderr)
                return 1
        time.sleep(every_s)
    print("quiet")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prometheus", required=True, help="base URL")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--every-seconds", type=float, default=15)
    parser.add_argument("--query", default=QUERY)
    options = parser.parse_args()
    return watch(options.prometheus, query=options.query, duration_s=options.minutes * 60, every_s=options.every_seconds)


if __name__ == "__main__":
    sys.exit(main())
