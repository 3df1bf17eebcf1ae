"""Text that comes in: one form, nothing invisible that deceives."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from service.text import Currency, CustomerId, Sku, clean


@pytest.mark.parametrize("text", ["", "Grüße", "a\tb\nc", "日本語", "שלום", "👩‍👩‍👧", "e" + "\u0316" * 8])
def test_what_people_write_passes(text: str) -> None:
    assert clean(text) == unicodedata.normalize("NFC", text)


def test_two_spellings_of_one_word_become_one() -> None:
    assert clean("Cafe\u0301") == clean("Caf\u00e9") == "Caf\u00e9"


@pytest.mark.parametrize(
    "text",
    ["\0", "a\rb", "\x1b[31m", "\x7f", "\x85", "\ud800", "\ue000", "\u0378", "\uffff", "e" + "\u0316" * 9, "é" + "\u0316" * 9,
     *"\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"],
)  # fmt: skip
def test_what_deceives_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not allowed|too many combining"):
        clean("ab" + text)


@given(st.text(max_size=30))
def test_cleaned_text_is_clean(text: str) -> None:
    try:
        cleaned = clean(text)
    except ValueError:
        return
    assert clean(cleaned) == cleaned
    assert "\0" not in cleaned, "PostgreSQL refuses it"
    cleaned.encode()


_CASES = [
    (Sku, ["A", "7", "TEA-1_B", "A" * 32], ["", "a", "-A", "_A", "A" * 33, "A B", "A\n", "Ä", "A.B", "A\0"]),
    (Currency, ["EUR"], ["", "eur", "EU", "EURO", "EU1", "EUR\n", "ÄÖÜ"]),
    (CustomerId, ["a", "auth0|123", "x" * 255], ["", "x" * 256, "a\0", "a\u202eb"]),
]


@pytest.mark.parametrize(("kind", "good", "bad"), _CASES)
def test_names_and_codes(kind: object, good: list[str], bad: list[str]) -> None:
    adapter: TypeAdapter[str] = TypeAdapter(kind)
    assert [adapter.validate_python(text) for text in good] == good
    for text in bad:
        with pytest.raises(ValidationError):
            adapter.validate_python(text)
