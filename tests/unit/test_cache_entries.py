"""What a peek into Redis may find: a sound entry, or a miss; garbage is never served and never raises."""

from __future__ import annotations

import time
from typing import Any

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.foundation.cache import Cache, entry_keys

_REF = ("product", "TEA")


def _peek(result: Any) -> Any:
    return Cache.read_peeks([_REF], [result]).get(_REF)


def _ago_ms(seconds: float) -> bytes:
    return str(int((time.time() - seconds) * 1000)).encode()


def test_a_sound_entry_comes_back_with_its_age() -> None:
    entry = _peek([b"3", b'{"version":3,"sku":"TEA"}', _ago_ms(100)])
    assert (entry.version, entry.exists, entry.value) == (3, True, {"version": 3, "sku": "TEA"})
    assert entry.data == b'{"version":3,"sku":"TEA"}', "byte for byte: it is the response"
    assert 99 < entry.age_s < 160


def test_a_known_absence_is_an_entry() -> None:
    entry = _peek([b"0", b"", _ago_ms(1)])
    assert (entry.version, entry.exists) == (0, False)


def test_a_clock_that_is_behind_makes_no_negative_age() -> None:
    assert _peek([b"0", b"", _ago_ms(-3600)]).age_s == 0


@pytest.mark.parametrize(
    "result",
    [
        None, b"x", 7, RuntimeError("LOADING"), [None, None, None], [b"3", None, b"1"], [b"3", b'{"version":3}', None],
        [b"x", b'{"version":3}', b"1"], [b"3", b'{"version":3}', b"x"], [b"3", b'{"version":4}', b"1"], [b"3", b"{}", b"1"], [b"3", b"[3]", b"1"],
        [b"3", b"3", b"1"], [b"3", b"null", b"1"], [b"3", b"", b"1"], [b"3", b'{"version":3', b"1"], [b"3", b"\xff", b"1"], [b"0", b"{}", b"1"],
    ],
)  # fmt: skip
def test_a_miss_an_error_and_garbage_are_misses(result: Any) -> None:
    assert _peek(result) is None


_JSONISH = st.binary(max_size=20) | st.sampled_from([b"", b"{}", b'{"version":1}', b"[1]", b'"version"', b"1"])
_NUMBERISH = st.none() | st.binary(max_size=6) | st.integers(-(10**19), 10**19).map(lambda number: str(number).encode())


@given(_NUMBERISH, st.none() | _JSONISH, _NUMBERISH)
def test_whatever_redis_holds_nothing_is_raised_and_what_is_served_is_sound(version: bytes | None, data: bytes | None, filled: bytes | None) -> None:
    entry = _peek([version, data, filled])
    if entry is not None and entry.exists:
        assert entry.value["version"] == entry.version
    assert entry is None or entry.age_s >= 0


def test_one_bad_reply_does_not_spoil_the_others() -> None:
    refs = [("product", "A"), ("product", "B"), ("order", "A")]
    found = Cache.read_peeks(refs, [[b"1", b'{"version":1}', _ago_ms(0)], RuntimeError(), [b"2", b'{"version":2}', _ago_ms(0)]])
    assert {ref: entry.version for ref, entry in found.items()} == {("product", "A"): 1, ("order", "A"): 2}


def test_a_peek_asks_for_the_key_that_a_fill_writes_and_the_keys_share_a_slot() -> None:
    keys = entry_keys(_REF)
    for ref in (_REF, ("product", "Größe 1")):
        reader = hiredis.Reader()
        reader.feed(b"".join(Cache.peek_commands([ref])))
        assert reader.gets() == [word.encode() for word in ("HMGET", entry_keys(ref)[0], "v", "d", "f")]
        assert reader.gets() is False
    assert {key[key.index("{") : key.index("}")] for key in keys} == {"{product:TEA"}
    assert len(set(keys)) == 3
