"""A commit never passes an unfinished record, whatever the order things finish in, and nothing finished stays uncommitted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from workers.progress import Progress


class Partition(RuleBasedStateMachine):
    """Records begin with rising offsets (with gaps), finish in any order, commits fail now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.progress = Progress()
        self.next = 0
        self.begun: list[int] = []
        self.open: set[int] = set()
        self.committed = 0

    @rule(gap=st.integers(0, 3))
    def begin(self, gap: int) -> None:
        offset = self.next + gap
        self.progress.begin(offset, float(offset))
        self.next = offset + 1
        self.begun.append(offset)
        self.open.add(offset)

    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        if self.open:
            offset = data.draw(st.sampled_from(sorted(self.open)))
            self.progress.done(offset)
            self.open.remove(offset)

    @rule(works=st.booleans())
    def commit(self, works: bool) -> None:  # noqa: FBT001 - hypothesis names its arguments
        offset = self.progress.take_committable()
        if offset is None:
            return
        assert offset > self.committed
        assert all(offset <= unfinished for unfinished in self.open), "passed an unfinished record"
        if works:
            self.committed = offset
        else:
            self.progress.give_back(offset)

    @invariant()
    def it_knows_what_waits(self) -> None:
        first = min(self.open, default=None)
        behind = [offset for offset in self.begun if first is not None and offset >= first]
        assert self.progress.unfinished == len(behind)
        assert self.progress.waiting_since == (None if first is None else float(first))
        assert self.progress.position == (self.next if self.begun else None)

    def teardown(self) -> None:
        for offset in sorted(self.open, reverse=True):
            self.progress.done(offset)
        if self.begun:
            assert (self.progress.take_committable() or self.committed) == self.next, "all done, all committed"


TestPartition = Partition.TestCase


@given(st.permutations(range(12)))
def test_any_order_of_finishing_ends_at_the_end(order: list[int]) -> None:
    progress, done = Progress(), set[int]()
    for offset in range(12):
        progress.begin(offset)
    for offset in order:
        progress.done(offset)
        done.add(offset)
        prefix = next((n for n in range(12) if n not in done), 12)
        taken = progress.take_committable()
        assert taken in (None, prefix)
    assert prefix == 12
