"""Strong ETags `"<version>.<representation>"`, `If-None-Match` and `If-Match`.

The representation part changes when the JSON of a resource changes, so that caches let go of the old form.
`If-Match` compares the version part only: a new representation is not a lost update.
"""

from __future__ import annotations

import re
from typing import Final

from starlette.responses import Response

from service.errors import InvalidPrecondition, PreconditionRequired
from service.foundation.cache import Entry
from service.web.exchange import Reply
from service.web.head import Head

_PRIVATE: Final = b"cache-control: private, no-cache\r\nvary: Authorization\r\n"
# Head lines of what is one caller's own and may change at any moment.
PRIVATE_JSON: Final = _PRIVATE + b"content-type: application/json\r\n"
_ETAG: Final = re.compile(r'"([1-9][0-9]{0,8})\.[0-9]{1,4}"')


def etag(version: int, representation: int) -> str:
    """The header value."""
    return f'"{version}.{representation}"'


def not_modified(if_none_match: str | None, current: str) -> bool:
    """RFC 9110 §13.1.2: weak comparison against a list, or `*`."""
    if if_none_match is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return current in tags or "*" in tags


def version_of(tag: str) -> int:
    """The version in one of our own ETags."""
    return int(tag[1:].partition(".")[0])


def entry_response(head: Head, entry: Entry, representation: int) -> Response:
    """A cached object as 200, or 304 if the caller has it; `Age` says how old the copy is."""
    tag = b'"%d.%d"' % (entry.version, representation)
    lines = b"etag: %b\r\n" % tag
    if entry.age_s >= 1:
        lines += b"age: %d\r\n" % entry.age_s
    known = head.get(b"if-none-match")
    if known is not None and (known == tag or not_modified(known.decode("latin-1"), tag.decode())):
        return Reply(b"", lines + _PRIVATE, status=304)
    return Reply(entry.data, lines + PRIVATE_JSON)


def required_version(if_match: list[str]) -> int:
    """The version a change is based on. Raises `PreconditionRequired` (none), `InvalidPrecondition` (`*`, weak, lists)."""
    if not if_match:
        raise PreconditionRequired("send If-Match with the ETag you last saw")
    match = _ETAG.fullmatch(if_match[0].strip()) if len(if_match) == 1 else None
    if match is None:
        raise InvalidPrecondition('send one strong ETag, such as If-Match: "3.1"')
    return int(match[1])
