"""What text may come in: composed, without characters that reorder or hide what a person sees."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from service.text import Currency, CustomerId, Sku, clean


@given(st.text(max_size=60))
def test_clean_is_composed_stable_and_safe(value: str) -> None:
    try:
        text = clean(value)
    except ValueError:
        return
    assert unicodedata.is_normalized("NFC", text)
    assert clean(text) == text
    assert not any(unicodedata.category(character) in ("Cs", "Co", "Cn") or (ord(character) < 32 and character not in "\n\t") for character in text)


@pytest.mark.parametrize("value", ["", "Zoë", "Ω", "日本語", "a\nb\tc", "👩\u200d🚀", "\u200fשלום", "e\u0301", "👍🏽"])
def test_people_may_write(value: str) -> None:
    assert clean(value) == unicodedata.normalize("NFC", value)


@pytest.mark.parametrize(
    "value",
    [
        "\0",
        "\x07",
        "\x1b[2J",
        "\r",
        "\x7f",
        "\x85",
        "\u202e",
        "\u202a",
        "\u2066",
        "\u2069",
        "\ud800",
        "\ue000",
        "\U000e0fff",
        "\ufdd0",
        "e" + "\u0316" * 9,
    ],
)
def test_nobody_needs_these(value: str) -> None:
    with pytest.raises(ValueError, match=r"not allowed|combining"):
        clean(f"a{value}b")


@pytest.mark.parametrize(("kind", "good", "bad"), [
    (Sku, ["SKU-0001", "A", "9", "A_B-C", "A" * 32], ["", "a", "-A", "_A", "A B", "A" * 33, "A\n", "\u0410", "A.B"]),
    (Currency, ["EUR", "USD"], ["", "eur", "EU", "EURO", "E R", "EUR\n", "\uff25\uff35\uff32"]),
    (CustomerId, ["c", "c" * 255, "anna@example.org"], ["", "c" * 256, "a\0", "\u202ea"]),
])  # fmt: skip
def test_names_have_their_form(kind: object, good: list[str], bad: list[str]) -> None:
    adapter: TypeAdapter[str] = TypeAdapter(kind)
    for value in good:
        assert adapter.validate_python(value) == value
    for value in bad:
        with pytest.raises(ValidationError):
            adapter.validate_python(value)
