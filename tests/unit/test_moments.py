"""One form of time on the wire, whoever writes it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import orjson
from hypothesis import example, given
from hypothesis import strategies as st

from service.foundation.clock import on_the_wire, rfc3339

MOMENTS = st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(9998, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds the zone


@given(MOMENTS)
@example(datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC))
@example(datetime(2030, 1, 2, 3, 4, 5, 10, tzinfo=UTC))
def test_orjson_writes_a_moment_as_we_do(moment: datetime) -> None:
    written = orjson.loads(orjson.dumps(on_the_wire(moment), option=orjson.OPT_UTC_Z))
    assert written == rfc3339(moment) == moment.strftime("%Y-%m-%dT%H:%M:%S.%f").rjust(26, "0") + "Z"


def test_another_zone_is_told_in_utc() -> None:
    moment = datetime(2030, 1, 2, 3, 4, 5, 6, tzinfo=timezone(timedelta(hours=2)))
    assert on_the_wire(moment) == rfc3339(moment) == "2030-01-02T01:04:05.000006Z"
