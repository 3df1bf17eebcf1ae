"""The issuer's keys: rotated, fetched at most once a cooldown whoever asks, kept while the issuer is away."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from service.errors import DependencyUnavailable
from service.settings import AuthSettings
from service.web import jwks
from service.web.jwks import KeySet
from tests.integration.waiting import until


def ec_key(kid: str, **changes: Any) -> dict[str, Any]:
    public = json.loads(ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key()))
    return public | {"kid": kid, "alg": "ES256", "use": "sig"} | changes


def rsa_key(kid: str, bits: int) -> dict[str, Any]:
    public = json.loads(RSAAlgorithm.to_jwk(rsa.generate_private_key(65_537, bits).public_key()))
    return public | {"kid": kid, "alg": "RS256", "use": "sig"}


class Issuer(httpx.AsyncBaseTransport):
    """An issuer whose answer the test decides; counts what it is asked."""

    def __init__(self, *keys: dict[str, Any]) -> None:
        self.fetches = 0
        self.serve(*keys)

    def serve(self, *keys: dict[str, Any]) -> None:
        self.status, self.headers = 200, dict[str, str]()
        self.content = json.dumps({"keys": keys}).encode()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.fetches += 1
        await asyncio.sleep(0)
        if self.status == 0:
            raise httpx.ConnectError("away")
        return httpx.Response(self.status, headers=self.headers, content=self.content, request=request)

    def keys(self, **settings: Any) -> KeySet:
        return KeySet(AuthSettings(**settings), client=httpx.AsyncClient(transport=self, follow_redirects=False))


class Clock:
    """`time.monotonic` of the module under test, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(jwks, "time", made)
    return made


async def test_keys_are_found_by_id_and_fetched_once(clock: Clock) -> None:
    issuer = Issuer(ec_key("a"), ec_key("b"))
    keys = issuer.keys()
    assert not keys.loaded
    found = await asyncio.gather(*(keys.find(name) for name in "ab" * 50))
    assert all(key is not None and key.algorithm_name == "ES256" for key in found)
    assert keys.loaded
    assert issuer.fetches == 1, "callers at once share one fetch"


async def test_a_caller_during_the_first_fetch_waits_for_it(clock: Clock) -> None:
    """The watch fetches the keys as the process starts; a request in that moment was answered 503 once."""
    issuer = Issuer(ec_key("a"))
    keys = issuer.keys()
    loading = asyncio.create_task(keys.load())
    while issuer.fetches == 0:  # noqa: ASYNC110 - one turn of the loop each, no time passes
        await asyncio.sleep(0)
    assert not keys.loaded
    assert await keys.find("a") is not None
    assert (await loading, issuer.fetches) == (True, 1)


async def test_a_rotated_key_is_found_after_the_cooldown(clock: Clock) -> None:
    issuer = Issuer(ec_key("old"))
    keys = issuer.keys()
    assert await keys.find("old") is not None
    issuer.serve(ec_key("old"), ec_key("new"))
    clock.now += 31
    assert None not in await asyncio.gather(*(keys.find("new") for _ in range(50))), "all of a burst wait for the one fetch"
    assert await keys.find("old") is not None
    issuer.serve(ec_key("new"))
    clock.now += 601
    await keys.find("new")
    await until(lambda: _later(keys, "old"), "the background refresh drops what the issuer dropped")
    assert issuer.fetches == 3


async def _later(keys: KeySet, gone: str) -> bool:
    return gone not in keys._keys


async def test_a_thousand_unknown_ids_cause_one_fetch_a_cooldown(clock: Clock) -> None:
    issuer = Issuer(ec_key("a"))
    keys = issuer.keys()
    await keys.find("a")
    for _ in range(3):
        clock.now += 31
        before = issuer.fetches
        assert await asyncio.gather(*(keys.find(f"invented-{n}") for n in range(1_000))) == [None] * 1_000
        assert issuer.fetches - before == 1


FAILURES: dict[str, dict[str, Any]] = {
    "no connection": {"status": 0},
    "error": {"status": 500},
    "redirect": {"status": 302, "headers": {"location": "http://evil.example/jwks"}},
    "not JSON": {"content": b"<html>"},
    "no keys": {"content": b'{"keys": []}'},
    "not an object": {"content": b"[]"},
    "keys are text": {"content": b'{"keys": ["a"]}'},
    "null": {"content": b"null"},
    "too large": {"content": json.dumps({"keys": [ec_key("a")], "padding": "x" * 70_000}).encode()},
}


@pytest.mark.parametrize("name", FAILURES)
async def test_a_failed_fetch_never_clears_the_keys(clock: Clock, name: str) -> None:
    issuer = Issuer(ec_key("a"))
    keys = issuer.keys()
    await keys.find("a")
    for attribute, value in FAILURES[name].items():
        setattr(issuer, attribute, value)
    clock.now += 601
    assert await keys.find("a") is not None, "stale is served, refreshed behind its back"
    await until(lambda: _fetched(issuer, 2), "the refresh was tried")
    assert await keys.find("a") is not None
    assert await keys.load() is False
    clock.now += 86_400
    with pytest.raises(DependencyUnavailable):
        await keys.find("a")
    issuer.serve(ec_key("a"))
    clock.now += 31
    assert await keys.find("a") is not None, "and back when the issuer is"


async def _fetched(issuer: Issuer, count: int) -> bool:
    return issuer.fetches >= count


async def test_without_any_keys_we_say_unavailable_and_ask_once_a_second(clock: Clock) -> None:
    issuer = Issuer()
    issuer.status = 0
    keys = issuer.keys()
    for _ in range(50):
        with pytest.raises(DependencyUnavailable):
            await keys.find("a")
    assert issuer.fetches == 1
    clock.now += 1.1
    issuer.serve(ec_key("a"))
    assert await keys.find("a") is not None


async def test_only_usable_keys_are_taken(clock: Clock) -> None:
    issuer = Issuer(
        rsa_key("rsa-2048", 2_048),
        rsa_key("rsa-1024", 1_024),
        ec_key("encryption", use="enc"),
        ec_key("other-family", alg="RS256"),
        ec_key("not-allowed", alg="ES384"),
        ec_key("hmac", alg="HS256"),
        {"kty": "oct", "k": "c2VjcmV0", "kid": "secret", "alg": "HS256"},
        {"kty": "EC", "kid": "broken", "alg": "ES256", "crv": "P-256", "x": "AA", "y": "AA"},
        ec_key("no-alg", alg=None),
        {name: value for name, value in ec_key("x").items() if name != "kid"},
        ec_key("number") | {"kid": 7},
    )
    keys = issuer.keys()
    assert await keys.load()
    assert set(keys._keys) == {"rsa-2048", "no-alg"}


async def test_at_most_20_keys_are_read(clock: Clock) -> None:
    issuer = Issuer(*(ec_key(f"k{n}") for n in range(25)))
    keys = issuer.keys()
    await keys.load()
    assert len(keys._keys) == 20


async def test_an_issuer_that_hangs_costs_its_timeout_not_the_request_of_others(clock: Clock) -> None:
    issuer = Issuer(ec_key("a"))
    keys = issuer.keys()
    await keys.find("a")
    hanging = asyncio.Event()

    async def hang(request: httpx.Request) -> httpx.Response:
        await hanging.wait()
        raise httpx.ReadTimeout("slow", request=request)

    issuer.handle_async_request = hang  # type: ignore[method-assign]
    clock.now += 601
    started = time.monotonic()
    assert await keys.find("a") is not None
    assert time.monotonic() - started < 1
    hanging.set()
    await keys.close()
