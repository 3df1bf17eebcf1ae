"""One trace tells the story, from the request to the notification, across real processes; and it tells no secret.

A receiver of our own takes what the processes export. Retries and replays link to the first attempt, log lines carry
the trace, metrics differ by what happened, labels stay bounded under attack, and planted canaries are nowhere.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from service.dev.state import read_stack
from tests.stories.shop import Shop, until
from tests.support.clients import ApiClient
from tests.support.otlp import Receiver, Seen, tree, wait_for

HOPELESS = ("SKU-0001", 83)  # 83 × 999 ends in 17: the provider fails on it until it is healed
CANARY = f"canary{secrets.token_hex(8)}"
JUNK = f"junk{secrets.token_hex(8)}"  # some of it is a request id, which a client may choose and find in the log
SERIES_AT_MOST = 2_000


def _only(spans: list[Seen], name: str) -> Seen:
    found = [span for span in spans if span.name == name]
    assert len(found) == 1, f"{len(found)} spans are called {name}:\n{tree(spans)}"
    return found[0]


def _new_trace() -> tuple[str, str, dict[str, str]]:
    trace, client = secrets.token_hex(16), secrets.token_hex(8)
    return trace, client, {"traceparent": f"00-{trace}-{client}-01"}


def _customer(shop: Shop, sub: str, headers: dict[str, str]) -> ApiClient:
    client = shop.login(sub)
    client.headers |= headers
    return client


async def _metrics(shop: Shop) -> dict[tuple[str, ...], float]:
    """Every sample of every process: (name, labels…) → value, summed over processes."""
    found: dict[tuple[str, ...], float] = {}
    for process in read_stack(shop.home)["processes"]:
        if process["ops_url"] is None or process["role"] not in {"api", "worker", "relay", "reaper"}:
            continue
        page = await shop.http.get(f"{process['ops_url']}/metrics", headers={"accept": "application/openmetrics-text"})
        for family in text_string_to_metric_families(page.text):
            for sample in family.samples:
                key = (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items())))
                found[key] = found.get(key, 0.0) + sample.value
    return found


async def _metrics_at_rest(shop: Shop) -> dict[tuple[str, ...], float]:
    """As `_metrics`, once every order there is has been counted: a worker counts just after its commit, so quiet tables are not enough."""
    await shop.quiet()

    async def look() -> dict[tuple[str, ...], float] | None:
        paid, reserved = await shop.database.fetchrow(
            "SELECT count(*) FILTER (WHERE type = 'order.paid'), count(*) FILTER (WHERE type = 'order.reserved') FROM order_timeline"
        )
        found = await _metrics(shop)
        counted = found.get(("orders_total", "status=paid"), 0), found.get(("orders_records_total", "group=payments", "outcome=applied"), 0)
        return found if counted == (paid, reserved) else None

    found = await until(look, "each paid order is counted once, and each charge")
    assert found is not None
    return found


@pytest.mark.broker
async def test_one_trace_tells_the_story(traced: Shop, collector: tuple[Receiver, str], capsys: pytest.CaptureFixture[str]) -> None:
    receiver, _ = collector
    trace, client, context = _new_trace()
    before = await _metrics_at_rest(traced)
    order = (await _customer(traced, "anna-traced", context).place(("SKU-0001", 2), key=f"traced-{trace}")).json()
    await traced.becomes(order, "paid")
    await traced.quiet()
    spans = await asyncio.to_thread(wait_for, receiver, trace, {"notifications order.paid", "publish order.paid", "timeline order.paid"}, root=client)
    with capsys.disabled():
        print(f"\n{tree(spans)}")

    request = _only(spans, "POST /v1/orders")
    assert (request.parent, request.kind, request.process) == (client, "server", "orders-api")
    assert request.attributes == {"http.request.method": "POST", "http.route": "/v1/orders", "http.response.status_code": 201}
    commit = _only([span for span in spans if span.process == "orders-api"], "INSERT idempotency_key")
    assert (commit.parent, commit.kind) == (request.id, "client")
    assert commit.attributes["db.query.summary"].endswith("INSERT outbox")

    # Each step is the child of the step that caused it, in another process each time.
    way = [
        ("publish order.placed", "orders-relay", "producer"), ("inventory order.placed", "orders-worker", "consumer"),
        ("publish order.reserved", "orders-relay", "producer"), ("payments order.reserved", "orders-worker", "consumer"),
        ("publish order.paid", "orders-relay", "producer"), ("notifications order.paid", "orders-worker", "consumer"),
    ]  # fmt: skip
    parent = request
    for name, process, kind in way:
        step = _only(spans, name)
        assert (step.parent, step.process, step.kind) == (parent.id, process, kind), name
        assert step.started_ns >= parent.started_ns, f"{name} began before {parent.name}"
        parent = step
    charge = _only(spans, "provider charge")
    assert (charge.parent, charge.kind) == (_only(spans, "payments order.reserved").id, "client")
    assert not [span.name for span in spans if span.failed]
    assert {span.trace for span in spans} == {trace}

    after = await _metrics_at_rest(traced)
    for key in (
        ("orders_total", "status=placed"), ("orders_total", "status=paid"),
        ("orders_idempotency_outcomes_total", "outcome=new"), ("orders_records_total", "group=payments", "outcome=applied"),
        ("orders_http_requests_total", "method=POST", "route=/v1/orders", "status=201"),
    ):  # fmt: skip
        assert after.get(key, 0) - before.get(key, 0) == 1, key
    value = ("orders_value_minor_total", "currency=EUR", "status=paid")
    assert after[value] - before.get(value, 0) == order["total_minor"]


@pytest.mark.broker
async def test_retries_and_replays_link_to_the_first_attempt(
    traced: Shop, collector: tuple[Receiver, str], capsys: pytest.CaptureFixture[str]
) -> None:
    receiver, _ = collector
    trace, client, context = _new_trace()
    order = (await _customer(traced, "ben-traced", context).place(HOPELESS, key=f"hopeless-{trace}")).json()

    async def parked() -> object:
        return await traced.database.fetchval("SELECT id::text FROM dead_letter WHERE aggregate_id = $1 AND status = 'open'", order["id"])

    letter = await until(parked, "the order's charge is parked")
    await traced.dial(magic_totals=True, heal=True)
    code, said = await traced.plumbline("dlq", "replay", str(letter))
    assert code == 0, said
    await traced.becomes(order, "paid")
    # The worker exports in order: with what it did last, every attempt at the charge is there.
    spans = await asyncio.to_thread(wait_for, receiver, trace, {"publish order.paid", "notifications order.paid"}, root=client)
    with capsys.disabled():
        print(f"\n{tree(spans)}")
    attempts = sorted((span for span in spans if span.name == "payments order.reserved"), key=lambda span: span.started_ns)
    first, later = attempts[0], attempts[1:]
    assert len(later) >= 3, "two tiers and a replay"
    assert first.links == ()
    assert [span.links for span in later] == [(first.id,)] * len(later)
    assert [span.failed for span in attempts] == [True] * (len(attempts) - 1) + [False]
    moves = {span.id: span for span in spans if span.kind == "producer"}
    assert all(span.parent in moves for span in attempts), "every attempt is the child of what sent it"
    await traced.quiet()


async def test_log_lines_carry_the_trace(traced: Shop) -> None:
    trace, _client, context = _new_trace()
    order = (await _customer(traced, "cleo-traced", context).place(("SKU-0001", 1), key=f"logged-{trace}")).json()
    await traced.becomes(order, "paid")
    await traced.quiet()

    async def written() -> bool:
        return any(line.get("group") == "notifications" for line in _lines_about(traced, order["id"]))

    await until(written, "the notification's line is written")
    about = _lines_about(traced, order["id"])
    assert {line["service"] for line in about} == {"orders-worker"}
    assert {line["group"] for line in about} >= {"inventory", "payments", "notifications", "timeline", "cache"}
    assert {line["trace_id"] for line in about} == {trace}
    access = [line for line in _lines(traced) if line["event"] == "http.request" and line.get("trace_id") == trace]
    assert [(line["route"], line["status"], line["limiter"], line["service"]) for line in access] == [("/v1/orders", 201, "shared", "orders-api")]
    assert access[0]["request_id"]
    assert access[0]["span_id"]


def _lines(shop: Shop) -> list[dict[str, object]]:
    pages = [(shop.home / "logs" / f"{name}.log").read_text() for name in ("api", "relay", "reaper", "worker")]
    found = [json.loads(line) for page in pages for line in page.splitlines() if line.startswith("{")]
    assert found, "no process has logged anything"
    return found


def _lines_about(shop: Shop, order_id: str) -> list[dict[str, object]]:
    return [line for line in _lines(shop) if line.get("aggregate") == order_id]


async def test_labels_stay_bounded_under_attack(traced: Shop) -> None:
    anna = traced.login("mallory")

    async def attack(round_: int) -> set[tuple[str, ...]]:
        for number in range(30):
            junk = f"{JUNK}{round_}x{number}"
            await traced.http.get(f"/{junk}/{junk}")
            await traced.http.request(f"M{number}{round_}", "/v1/orders")
            await traced.http.get("/v1/orders", headers={"authorization": f"Bearer {junk}", "x-request-id": junk, "traceparent": junk})
            await anna.get(f"/orders/{junk}")
            await anna.get(f"/orders?limit=1&{junk}={junk}")
            await anna.place((f"SKU-{junk}", 1), key=junk)
            await anna.place(("SKU-0001", 1), key=junk, note=junk, currency=f"X{chr(65 + number % 26)}{chr(65 + round_)}")
        await traced.quiet()
        return set(await _metrics(traced))

    first = await attack(1)
    second = await attack(2)
    assert second - first == set(), "the same attack with other values made new series"
    for process in read_stack(traced.home)["processes"]:
        if process["role"] == "api":
            text = (await traced.http.get(f"{process['ops_url']}/metrics")).text
            series = [line for line in text.splitlines() if line and not line.startswith("#")]
            assert 100 < len(series) <= SERIES_AT_MOST, len(series)
            print(f"{len(series)} series an API process")
    assert not [key for key in second if JUNK in str(key)]


async def test_no_secret_is_told(traced: Shop, collector: tuple[Receiver, str]) -> None:
    receiver, _ = collector
    trace, client, context = _new_trace()
    anna = _customer(traced, f"customer-{CANARY}", context | {"cookie": f"session={CANARY}"})
    key, note = f"key-{CANARY}", f"note {CANARY}"
    placed = await anna.place(("SKU-0001", 1), key=key, note=note)
    assert placed.status_code == 201, placed.text
    reused = await anna.place(("SKU-0001", 2), key=key, note=note)
    assert reused.status_code == 422
    await traced.http.get(f"/v1/orders?cursor={CANARY}", headers={"authorization": f"Bearer {CANARY}"})
    await traced.http.post("/v1/orders", content=b'{"note": "' + CANARY.encode(), headers={"authorization": f"Bearer {CANARY}"})
    await traced.becomes(placed.json(), "paid")
    await traced.quiet()
    await asyncio.to_thread(wait_for, receiver, trace, {"notifications order.paid"}, root=client)

    told = {f"logs/{path.name}": path.read_bytes() for path in (traced.home / "logs").glob("*.log")}
    told["spans"] = b"\n".join(receiver.raw)
    told["metrics"] = repr(sorted(await _metrics(traced))).encode()
    assert len(told["spans"]) > 10_000
    database = re.search(r"://[^/]*", traced.urls["database"])
    assert database is not None
    dsn = re.escape(database[0].removeprefix("://").encode() + b"/")
    planted = {"canary": CANARY.encode(), "token": rb"eyJ[\w-]{20}", "DSN": dsn, "bearer": rb"Bearer [\w-]{8}"}
    found = {
        f"{what} in {place}: {text[max(0, hit.start() - 100) : hit.end() + 100]!r}"
        for place, text in told.items()
        for what, needle in planted.items()
        for hit in re.finditer(needle, text)
    }
    assert found == set()
