"""JSON bodies: read strictly, once, and never in two ways."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidJson
from service.web.body import parse_json

_REFUSED = {
    "duplicate member": b'{"a":1,"a":1}', "duplicate member, escaped": b'{"a":1,"\\u0061":2}', "nested duplicate": b'{"x":[{"k":1,"k":2}]}',
    "deep": b"[" * 9 + b"]" * 9, "very deep": b"[" * 100_000, "deep mixed": b'{"a":' * 9 + b"1" + b"}" * 9,
    "NUL": b'{"a":"\\u0000"}', "NUL in a name": b'{"\\u0000":1}', "raw NUL": b'{"a":"\x00"}', "lone surrogate": b'{"a":"\\ud800"}',
    "BOM": b"\xef\xbb\xbf{}", "NaN": b'{"a":NaN}', "Infinity": b'{"a":-Infinity}', "invalid UTF-8": b'{"a":"\xff"}',
    "UTF-16": '{"a":1}'.encode("utf-16"), "trailing data": b"{}{}", "truncated": b'{"a":', "empty": b"", "comment": b"{}//x",
    "single quotes": b"{'a':1}",
}  # fmt: skip


@pytest.mark.parametrize("name", _REFUSED)
def test_what_two_readers_could_read_differently_is_refused(name: str) -> None:
    with pytest.raises(InvalidJson):
        parse_json(_REFUSED[name], max_depth=8)


def test_brackets_inside_strings_are_not_depth() -> None:
    assert parse_json(b'{"a":"[[[[[[[[[[\\"[[["}', max_depth=2) == {"a": '[[[[[[[[[["[[['}


_TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=12)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(_VALUES)
def test_good_json_is_read_as_the_standard_library_reads_it(value: Any) -> None:
    body = json.dumps(value).encode()
    assert parse_json(body, max_depth=100) == value


@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_invalid_json(body: bytes) -> None:
    try:
        parse_json(body, max_depth=8)
    except InvalidJson:
        return
    json.loads(body)  # what we accept, the standard library accepts too


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers()), max_size=5))
def test_a_repeated_member_is_always_found(pairs: list[tuple[str, int]]) -> None:
    body = ("{" + ",".join(f'"{name}": {value}' for name, value in pairs) + "}").encode()
    names = [name for name, _ in pairs]
    if len(set(names)) == len(names):
        assert parse_json(body, max_depth=8) == dict(pairs)
    else:
        with pytest.raises(InvalidJson):
            parse_json(body, max_depth=8)
