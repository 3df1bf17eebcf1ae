"""`plumbline doctor` is content with a healthy stack, and names each thing that is wrong with its cure."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest

from service.dev.doctor import examine_settings
from service.dev.settings_table import mask
from service.settings import load_settings
from tests.proofs.cache_faults import redis_answers
from tests.stories.shop import Shop, until

LETTER = """
    INSERT INTO dead_letter (id, consumer, topic, partition, "offset", headers, payload, error_class, error_message, attempts)
    VALUES ($1, 'doctored', 'orders.events.v1', 3, 14, '{"ce_type": "order.paid"}', '{"order_id":"x"}', 'Boom', 'it broke', 3)
"""
STUCK = """
    INSERT INTO orders (id, customer_id, status, version, currency, total_minor, updated_at)
    VALUES ($1, 'doctored', 'placed', 1, 'EUR', 1, now() - interval '10 minutes')
"""
WAITING = """
    INSERT INTO outbox (event_id, aggregate_type, aggregate_id, version, type, topic, key, payload, headers, created_at)
    VALUES ($1, 'order', 'doctored', 1, 'order.placed', 'orders.events.v1', 'doctored', '{}', '{}', now() - interval '5 minutes')
"""


@pytest.fixture(autouse=True)
async def nobody_waits(shop: Shop) -> None:
    """Other stories leave dead letters open on purpose."""
    await shop.database.execute("UPDATE dead_letter SET status = 'discarded', resolved_at = now(), resolved_by = 'test' WHERE status = 'open'")


async def test_a_healthy_stack_gets_a_clean_bill(shop: Shop) -> None:
    await shop.quiet()
    code, output = await shop.plumbline("doctor")
    assert code == 0, output
    assert "wrong  " not in output
    for subject in (
        "PostgreSQL",
        "schema",
        "clock",
        "Redis",
        "Kafka",
        "issuer",
        "provider",
        "outbox",
        "relay",
        "orders",
        "dead letters",
        "processes",
    ):
        assert re.search(rf"ok +{subject}", output), f"{subject} is not in\n{output}"


async def test_work_that_does_not_go_on_is_found(shop: Shop) -> None:
    name = str(uuid4())
    async with frozen(shop, "relay", "reaper"):  # or they would take care of it
        for sql in (LETTER, STUCK, WAITING):
            await shop.database.execute(sql, name)
        try:
            code, output = await shop.plumbline("doctor")
        finally:
            for table, column in (("dead_letter", "id"), ("orders", "id"), ("outbox", "event_id")):
                await shop.database.execute(f"DELETE FROM {table} WHERE {column} = $1", name)
    assert code == 1, output
    for finding, cure in (
        (rf"orders +1 placed or reserved for more than \d+ s: {name} \(placed\)", "plumbline dlq list"),
        (r"outbox +1 waiting, the oldest for 3\d\d\.\d s", "see that a relay runs"),
        (r"dead letters +open: 1 of doctored", "plumbline dlq replay"),
        (r"processes +relay \(pid \d+\) does not answer: no answer within 3 s", "relay.log"),
    ):
        assert re.search(rf"wrong  {finding}\n +→ .*{cure}", output), output


async def test_an_old_schema_is_found(shop: Shop) -> None:
    revision = await shop.database.fetchval("SELECT version_num FROM alembic_version")
    await shop.database.execute("UPDATE alembic_version SET version_num = '0000'")
    try:
        code, output = await shop.plumbline("doctor")
    finally:
        await shop.database.execute("UPDATE alembic_version SET version_num = $1", revision)
    assert code == 1, output
    assert re.search(r"wrong  schema +revision 0000, this code needs \d+\n +→ run `plumbline migrate`", output), output


async def test_servers_that_do_not_answer_are_found(shop: Shop) -> None:
    async with frozen(shop, "redis", "psp", "issuer"):
        code, output = await shop.plumbline("doctor", env={"KAFKA_BOOTSTRAP": "127.0.0.1:1"})
    assert code == 1, output
    for subject in ("Redis", "provider", "issuer", "Kafka"):
        assert re.search(rf"wrong  {subject} .*\n +→ \w", output), f"{subject} is not in\n{output}"


async def test_a_database_that_is_not_there_is_found(shop: Shop) -> None:
    code, output = await shop.plumbline("doctor", env={"DATABASE_URL": "postgresql://plumbline:hunter2@127.0.0.1:1/plumbline"})
    assert code == 1, output
    assert re.search(r"wrong  PostgreSQL +127\.0\.0\.1:1 cannot be used: connection refused\n +→ start it", output), output
    assert "hunter2" not in output


@pytest.mark.parametrize(
    ("variable", "value", "doubt"),
    [
        ("APP_FAILPOINTS", "after-intent=hang", "APP_FAILPOINTS = after-intent=hang"),
        ("APP_PROFILE", "load", "nobody is limited"),
        ("APP_DB_COMMAND_TIMEOUT_MS", "1000", "we give up while the server works on"),
        ("APP_HTTP_WRITE_DEADLINE_MS", "2100", "shorter than waiting for a connection"),
        ("APP_REDIS_TIMEOUT_MS", "900", "APP_REDIS_TIMEOUT_MS = 900 eats up"),
        ("APP_PAYMENTS_TIMEOUT_MS", "20000", "APP_PAYMENTS_TIMEOUT_MS = 20000 is not below"),
        ("APP_HTTP_KEEP_ALIVE_S", "30", "APP_HTTP_KEEP_ALIVE_S = 30"),
    ],
)
def test_settings_that_defeat_each_other_are_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, doubt: str) -> None:
    for name in [name for name in os.environ if name.startswith("APP_")]:
        monkeypatch.delenv(name)  # other tests' servers have set some: here only the defaults count
    assert [finding.level for finding in examine_settings(load_settings())] == ["ok"]
    monkeypatch.setenv(variable, value)
    [finding] = examine_settings(load_settings())
    assert (finding.level, doubt in finding.what, bool(finding.cure)) == ("note", True, True), finding


async def test_settings_no_process_would_start_with_are_refused(shop: Shop) -> None:
    for words in (("doctor",), ("doctor", "--settings")):
        code, output = await shop.plumbline(*words, env={"APP_ORDERS_EXPIRE_AFTER_S": "0.5"})
        assert (code, "APP_ORDERS_EXPIRE_AFTER_S = 0.5 would expire orders" in output) == (1, True), output


async def test_every_setting_is_listed_and_no_secret_shown(shop: Shop) -> None:
    code, output = await shop.plumbline("doctor", "--settings")
    assert code == 0, output
    for variable in (
        "DATABASE_URL",
        "REDIS_URL",
        "KAFKA_BOOTSTRAP",
        "HTTP_PORT",
        "OPS_PORT",
        "TRUSTED_PROXIES",
        "APP_LIMIT_POLICIES",
        "APP_DB_POOL_SIZE",
    ):
        assert re.search(rf"^  [* ] {variable} ", output, re.MULTILINE), variable
    assert re.search(r"^  \* APP_WORKER_TIERS_S +0\.3,0\.6 s +delays of the retry topics; default 5,30,120,600$", output, re.MULTILINE), output
    password = re.search(r"plumbline:(.+)@", shop.urls["database"])
    assert password
    assert password[1] not in output


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://u:p@h:1/d?password=q", "postgresql://u:•••@h:1/d?•••"),
        ("postgresql://u:p@a@h/d", "postgresql://u:•••@h/d"),
        ("redis://:p@h:1/0", "redis://:•••@h:1/0"),
        ("hunter2", "•••"),
        ("", ""),
    ],
)
def test_a_secret_is_masked(text: str, shown: str) -> None:
    assert mask(text, secret=True) == shown


async def test_dead_letters_are_listed_and_shown(shop: Shop) -> None:
    letter = str(uuid4())
    await shop.database.execute(LETTER, letter)
    try:
        code, listed = await shop.plumbline("dlq", "list", "--consumer", "doctored")
        assert (code, bool(re.search(rf"^{letter} +doctored +order\.paid .* Boom: it broke$", listed, re.MULTILINE))) == (0, True), listed
        code, shown = await shop.plumbline("dlq", "show", letter[:13])
        assert code == 0, shown
        for text in ("orders.events.v1 partition 3 offset 14", "Boom: it broke", '"order_id": "x"', "ce_type"):
            assert text in shown
        code, nothing = await shop.plumbline("dlq", "show", "ffffffff-0000")
        assert (code, "no dead letter ffffffff-0000" in nothing) == (2, True), nothing
    finally:
        await shop.database.execute("DELETE FROM dead_letter WHERE id = $1", letter)


@asynccontextmanager
async def frozen(shop: Shop, *roles: str) -> AsyncIterator[None]:
    """These processes stand still inside the block, and answer again after it."""
    try:
        for role in roles:
            assert shop.signal(role, signal.SIGSTOP), f"no {role} runs"
        yield
    finally:
        for role in roles:
            shop.signal(role, signal.SIGCONT)

        for role in roles:
            await shop.replaced(role, ())
        await until(lambda: redis_answers(shop), "Redis answers again")
