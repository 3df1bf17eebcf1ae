"""The Idempotency-Key header: bare and quoted name the same key, nothing else is a key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from service.answers import StoredAnswer
from service.errors import IdempotencyKeyInvalid, IdempotencyKeyMissing
from service.web.idempotency import answer_response, read_key

_VISIBLE = [chr(code) for code in range(0x21, 0x7F)]


def _headers(*values: str) -> Headers:
    return Headers(raw=[(b"idempotency-key", value.encode("latin-1")) for value in values])


@given(st.text(st.sampled_from(_VISIBLE), min_size=1, max_size=255))
def test_bare_and_quoted_are_the_same_key(key: str) -> None:
    quoted = '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert read_key(_headers(quoted)) == read_key(_headers(f"  {quoted}\t")) == key
    if not key.startswith('"'):
        assert read_key(_headers(key)) == key


@given(st.text(st.characters(max_codepoint=0xFF), max_size=300))
def test_any_header_is_a_visible_key_or_refused(value: str) -> None:
    try:
        key = read_key(_headers(value))
    except IdempotencyKeyInvalid:
        return
    assert 1 <= len(key) <= 255
    assert set(key) <= set(_VISIBLE)


def test_no_header_is_its_own_error() -> None:
    with pytest.raises(IdempotencyKeyMissing):
        read_key(Headers())


@pytest.mark.parametrize(
    "values",
    [[""], ['""'], ['"a'], ['"'], ['"a"b'], ['"a"b"'], ['"a\\"'], ['"a\\bc"'], ["a b"], ['"a b"'], ["é"],
     ["a\0"], ["a" * 256], ['"' + "a" * 256 + '"'], ["a", "a"], ["a", "b"]],
)  # fmt: skip
def test_what_is_no_key(values: list[str]) -> None:
    with pytest.raises(IdempotencyKeyInvalid):
        read_key(_headers(*values))


@pytest.mark.parametrize("key", ["a" * 255, "a,b", 'a"b', "a\\b", "0"])
def test_unusual_keys(key: str) -> None:
    assert read_key(_headers(key)) == key


def test_a_replay_says_so_and_is_otherwise_the_same() -> None:
    headers = {"location": "/v1/orders/1", "content-type": "application/json"}
    first = answer_response(StoredAnswer(201, headers, b"{}"))
    again = answer_response(StoredAnswer(201, headers, b"{}", replayed=True))
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert (first.status_code, first.body) == (again.status_code, again.body) == (201, b"{}")
    assert dict(again.headers) == {**first.headers, "idempotent-replayed": "true"}
    assert "idempotent-replayed" not in headers, "the stored answer itself is not touched"
