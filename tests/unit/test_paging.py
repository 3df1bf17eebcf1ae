"""Cursors: what we gave comes back, everything else is refused, and a page knows if it is the last."""

from __future__ import annotations

import base64
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidCursor
from service.web.paging import cut_page, decode_cursor, decode_uuid_cursor, encode_cursor, link_next

_IDS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40)


@given(_IDS)
def test_the_last_id_comes_back(last: str) -> None:
    cursor = encode_cursor("p", last)
    assert decode_cursor("p", cursor) == last
    assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"), "goes into a URL as it is"


@given(st.uuids())
def test_an_id_comes_back(last: UUID) -> None:
    assert decode_uuid_cursor("o", encode_cursor("o", str(last))) == last
    with pytest.raises(InvalidCursor):
        decode_uuid_cursor("p", encode_cursor("o", str(last)))


@given(st.text(max_size=64) | st.binary(max_size=40).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_anything_else_is_refused_and_nothing_else_is_raised(cursor: str) -> None:
    try:
        last = decode_cursor("o", cursor)
    except InvalidCursor:
        return
    assert encode_cursor("o", last) == cursor, "one cursor, one spelling"


def _raw(text: bytes) -> str:
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "cursor",
    ["", "=", "o", _raw(b"o"), _raw(b"x:1"), _raw(b"oo:1"), _raw(b"o:a\0b"), _raw(b"o:a\nb"), _raw(b"o:\xff"), encode_cursor("o", "1") + "=",
     encode_cursor("o", "1") + "\n",
     " " + encode_cursor("o", "1"), base64.b64encode(b"o:???>>>").decode().rstrip("="), "bzox" + "\ud800"],
)  # fmt: skip
def test_abuse(cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        decode_cursor("o", cursor)


def test_stray_bits_are_another_spelling() -> None:
    """`bzoy` and `bzoyMQ` have spellings with unused bits set; one position must not have two names."""
    good = encode_cursor("o", "21")
    assert len(good) % 4, "a cursor with unused bits"
    with pytest.raises(InvalidCursor):
        decode_cursor("o", good[:-1] + chr(ord(good[-1]) + 1))


@pytest.mark.parametrize("text", ["1", "{00000000-0000-0000-0000-000000000001}", "urn:uuid:00000000-0000-0000-0000-000000000001", "0" * 31 + "1"])
def test_an_id_has_one_spelling(text: str) -> None:
    with pytest.raises(InvalidCursor):
        decode_uuid_cursor("o", encode_cursor("o", text))


def test_the_first_page_has_no_cursor() -> None:
    assert decode_uuid_cursor("o", None) is None


@pytest.mark.parametrize(("rows", "page", "more"), [(0, 0, False), (2, 2, False), (3, 3, False), (4, 3, True)])
def test_one_row_too_many_says_there_is_more(rows: int, page: int, *, more: bool) -> None:
    assert cut_page(range(rows), 3) == (range(page), more)


def test_the_link_keeps_the_filter_and_moves_the_cursor() -> None:
    link = link_next("/v1/orders", {"status": "paid", "customer_id": "a&b=c", "limit": 5, "cursor": "old", "none": None}, "new")
    target, _, relation = link.partition("; ")
    assert relation == 'rel="next"'
    url = urlsplit(target.strip("<>"))
    assert (url.path, parse_qs(url.query)) == ("/v1/orders", {"status": ["paid"], "customer_id": ["a&b=c"], "limit": ["5"], "cursor": ["new"]})
