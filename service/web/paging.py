"""Keyset pages: the cursor is the last id seen, opaque, bound to the resource by its prefix.

No COUNT, no OFFSET: page 5,000 costs what page 1 costs. The query binds the owner, so a foreign cursor shows nothing.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any, TypeVar
from urllib.parse import urlencode
from uuid import UUID

from service.errors import InvalidCursor
from service.web.etags import PRIVATE_JSON
from service.web.head import head_lines

T = TypeVar("T")


def encode_cursor(kind: str, last: str) -> str:
    """base64url of `kind:last`, without padding."""
    return base64.urlsafe_b64encode(f"{kind}:{last}".encode()).rstrip(b"=").decode()


def decode_cursor(kind: str, cursor: str) -> str:
    """The last id. Raises `InvalidCursor` for anything `encode_cursor(kind, …)` did not make."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise InvalidCursor from error
    if not text.startswith(f"{kind}:") or not text.isprintable() or encode_cursor(kind, text[len(kind) + 1 :]) != cursor:
        raise InvalidCursor  # unprintable: PostgreSQL refuses U+0000 in text
    return text[len(kind) + 1 :]


def decode_uuid_cursor(kind: str, cursor: str | None) -> UUID | None:
    """As `decode_cursor`, for ids; None stays None."""
    if cursor is None:
        return None
    text = decode_cursor(kind, cursor)
    try:
        found = UUID(text)
    except ValueError as error:
        raise InvalidCursor from error
    if str(found) != text:  # UUID() takes braces and urn: too
        raise InvalidCursor
    return found


def cut_page(rows: Sequence[T], limit: int) -> tuple[Sequence[T], bool]:
    """(the page, is there more), given `limit + 1` rows were asked for."""
    return rows[:limit], len(rows) > limit


def page_lines(path: str, query: dict[str, Any], cursor: str | None) -> bytes:
    """Head lines of one caller's page; `Link` names the next one if there is one."""
    return PRIVATE_JSON if cursor is None else PRIVATE_JSON + head_lines([(b"link", link_next(path, query, cursor).encode())])


def link_next(path: str, query: dict[str, Any], cursor: str) -> str:
    """RFC 8288 `Link` header value for the next page."""
    kept = {name: value for name, value in query.items() if value is not None} | {"cursor": cursor}
    return f'<{path}?{urlencode(kept)}>; rel="next"'
