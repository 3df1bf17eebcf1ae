"""The queue's Lambda consumer loses nothing: whatever the webhook did not take is named, and only that."""

from __future__ import annotations

import json
import runpy
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
HANDLER = ROOT / "infra/terraform/modules/notifications-sqs/consumer/handler.py"
handle = runpy.run_path(str(HANDLER))["handle"]


class Receiver(ThreadingHTTPServer):
    """Answers with the status that stands in the message; keeps what came, by key, and counts connections."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.got: list[tuple[str, dict[str, Any]]] = []
        self.connections = 0


class Answers(BaseHTTPRequestHandler):
    server: Receiver
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.got.append((self.headers["idempotency-key"], message))
        if message.get("answer") == 0:
            self.connection.close()
            return
        self.send_response(message.get("answer", 204))
        self.send_header("location", "/elsewhere")
        self.send_header("content-length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        raise AssertionError("a redirect was followed")


class Left:
    """An invocation with this much time left at each look; the last one for ever."""

    def __init__(self, *milliseconds: int) -> None:
        self.milliseconds = list(milliseconds)

    def get_remaining_time_in_millis(self) -> int:
        return self.milliseconds.pop(0) if len(self.milliseconds) > 1 else self.milliseconds[0]


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    server = Receiver()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("WEBHOOK_URL", f"http://127.0.0.1:{server.server_port}/notify?from=queue")
    yield server
    server.shutdown()
    server.server_close()


def batch(*bodies: object) -> dict[str, Any]:
    return {"Records": [{"messageId": f"m{n}", "body": body if isinstance(body, str) else json.dumps(body)} for n, body in enumerate(bodies)]}


def failed(answer: dict[str, Any]) -> list[str]:
    return [item["itemIdentifier"] for item in answer["batchItemFailures"]]


def test_what_is_taken_is_done_over_one_connection(receiver: Receiver) -> None:
    answer = handle(batch(*({"event_id": f"e{n}", "type": "order.paid"} for n in range(10))), Left(40_000))
    assert answer == {"batchItemFailures": []}
    assert [key for key, _ in receiver.got] == [f"e{n}" for n in range(10)]
    assert receiver.got[3][1] == {"event_id": "e3", "type": "order.paid"}
    assert receiver.connections == 1


@pytest.mark.parametrize("status", [302, 307, 400, 429, 500, 503, 0])
def test_only_what_was_not_taken_comes_again(receiver: Receiver, status: int) -> None:
    answer = handle(batch({"event_id": "a"}, {"event_id": "b", "answer": status}, {"event_id": "c"}), Left(40_000))
    assert failed(answer) == ["m1"]
    assert [key for key, _ in receiver.got] == ["a", "b", "c"]


@pytest.mark.parametrize("body", ["", "not JSON", "[]", "null", '{"type":"order.paid"}'])
def test_what_is_no_notification_is_parked_alone(receiver: Receiver, body: str) -> None:
    assert failed(handle(batch({"event_id": "a"}, body, {"event_id": "c"}), Left(40_000))) == ["m1"]
    assert [key for key, _ in receiver.got] == ["a", "c"]


def test_nothing_is_begun_that_cannot_be_ended(receiver: Receiver) -> None:
    answer = handle(batch({"event_id": "a"}, {"event_id": "b"}, {"event_id": "c"}), Left(40_000, 3_999))
    assert failed(answer) == ["m1", "m2"]
    assert [key for key, _ in receiver.got] == ["a"]


def test_a_webhook_that_is_away_fails_the_whole_batch(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver.server_close()
    answer = handle(batch({"event_id": "a", "customer_id": "customer-1"}, {"event_id": "b"}), Left(40_000))
    assert failed(answer) == ["m0", "m1"]
    said = capsys.readouterr().out
    assert [json.loads(line)["event"] for line in said.splitlines()] == ["notification.failed"] * 2
    assert "customer-1" not in said
