"""The request body: bounded in bytes and time, then JSON read strictly, exactly once.

orjson alone would accept duplicate members (last wins) and any depth; both are refused here,
because two readers that disagree about a body are an attack.
"""

from __future__ import annotations

import json
from typing import Any, Final

import orjson
from starlette.types import Receive

from service.errors import InvalidJson, MalformedRequest, RequestTimeout, TooLarge, UnsupportedMediaType
from service.foundation.deadline import within
from service.settings import HttpSettings
from service.web.head import Head

_BOM: Final = b"\xef\xbb\xbf"
_OPENERS: Final = frozenset(b"{[")
_CLOSERS: Final = frozenset(b"}]")
_QUOTE, _BACKSLASH = 0x22, 0x5C


async def read_body(head: Head, receive: Receive, settings: HttpSettings, *, required: bool) -> bytes:
    """The whole body. Raises `UnsupportedMediaType`, `TooLarge` (counted while streaming), `RequestTimeout`."""
    if head.get(b"content-encoding") is not None:
        raise UnsupportedMediaType("send the body uncompressed")
    declared = head.get(b"content-length")
    if declared is not None and _exceeds(declared, settings.body_bytes):
        raise TooLarge(f"at most {settings.body_bytes} bytes")
    try:
        body = await within(settings.receive_deadline_ms / 1000, _collect(receive, settings.body_bytes))
    except TimeoutError as error:
        raise RequestTimeout(headers={"connection": "close"}) from error
    if (body or required) and not _is_json(head.get(b"content-type") or b""):
        raise UnsupportedMediaType("send content-type: application/json")
    return body


def _exceeds(declared: bytes, limit: int) -> bool:
    # Compared as text of digits: int() refuses 5,000 of them.
    return declared.isdigit() and (len(declared), declared) > (len(str(limit)), str(limit).encode())


async def _collect(receive: Receive, limit: int) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise MalformedRequest("the connection closed before the body was complete")
        body += message.get("body", b"")
        if len(body) > limit:
            raise TooLarge(f"at most {limit} bytes")
        if not message.get("more_body", False):
            return bytes(body)


def _is_json(content_type: bytes) -> bool:
    if content_type == b"application/json":
        return True
    media, _, parameters = content_type.decode("latin-1").partition(";")
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    return media.strip().lower() == "application/json" and charset in ("", "utf-8")


def parse_json(body: bytes, *, max_depth: int) -> Any:
    """The value. Raises `InvalidJson` for anything two parsers could read differently, or deeper than `max_depth`."""
    if body.startswith(_BOM):
        raise InvalidJson("no byte order mark, please")
    if _too_deep(body, max_depth):
        raise InvalidJson(f"nested deeper than {max_depth}")
    try:
        # orjson is strict about UTF-8, lone surrogates, NaN and trailing data.
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidJson("not valid JSON in UTF-8") from error
    if b"\\u0000" in body and _holds_nul(value):
        raise InvalidJson("U+0000 is not allowed")
    if _may_repeat_a_member(body, value):
        _refuse_duplicates(body)
    return value


def _too_deep(body: bytes, max_depth: int) -> bool:
    if body.count(b"{") + body.count(b"[") <= max_depth:
        return False
    depth, in_string, escaped = 0, False, False
    for byte in body:
        if in_string:
            escaped, in_string = byte == _BACKSLASH and not escaped, not (byte == _QUOTE and not escaped)
        elif byte == _QUOTE:
            in_string = True
        elif byte in _OPENERS:
            depth += 1
            if depth > max_depth:
                return True
        elif byte in _CLOSERS:
            depth -= 1
    return False


def _holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_holds_nul(key) or _holds_nul(item) for key, item in value.items())
    return isinstance(value, list) and any(_holds_nul(item) for item in value)


def _may_repeat_a_member(body: bytes, value: Any) -> bool:
    # Each member has a colon, and strings keep theirs: a member too many is a colon that is not there when the value is written
    # again. Unless colons are hidden in escapes: then, too, the slow look decides.
    return b"\\u" in body or body.count(b":") != orjson.dumps(value).count(b":")


def _refuse_duplicates(body: bytes) -> None:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) != len(pairs):
            raise InvalidJson("a member appears twice")
        return dict(pairs)

    json.loads(body, object_pairs_hook=once)
