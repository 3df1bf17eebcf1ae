"""ETags: ours are strong and versioned; a change must name exactly one of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidPrecondition, PreconditionRequired
from service.web.etags import etag, not_modified, required_version, version_of


@given(st.integers(1, 999_999_999), st.integers(1, 9_999))
def test_the_version_comes_back(version: int, representation: int) -> None:
    tag = etag(version, representation)
    assert version_of(tag) == version
    assert required_version([tag]) == version
    assert not_modified(tag, tag)


@pytest.mark.parametrize(
    ("if_none_match", "same"),
    [
        (None, False),
        ("", False),
        ('"3.1"', True),
        ('W/"3.1"', True),
        ("*", True),
        ('"2.1", "3.1"', True),
        ('"2.1",W/"3.1" , "4.1"', True),
        ('"3.2"', False),  # the JSON changed its form
        ('"2.1"', False),
        ('"13.1"', False),
        ("3.1", False),
    ],
)
def test_if_none_match(if_none_match: str | None, *, same: bool) -> None:
    assert not_modified(if_none_match, '"3.1"') is same


def test_a_new_representation_is_no_lost_update() -> None:
    assert required_version(['"3.1"']) == required_version(['"3.2"']) == 3
    assert required_version([' "3.1" ']) == 3


def test_without_if_match_nothing_may_change() -> None:
    with pytest.raises(PreconditionRequired):
        required_version([])


@pytest.mark.parametrize(
    "values",
    [["*"], ['W/"3.1"'], ['"3.1", "4.1"'], ['"3.1"', '"3.1"'], ["3.1"], ['"3"'], ['"0.1"'], ['"03.1"'], ['"-3.1"'], ['"3.1"x'], [""],
     ['"9999999999.1"'], ['"٣.1"']],
)  # fmt: skip
def test_what_would_not_protect_the_change_is_refused(values: list[str]) -> None:
    with pytest.raises(InvalidPrecondition):
        required_version(values)
