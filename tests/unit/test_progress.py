"""An offset is committed only when everything before it is done, whatever the order of finishing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workers.progress import Progress


@given(st.data())
def test_a_commit_never_passes_an_unfinished_offset(data: st.DataObject) -> None:
    offsets = sorted(data.draw(st.sets(st.integers(0, 500), min_size=1, max_size=40)))
    order = data.draw(st.permutations(offsets))
    progress = Progress()
    for offset in offsets:
        progress.begin(offset)
    finished: set[int] = set()
    committed = -1
    for offset in order:
        progress.done(offset)
        finished.add(offset)
        if (position := progress.take_committable()) is not None:
            assert position > committed, "commits only move on"
            committed = position
        assert all(before in finished for before in offsets if before < committed)
    assert committed == offsets[-1] + 1, "in the end everything is committed"
    assert progress.unfinished == 0


def test_what_was_taken_is_not_offered_again() -> None:
    progress = Progress()
    progress.begin(7)
    progress.done(7)
    assert (progress.take_committable(), progress.take_committable()) == (8, None)
