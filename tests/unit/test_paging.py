"""Cursors: ours come back as they were, nothing else is taken; pages are cut, links quoted."""

from __future__ import annotations

import base64
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidCursor
from service.web.paging import cut_page, decode_cursor, decode_uuid_cursor, encode_cursor, link_next

PRINTABLE = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40)


@given(PRINTABLE)
def test_ours_come_back(last: str) -> None:
    cursor = encode_cursor("product", last)
    assert decode_cursor("product", cursor) == last
    assert "=" not in cursor
    with pytest.raises(InvalidCursor):
        decode_cursor("order", cursor)


@given(st.uuids())
def test_ids_come_back(found: UUID) -> None:
    cursor = encode_cursor("order", str(found))
    assert decode_uuid_cursor("order", cursor) == found
    assert len(cursor) <= 64, "the schema's bound"
    with pytest.raises(InvalidCursor):
        decode_uuid_cursor("order", encode_cursor("order", found.hex))


@given(st.text(max_size=70))
def test_whatever_is_taken_is_what_we_would_have_said(cursor: str) -> None:
    try:
        last = decode_cursor("order", cursor)
    except InvalidCursor:
        return
    assert encode_cursor("order", last) == cursor


@given(st.binary(max_size=40))
def test_bytes_behind_a_cursor_are_refused_not_crashed(raw: bytes) -> None:
    cursor = base64.urlsafe_b64encode(b"order:" + raw).rstrip(b"=").decode()
    try:
        assert decode_cursor("order", cursor).isprintable()
    except InvalidCursor:
        return


def test_no_cursor_is_the_first_page() -> None:
    assert decode_uuid_cursor("order", None) is None


@given(st.integers(1, 100), st.integers(0, 101))
def test_one_row_too_many_means_more(limit: int, found: int) -> None:
    rows = list(range(min(found, limit + 1)))
    page, more = cut_page(rows, limit)
    assert (list(page), more) == (rows[:limit], found > limit)


def test_a_link_keeps_the_question_and_quotes_it() -> None:
    link = link_next("/v1/orders", {"status": "paid", "limit": 5, "customer_id": "a b>", "cursor": "old"}, "new")
    assert link == '</v1/orders?status=paid&limit=5&customer_id=a+b%3E&cursor=new>; rel="next"'


@pytest.mark.parametrize("last", ["2", "21"])
def test_unused_bits_and_padding_are_another_spelling_and_refused(last: str) -> None:
    """base64 decoders ignore them, so one position would have several cursors."""
    cursor = encode_cursor("o" * (1 + len(last) % 2), last)
    assert len(cursor) % 4, "a cursor with unused bits"
    for other in (cursor[:-1] + chr(ord(cursor[-1]) + 1), cursor + "="):
        with pytest.raises(InvalidCursor):
            decode_cursor("o" * (1 + len(last) % 2), other)
