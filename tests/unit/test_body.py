"""The strict JSON reader: whatever it takes, the standard library reads the same; two readings mean a refusal."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InvalidJson
from service.web.body import parse_json

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
BYTES = st.lists(
    st.sampled_from([b"{", b"}", b"[", b"]", b'"', b":", b",", b"\\", b"a", b"1", b"null", b" ", b"\\u0000", b"\\ud800", b'"a":1', b"\xff"]),
    max_size=24,
)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@settings(max_examples=80)
@given(VALUES, st.booleans())
def test_json_is_read_as_written(value: Any, escaped: bool) -> None:  # noqa: FBT001 - hypothesis names its arguments
    body = json.dumps(value, ensure_ascii=escaped).encode()
    if depth(value) > 8:
        with pytest.raises(InvalidJson):
            parse_json(body, max_depth=8)
    else:
        assert parse_json(body, max_depth=8) == value


@settings(max_examples=150)
@given(BYTES)
def test_what_is_taken_has_one_reading(pieces: list[bytes]) -> None:
    body = b"".join(pieces)
    try:
        found = parse_json(body, max_depth=8)
    except InvalidJson:
        return

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs), "a member twice"
        return dict(pairs)

    assert json.loads(body.decode(), object_pairs_hook=once) == found
    assert "\0" not in json.dumps(found, ensure_ascii=False)
    assert depth(found) <= 8


@given(st.dictionaries(TEXT, VALUES, min_size=1, max_size=4), st.data())
def test_a_member_twice_is_refused_wherever_it_is(members: dict[str, Any], data: st.DataObject) -> None:
    again = data.draw(st.sampled_from(sorted(members)))
    pairs = [*members.items(), (again, 1)]
    text = "{" + ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in pairs) + "}"
    for body in (text, f'[{{"x":{text}}}]'):
        with pytest.raises(InvalidJson):
            parse_json(body.encode(), max_depth=99)


@pytest.mark.parametrize(
    "body", [b'{"a":"b:c","d":"}{][:"}', b'{"a:":1,":b":[":"]}', b'{"a":"\\"{[","b":"\\\\"}', b'["\\\\","[[[[[[[[[["]', b' \n{"a" : 1}\t']
)
def test_signs_inside_strings_are_text(body: bytes) -> None:
    assert parse_json(body, max_depth=2) == json.loads(body)


@pytest.mark.parametrize("opener", [b"[", b'{"a":'])
def test_depth_is_counted_before_anything_is_built(opener: bytes) -> None:
    closer = b"]" if opener == b"[" else b"}"
    assert parse_json(opener * 8 + b"1" + closer * 8, max_depth=8)
    for levels in (9, 30_000):
        with pytest.raises(InvalidJson):
            parse_json(opener * levels + b"1" + closer * levels, max_depth=8)
    assert parse_json(b"[" + b"{}," * 50 + b"{}]", max_depth=2) == [{}] * 51, "wide is not deep"
