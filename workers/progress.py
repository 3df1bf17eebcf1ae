"""Which offset may be committed: the end of the contiguous prefix of records that are done. Pure.

Records finish out of order (keys run side by side); committing past an unfinished one would lose it.
Tests: tests/unit/test_progress.py.
"""

from __future__ import annotations

from collections import deque


class Progress:
    """One partition's records in the order they were fetched."""

    def __init__(self) -> None:
        self._open: deque[tuple[int, float]] = deque()
        self._done: set[int] = set()
        self._next: int | None = None
        # The offset after the last record taken over; None before the first.
        self.position: int | None = None

    @property
    def unfinished(self) -> int:
        """Records begun and not yet passed by the committable prefix."""
        return len(self._open)

    @property
    def waiting_since(self) -> float | None:
        """When the record that holds back the prefix was begun; None if nothing is unfinished."""
        return self._open[0][1] if self._open else None

    def begin(self, offset: int, at: float = 0.0) -> None:
        """A record was taken over at `at` (monotonic seconds); offsets must rise."""
        self._open.append((offset, at))
        self.position = offset + 1

    def done(self, offset: int) -> None:
        """The record is finished (applied, moved or parked)."""
        self._done.add(offset)
        while self._open and self._open[0][0] in self._done:
            first = self._open.popleft()[0]
            self._done.remove(first)
            self._next = first + 1

    def take_committable(self) -> int | None:
        """The next offset to commit, once; None if nothing new is done."""
        offset, self._next = self._next, None
        return offset

    def give_back(self, offset: int) -> None:
        """The commit of a taken offset failed: it is committable again, unless a later one is by now."""
        if self._next is None:
            self._next = offset
