"""Strong tags `"version.representation"`: what matches, what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidPrecondition, PreconditionRequired
from service.web.etags import etag, not_modified, required_version


@given(st.integers(1, 999_999_999), st.integers(0, 9_999))
def test_what_we_say_is_what_we_take_back(version: int, representation: int) -> None:
    tag = etag(version, representation)
    assert required_version([tag]) == version
    assert required_version([f" {tag} "]) == version
    assert not_modified(tag, tag)


@pytest.mark.parametrize("sent", ['"1.1"', 'W/"1.1"', '"0.9", "1.1"', '"x","1.1"', "*", ' "1.1" ', 'W/"2.1", W/"1.1"'])
def test_if_none_match_that_matches(sent: str) -> None:
    assert not_modified(sent, '"1.1"')


@pytest.mark.parametrize("sent", [None, "", '"1.2"', '"11.1"', "1.1", '"1.1', 'w/"1.1"', '"1.1" "1.1"'])
def test_if_none_match_that_does_not(sent: str | None) -> None:
    assert not not_modified(sent, '"1.1"')


@pytest.mark.parametrize(
    "sent",
    ["*", 'W/"1.1"', "1.1", '"1"', '"1."', '".1"', '"0.1"', '"-1.1"', '"01.1"', '"1.1","2.1"', '"1.12345"', '"9999999999.1"', "", '""', '"\u0661.1"'],
)
def test_if_match_that_is_unusable(sent: str) -> None:
    with pytest.raises(InvalidPrecondition):
        required_version([sent])


def test_if_match_is_one_header_and_must_be_there() -> None:
    with pytest.raises(PreconditionRequired):
        required_version([])
    with pytest.raises(InvalidPrecondition):
        required_version(['"1.1"', '"1.1"'])


@given(st.text(max_size=40))
def test_anything_else_is_refused_not_crashed(sent: str) -> None:
    try:
        version = required_version([sent])
    except InvalidPrecondition:
        return
    assert version >= 1
    assert sent.strip().startswith(f'"{version}.')
