"""The `helm test` script against a small server of our own: each scene holds, and each fails when it should."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from rendering import CHART

SMOKE = CHART / "files" / "smoke" / "smoke.py"


class Shop(ThreadingHTTPServer):
    """One order; `dials` break it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.dials: dict[str, Any] = {"ready": 200, "anonymous": 401, "moves": 2, "end": "cancelled"}
        self.version = 1
        self.hosts: set[str] = set()


class Answers(BaseHTTPRequestHandler):
    server: Shop

    def reply(self, status: int, body: object = None) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("ETag", f'"{self.server.version}.1"')
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def allowed(self) -> bool:
        self.server.hosts.add(self.headers["Host"])
        return self.headers.get("Authorization") == "Bearer good"

    def do_GET(self) -> None:
        if self.path == "/health/ready":
            self.server.hosts.add(self.headers["Host"])
            self.reply(self.server.dials["ready"])
        elif not self.allowed():
            self.reply(self.server.dials["anonymous"])
        else:
            self.reply(200, {"id": "1", "status": "placed"})

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.allowed() or not self.headers.get("Idempotency-Key"):
            self.reply(401)
        elif self.path == "/v1/orders":
            self.reply(201 if sent["lines"] == [{"sku": "SKU-0001", "quantity": 1}] else 422, {"id": "1"})
        elif self.server.dials["moves"] > 0 or self.headers["If-Match"] != f'"{self.server.version}.1"':
            self.server.dials["moves"] -= 1
            self.server.version += 1
            self.reply(412)
        else:
            self.reply(200, {"status": self.server.dials["end"]})


@pytest.fixture
def shop() -> Iterator[Shop]:
    server = Shop()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join(5)
    server.server_close()


def run(scene: str, shop: Shop, tmp_path: Path, *, token: str = "good") -> subprocess.CompletedProcess[str]:  # noqa: S107
    (tmp_path / "token").write_text(token + "\n", encoding="utf-8")
    url = f"http://127.0.0.1:{shop.server_address[1]}"
    env = {
        "SMOKE_API": url,
        "SMOKE_OPS": url,
        "SMOKE_HOST": "orders.example.com",
        "SMOKE_SKU": "SKU-0001",
        "SMOKE_TOKEN_FILE": str(tmp_path / "token"),
    }
    return subprocess.run([sys.executable, str(SMOKE), scene], env=env, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("scene", ["ready", "refusal", "order"])
def test_scene_holds(scene: str, shop: Shop, tmp_path: Path) -> None:
    ended = run(scene, shop, tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert shop.hosts == {"orders.example.com"}, "the Host must be one the service serves"


@pytest.mark.parametrize(
    ("scene", "dial", "said"),
    [
        ("ready", {"ready": 503}, "expected 200, got 503"),
        ("refusal", {"anonymous": 200}, "expected 401, got 200"),
        ("order", {"moves": 99}, "expected 200, got 412"),
        ("order", {"end": "paid"}, "the cancelled order says 'paid'"),
    ],
)
def test_scene_fails(scene: str, dial: dict[str, object], said: str, shop: Shop, tmp_path: Path) -> None:
    shop.dials.update(dial)
    ended = run(scene, shop, tmp_path)
    assert ended.returncode == 1
    assert said in ended.stderr


def test_a_bad_token_fails_the_order(shop: Shop, tmp_path: Path) -> None:
    assert run("order", shop, tmp_path, token="stale").returncode == 1


def test_nobody_there_is_a_sentence_not_a_trace(tmp_path: Path) -> None:
    server = Shop()
    server.server_close()
    ended = run("ready", server, tmp_path)
    assert ended.returncode == 1
    assert "is the Service up" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_unknown_scene_is_a_usage_error(shop: Shop, tmp_path: Path) -> None:
    assert run("dance", shop, tmp_path).returncode == 2
