"""The key header: quoted or bare it is the same key; everything else is one of two clear errors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.answers import StoredAnswer, fingerprint
from service.errors import IdempotencyKeyInvalid, IdempotencyKeyMissing
from service.web.idempotency import answer_response, read_key

VISIBLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=255)


def read(*values: bytes) -> str:
    return read_key(values)


def quoted(key: str) -> bytes:
    return b'"' + key.replace("\\", "\\\\").replace('"', '\\"').encode() + b'"'


@given(VISIBLE)
def test_quoted_and_bare_are_the_same_key(key: str) -> None:
    assert read(quoted(key)) == key
    if not key.startswith('"'):
        assert read(key.encode()) == read(b"  " + key.encode() + b" ") == key


@given(st.binary(max_size=300))
def test_anything_is_a_visible_key_or_refused(value: bytes) -> None:
    try:
        key = read(value)
    except IdempotencyKeyInvalid:
        return
    assert 1 <= len(key) <= 255
    assert all(0x21 <= ord(character) <= 0x7E for character in key)


@pytest.mark.parametrize(
    "value", [b"", b'""', b'"', b'"a', b'"a"b', b'"a\\"', b"a b", b'"a b"', b"k" * 256, quoted("k" * 256), b"\xc3\xa9", b"a\x00b", b'"\\n"']
)
def test_what_is_no_key(value: bytes) -> None:
    with pytest.raises(IdempotencyKeyInvalid):
        read(value)


def test_exactly_one() -> None:
    with pytest.raises(IdempotencyKeyMissing):
        read()
    with pytest.raises(IdempotencyKeyInvalid):
        read(b"a", b"a")


JSON = st.dictionaries(st.text(max_size=5), st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=4)


@given(JSON, st.randoms())
def test_a_fingerprint_knows_the_request_and_not_its_spelling(body: dict[str, object], dice: object) -> None:
    print_ = fingerprint("POST", "/v1/orders", "anna", body)
    names = list(body)
    dice.shuffle(names)  # type: ignore[attr-defined]
    assert fingerprint("POST", "/v1/orders", "anna", {name: body[name] for name in names}) == print_
    others = [("PATCH", "/v1/orders", "anna", body), ("POST", "/v1/order", "anna", body), ("POST", "/v1/orders", "ben", body)]
    others.append(("POST", "/v1/orders", "anna", body | {"another": 1}))
    assert print_ not in {fingerprint(*other) for other in others}


def test_a_replay_says_so_and_is_otherwise_the_same() -> None:
    headers = {"location": "/v1/orders/1", "content-type": "application/json"}
    first = answer_response(StoredAnswer(201, headers, b"{}"))
    again = answer_response(StoredAnswer(201, headers, b"{}", replayed=True))
    assert "idempotent-replayed" not in first.headers
    assert dict(again.headers) == {**first.headers, "idempotent-replayed": "true"}
    assert (first.status_code, first.body) == (again.status_code, again.body) == (201, b"{}")
    assert "idempotent-replayed" not in headers, "the stored answer itself is not touched"
