"""A record as an event: what is poison, what is only unknown, and headers that are not believed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote_to_bytes
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.events import ORDERS_TOPIC, OrderPaid, ce_headers
from tests.integration.letters import make_record
from workers.envelope import Envelope, Origin, Poison, attempt_of, decode, header_map, not_before_ms, origin_of, storable

ID, ORDER = uuid4(), uuid4()
AT = datetime(2030, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
PAYLOAD = OrderPaid(order_id=ORDER, customer_id="anna", total_minor=5, currency="EUR").model_dump_json().encode()


def make(value: bytes | None = PAYLOAD, *, key: bytes | None = b"k", event_type: str = "order.paid", **changes: bytes | None) -> Any:
    headers = {n: v.encode() for n, v in ce_headers(event_id=ID, event_type=event_type, aggregate_id=str(ORDER), version=3, at=AT).items()}
    headers |= {name.replace("_x_", "").replace("__", "-"): v for name, v in changes.items() if v is not None}
    for name in (name for name, v in changes.items() if v is None):
        headers.pop(name)
    return make_record(ORDERS_TOPIC, headers=headers, key=key, value=value, partition=2, offset=7, timestamp=1_000)


def test_what_was_said_is_what_is_heard() -> None:
    event = decode(make(traceparent=b"00-1-2-01"))
    assert event == Envelope(ID, "order.paid", str(ORDER), 3, AT, OrderPaid.model_validate_json(PAYLOAD), "00-1-2-01", None)
    assert event.body(OrderPaid).order_id == ORDER
    assert ce_headers(event_id=ID, event_type="order.paid", aggregate_id="x", version=1, at=AT)["ce_source"] == "/plumbline/orders"


@pytest.mark.parametrize("name", ["ce_id", "ce_type", "ce_subject", "ce_time", "ce_aggregateversion", "ce_dataschema"])
def test_a_missing_or_unreadable_field_is_poison(name: str) -> None:
    with pytest.raises(Poison):
        decode(make(**{name: None}))
    with pytest.raises(Poison):
        decode(make(**{name: b"\xff\xfe"}))


@pytest.mark.parametrize(
    "changes", [{"ce_id": b"7"}, {"ce_aggregateversion": b"three"}, {"ce_time": b"yesterday"}, {"ce_time": b"2030-01-01T00:00:00"},
                {"ce_dataschema": b"urn:plumbline:events/order.paid/v2"}, {"ce_dataschema": b""}],
    ids=repr,
)  # fmt: skip
def test_a_wrong_field_is_poison(changes: dict[str, bytes]) -> None:
    with pytest.raises(Poison):
        decode(make(**changes))


@pytest.mark.parametrize(
    "value", [None, b"", b"{", b"[]", b"null", b"{}", b'{"order_id": "7"}', b"\xff", PAYLOAD[:-1], PAYLOAD.replace(b"5", b'"five"')]
)
def test_a_payload_of_another_form_is_poison(value: bytes | None) -> None:
    with pytest.raises(Poison):
        decode(make(value))


def test_newer_writers_are_understood_and_unknown_types_left_alone() -> None:
    newer = PAYLOAD[:-1] + b', "coupon": {"code": "x"}}'
    assert decode(make(newer)).payload == OrderPaid.model_validate_json(PAYLOAD)
    unknown = decode(make(b"\x00 not ours", event_type="order.gift_wrapped"))
    assert unknown.payload is None
    with pytest.raises(Poison):
        unknown.body(OrderPaid)
    assert decode(make(key=None)).event_type == "order.paid"


BELIEVED = {"x-origin-topic": ORDERS_TOPIC.encode(), "x-origin-partition": b"4", "x-origin-offset": b"99"}


def origin(**changes: bytes) -> Origin:
    return origin_of(make_record("orders.events.v1.payments.retry.1", headers=BELIEVED | changes, key=b"k", value=b"", partition=2, offset=7))


def test_the_origin_is_kept_and_nonsense_is_not_believed() -> None:
    own = Origin("orders.events.v1.payments.retry.1", 2, 7)
    assert origin() == Origin(ORDERS_TOPIC, 4, 99)
    for bad in ({"x-origin-topic": b"evil"}, {"x-origin-topic": b"\xff"}, {"x-origin-partition": b"-1"}, {"x-origin-partition": b"x"},
                {"x-origin-offset": b"-1"}, {"x-origin-offset": str(2**63).encode()}, {"x-origin-offset": b""}):  # fmt: skip
        assert origin(**bad) == own, bad


@given(st.binary(max_size=30))
def test_numbers_in_headers_are_numbers_or_nothing(value: bytes) -> None:
    record = make_record("t", headers={"x-attempt": value, "x-not-before-ms": value}, key=b"", value=b"", timestamp=1_000)
    assert 0 <= attempt_of(record) < 2**31
    assert 0 <= not_before_ms(record) <= 1_000 + 86_400_000, "nobody may park a partition for a year"


@given(st.dictionaries(st.text(st.characters(exclude_characters="\0%", exclude_categories=["Cs"]), max_size=8), st.binary(max_size=20), max_size=4))
def test_headers_are_stored_reversibly(headers: dict[str, bytes]) -> None:
    stored = storable(headers)
    assert {name: unquote_to_bytes(value) for name, value in stored.items()} == headers
    assert all("\0" not in value and value.isascii() for value in stored.values())


def test_the_last_of_repeated_headers_counts() -> None:
    assert header_map([("a", b"1"), ("a", b"2"), ("b", None)]) == {"a": b"2"}  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("asked", "expected"), [(0, 0), (-5, 0), (2_000, 2_000), (86_401_000, 86_401_000), (86_401_001, 86_401_000), (10**30, 86_401_000)]
)
def test_no_header_holds_a_partition_for_more_than_a_day(asked: int, expected: int) -> None:
    headers = {"x-not-before-ms": str(asked).encode()}
    assert not_before_ms(make_record(ORDERS_TOPIC, headers=headers, key=b"k", value=b"{}", partition=2, offset=7, timestamp=1_000)) == expected
