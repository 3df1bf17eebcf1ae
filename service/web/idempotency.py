"""The Idempotency-Key header, and a keyed answer as a response.

Draft-ietf-httpapi-idempotency-key-header: a quoted structured-field string or a bare token name the same key.
What a key means is in service/answers.py; the one-statement create in service/orders/placing.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from starlette.responses import Response

from service.answers import StoredAnswer
from service.errors import IdempotencyKeyInvalid, IdempotencyKeyMissing
from service.web.exchange import Reply
from service.web.head import head_lines

_QUOTED: Final = re.compile(r'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\]){1,255})"')
_VISIBLE: Final = re.compile(r"[\x21-\x7e]{1,255}")


def read_key(values: Sequence[bytes]) -> str:
    """1–255 visible ASCII characters. Raises `IdempotencyKeyMissing`, `IdempotencyKeyInvalid`."""
    if not values:
        raise IdempotencyKeyMissing("send a fresh UUID as Idempotency-Key, and the same one when you retry")
    value = values[0].decode("latin-1").strip()
    quoted = _QUOTED.fullmatch(value)
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else value
    if len(values) > 1 or (value.startswith('"') and not quoted) or not _VISIBLE.fullmatch(key):
        raise IdempotencyKeyInvalid("exactly one header, 1 to 255 visible ASCII characters")
    return key


def answer_response(answer: StoredAnswer) -> Response:
    """The answer as it was first given; a replay says so in `Idempotent-Replayed`."""
    lines = head_lines([(name.encode(), value.encode("latin-1")) for name, value in answer.headers.items()])
    if answer.replayed:
        lines += b"idempotent-replayed: true\r\n"
    return Reply(answer.body, lines, status=answer.status)
