"""The watch after a deployment goes back when it should, and only then."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WATCH = ROOT / "deploy" / "slo_watch.py"


class Prometheus(ThreadingHTTPServer):
    """Answers the ratios in turn, the last one for ever; None is no traffic, an int is an HTTP status."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.ratios: list[float | int | None] = []
        self.looks = 0


class Answers(BaseHTTPRequestHandler):
    server: Prometheus

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        ratio = self.server.ratios[min(self.server.looks, len(self.server.ratios) - 1)]
        self.server.looks += 1
        result = [] if ratio is None else [{"value": [0, str(ratio)]}]
        raw = json.dumps({"status": "success", "data": {"result": result}}).encode()
        self.send_response(ratio if isinstance(ratio, int) else 200)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


@pytest.fixture
def prometheus() -> Iterator[Prometheus]:
    server = Prometheus()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join(5)
    server.server_close()


@pytest.mark.parametrize(
    ("ratios", "code"),
    [
        ([0.0], 0),
        ([None], 0),
        ([0.5, 0.5, 0.0], 0),
        ([0.5, 0.5, 0.0, 0.5, 0.5, 0.0], 0),
        ([0.0, 0.0144], 0),
        ([0.0, 0.0145], 1),
        ([500, 500, 0.0], 0),
        ([0.0, 500], 2),
    ],
)
def test_verdict(prometheus: Prometheus, ratios: list[float | int | None], code: int) -> None:
    prometheus.ratios = ratios
    url = f"http://127.0.0.1:{prometheus.server_address[1]}"
    ended = subprocess.run(
        [sys.executable, str(WATCH), "--prometheus", url, "--minutes", "0.01", "--every-seconds", "0.05"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert ended.returncode == code, ended.stdout + ended.stderr


def test_the_metric_is_the_services() -> None:
    source = (ROOT / "service" / "foundation" / "metrics.py").read_text(encoding="utf-8")
    (metric,) = re.findall(r'^METRIC = "(\w+)"', WATCH.read_text(encoding="utf-8"), re.MULTILINE)
    assert f'"{metric}"' in source
