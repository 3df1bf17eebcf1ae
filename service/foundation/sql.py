"""Statements that read better as SQL than as Core: `.sql` files beside their operations."""

from __future__ import annotations

from pathlib import Path


def load_sql(beside: str, name: str) -> str:
    """The text of `name` in the folder of the module `beside` (`__file__`), without its comments."""
    lines = Path(beside).with_name(name).read_text(encoding="utf-8").splitlines()
    return "\n".join(code for line in lines if (code := line.partition("--")[0].rstrip()))


def load_text(beside: str, name: str) -> str:
    """The text of the file `name` in the folder of the module `beside` (`__file__`)."""
    return Path(beside).with_name(name).read_text(encoding="utf-8")
