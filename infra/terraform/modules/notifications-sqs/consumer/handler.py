"""The optional Lambda consumer of the notification queue: one POST a message, with its event id as key.

At least once. What failed, or was not begun while there was time, is named in the answer: only that is received again,
and after `max_receives` tries it is parked. Standard library only, so the package is this one file.
Test: tests/deploy/test_notification_consumer.py.
"""

from __future__ import annotations

import http.client
import json
import os
import urllib.parse
from typing import Any, Final, Protocol

POST_TIMEOUT_S: Final = 3.0
# A POST is begun only when it can also time out and be told of.
BEGIN_MARGIN_MS: Final = POST_TIMEOUT_S * 1000 + 1000


class Invocation(Protocol):
    """What the runtime tells of this call."""

    def get_remaining_time_in_millis(self) -> int: ...


class Refused(Exception):
    """The webhook answered, but not with a 2xx: a redirect is one too, because a followed POST becomes a GET."""


class Webhook:
    """One kept connection; made anew after a failure, because nobody knows what is still on its way on the old one."""

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.netloc, timeout=POST_TIMEOUT_S)
        self._path = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))

    def post(self, body: str) -> None:
        """Raises `OSError`, `http.client.HTTPException`, `Refused`, or `ValueError`, `KeyError`, `TypeError` for a body that is no notification."""
        key = str(json.loads(body)["event_id"])
        try:
            self._connection.request("POST", self._path, body.encode(), {"content-type": "application/json", "idempotency-key": key})
            answer = self._connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        if not 200 <= answer.status < 300:
            raise Refused(f"the webhook answered {answer.status}")

    def close(self) -> None:
        self._connection.close()


def handle(event: dict[str, Any], invocation: Invocation) -> dict[str, list[dict[str, str]]]:
    """The answer that an event source mapping with `ReportBatchItemFailures` expects."""
    failed: list[dict[str, str]] = []
    webhook = Webhook(os.environ["WEBHOOK_URL"])
    for record in event["Records"]:
        try:
            if invocation.get_remaining_time_in_millis() < BEGIN_MARGIN_MS:
                raise TimeoutError("no time left for it in this call")
            webhook.post(record["body"])
        except (OSError, http.client.HTTPException, Refused, ValueError, KeyError, TypeError) as error:
            # Never the body: it names a customer.
            print(
                json.dumps(
                    {"level": "warning", "event": "notification.failed", "message": record["messageId"], "error": f"{type(error).__name__}: {error}"}
                )
            )
            failed.append({"itemIdentifier": record["messageId"]})
    webhook.close()
    return {"batchItemFailures": failed}
