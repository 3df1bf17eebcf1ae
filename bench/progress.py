"""The line a bench prints while it works: how many seconds it has taken so far, and what it does now."""

from __future__ import annotations

import time
from collections.abc import Callable


def teller() -> Callable[[str], None]:
    """A function that prints such lines; the clock begins now."""
    begin = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begin:5.1f} s] {text}", flush=True)

    return say
