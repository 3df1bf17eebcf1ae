"""IAM tokens are what AWS expects: its own published vectors, and the parts that differ between the three services."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import pytest

from service.foundation.iam import Credentials, PodIdentity, presign
from service.settings import SettingsError, load_settings

# Of the AWS signing test suite (aws-c-auth, tests/aws-signing-test-suite/v4): key pair, moment, and two query-signed requests.
_SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
_MOMENT = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
_UNRESERVED = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize(
    ("query", "session_token", "signature"),
    [
        ({_UNRESERVED: _UNRESERVED}, "", "8e76a88a7433637b12778d5592799b29ad21ecd6cf6325051c21d86f0acda2bf"),
        (
            {},
            "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267",
            "7ff2b50b376cb4d151970630573d6291dc128cc5c2a12ffb237f73cc53f67b6c",
        ),
    ],
)
def test_a_presigned_request_has_the_signature_of_the_published_vector(query: dict[str, str], session_token: str, signature: str) -> None:
    keys = Credentials("AKIDEXAMPLE", _SECRET, session_token, _MOMENT)
    made = presign("example.amazonaws.com", query, service="service", region="us-east-1", credentials=keys, now=_MOMENT, expires_s=3600)
    assert made.endswith(f"&X-Amz-Signature={signature}")


class _Held(PodIdentity):
    """With keys in hand, no agent; the moment is fixed. The expected signatures below were made by botocore's SigV4QueryAuth."""

    async def _credentials(self) -> Credentials:
        return Credentials("AKIDEXAMPLE", _SECRET, "a+session/token==", datetime.max.replace(tzinfo=UTC))


@pytest.fixture
def identity(monkeypatch: pytest.MonkeyPatch) -> PodIdentity:
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    return _Held(now=lambda: datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))


def _signature(token: str) -> str:
    return parse_qs(urlsplit(f"https://{token}").query)["X-Amz-Signature"][0]


async def test_a_database_token_names_host_port_and_user(identity: PodIdentity) -> None:
    token = await identity.database_token("db.example.com", 5432, "orders_api")
    assert token.startswith("db.example.com:5432/?Action=connect&DBUser=orders_api&X-Amz-Algorithm=AWS4-HMAC-SHA256&")
    assert _signature(token) == "87fc474f1817daef05264f7dc06872e44d7edb577051a4e4aa9b41c9b44cba47"


async def test_a_cache_token_names_the_replication_group_and_user(identity: PodIdentity) -> None:
    token = await identity.cache_token("orders-prod", "orders-prod-api")
    assert token.startswith("orders-prod/?Action=connect&User=orders-prod-api&")
    assert _signature(token) == "a7c6a58319406fd16dd9b698dd02e1b7ecc89bf3dc6661d84b57653abf026977"


async def test_a_kafka_token_is_a_signed_url_in_base64_without_padding(identity: PodIdentity) -> None:
    token = await identity.kafka_token()
    assert "=" not in token
    url = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()
    assert url.startswith("https://kafka.eu-central-1.amazonaws.com/?Action=kafka-cluster%3AConnect&")
    assert _signature(url.removeprefix("https://")) == "98bcb4ef99191b2a995e0e87d3bd34978de9b7e514b5e9685f3cecaa4da0c22f"
    assert url.endswith("&User-Agent=plumbline")  # after the signature: it is not signed


_AGENT = {
    "AWS_REGION": "eu-central-1",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials",
    "APP_REDIS_IAM_CACHE": "orders",
    "REDIS_URL": "rediss://cache:6379/0",
    "APP_REDIS_IAM_USER": "orders-api",
    "APP_DB_IAM_USER": "orders_api",
    "APP_DB_SSL": "require",
    "APP_DB_AUTH": "iam",
    "APP_REDIS_AUTH": "iam",
    "APP_KAFKA_AUTH": "iam",
}


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({}, ""),
        ({"AWS_REGION": ""}, "AWS_REGION"),
        ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://10.0.0.1/v1/credentials"}, "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
        ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23.example.com/"}, "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
        ({"APP_DB_SSL": "prefer"}, "APP_DB_SSL"),
        ({"APP_DB_IAM_USER": ""}, "APP_DB_IAM_USER"),
        ({"REDIS_URL": "redis://cache:6379/0"}, "rediss://"),
        ({"APP_REDIS_IAM_USER": ""}, "APP_REDIS_IAM_USER"),
        ({"APP_REDIS_IAM_CACHE": ""}, "APP_REDIS_IAM_CACHE"),
    ],
)
def test_an_iam_login_is_refused_where_it_could_not_work_or_could_be_overheard(
    changed: dict[str, str], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (_AGENT | changed).items():
        monkeypatch.setenv(name, value)
    if not complaint:
        assert load_settings().kafka.auth == "iam"
        return
    with pytest.raises(SettingsError, match=complaint):
        load_settings()
