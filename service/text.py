"""What text may come in: NFC, no control or bidi-override characters, bounded in characters and bytes.

One rule for every string of every body; used as a pydantic annotation in the schemas.
"""

from __future__ import annotations

import unicodedata
from typing import Annotated, Final

from pydantic import AfterValidator, Field, StringConstraints

_REFUSED_CATEGORIES: Final = frozenset({"Cc", "Cs", "Co", "Cn"})
# Explicit bidirectional overrides and isolates reorder what a person sees ("Trojan Source", CVE-2021-42574).
_BIDI: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_MAX_COMBINING: Final = 8


def clean(value: str) -> str:
    """The NFC form. Raises `ValueError` for control, bidi-override or unassigned characters, or stacked marks."""
    text = unicodedata.normalize("NFC", value)
    stacked = 0
    for character in text:
        if character in _BIDI or (unicodedata.category(character) in _REFUSED_CATEGORIES and character not in "\n\t"):
            raise ValueError(f"character U+{ord(character):04X} is not allowed")
        stacked = stacked + 1 if unicodedata.combining(character) else 0
        if stacked > _MAX_COMBINING:
            raise ValueError("too many combining marks in a row")
    return text


Text = Annotated[str, AfterValidator(clean)]
Sku = Annotated[str, StringConstraints(pattern=r"^[A-Z0-9][A-Z0-9_-]{0,31}$")]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
# The bound is on the NFC form, which can be three times as long as what was sent.
CustomerId = Annotated[Text, Field(min_length=1, max_length=255)]
