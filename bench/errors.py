"""What ends a benchmark before its report."""

from __future__ import annotations


class BenchError(Exception):
    """The benchmark cannot be run or its measurement is worthless; the sentence says what to do."""
