"""Which offset may be committed: the end of the contiguous prefix of records that are done. Pure.

Records finish out of order (keys run side by side); committing past an unfinished one would lose it.
"""

from __future__ import annotations

from collections import deque


class Progress:
    """One partition's records in the order they were fetched."""

    def __init__(self) -> None:
        self._open: deque[int] = deque()
        self._done: set[int] = set()
        self._next: int | None = None
        # The offset after the last record taken over; None before the first.
        self.position: int | None = None

    @property
    def unfinished(self) -> int:
        """Records begun and not yet passed by the committable prefix."""
        return len(self._open)

    def begin(self, offset: int) -> None:
        """A record was taken over; offsets must rise."""
        self._open.append(offset)
        self.position = offset + 1

    def done(self, offset: int) -> None:
        """The record is finished (applied, moved or parked)."""
        self._done.add(offset)
        while self._open and self._open[0] in self._done:
            first = self._open.popleft()
            self._done.remove(first)
            self._next = first + 1

    def take_committable(self) -> int | None:
        """The next offset to commit, once; None if nothing new is done."""
        offset, self._next = self._next, None
        return offset
