"""The headers of a request, read once, and those of an answer as they go on the wire."""

from __future__ import annotations

from collections.abc import Sequence

Headers = Sequence[tuple[bytes, bytes]]


class Head:
    """A request's headers by name: one look at each, however many ask."""

    __slots__ = ("_pairs", "_values", "get", "repeats")

    def __init__(self, pairs: Headers) -> None:
        self._pairs, self._values = pairs, dict(pairs)
        # The value (of several, the last); None if there is none. Names are lower case.
        self.get = self._values.get
        # True if any name came twice: `all` then has to look at every pair.
        self.repeats = len(self._values) != len(pairs)

    def all(self, name: bytes) -> list[bytes]:
        """Every value, in order."""
        if self.repeats:
            return [value for key, value in self._pairs if key == name]
        value = self._values.get(name)
        return [] if value is None else [value]


def head_lines(pairs: Headers) -> bytes:
    """Headers as they go on the wire. Raises `ValueError` for a value that would be two lines."""
    lines = b"".join([b"%b: %b\r\n" % pair for pair in pairs])
    if not lines.count(b"\r") == lines.count(b"\n") == len(pairs):
        raise ValueError("a header value with a line break")
    return lines


def head_pairs(lines: bytes) -> list[tuple[bytes, bytes]]:
    """The way back."""
    return [(name, value) for name, _, value in (line.partition(b": ") for line in lines.split(b"\r\n")[:-1])]
