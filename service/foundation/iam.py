"""AWS IAM logins without a stored password: PostgreSQL on RDS, Valkey on ElastiCache, Kafka on MSK.

A token is a presigned request (SigV4), valid 15 min and made anew for every connection; the credentials it is signed with come
from the EKS Pod Identity agent and are fetched again five minutes before they end. While the agent is away old ones serve on.
When this fails, connections fail as if the server refused them. Tests: tests/unit/test_iam.py, tests/integration/test_iam_logins.py.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import quote

import httpx

from service.foundation.log import get_logger
from service.settings import AwsSettings

log = get_logger(__name__)

_TOKEN_LIFETIME_S: Final = 900
_REFRESH_BEFORE: Final = timedelta(minutes=5)
_TIMEOUT_S: Final = 1.0
_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_EMPTY_BODY: Final = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class Credentials:
    """A role's keys for some hours."""

    access_key: str
    secret_key: str
    session_token: str
    expires_at: datetime


def presign(
    host: str, query: Mapping[str, str], *, service: str, region: str, credentials: Credentials, now: datetime, expires_s: int = _TOKEN_LIFETIME_S
) -> str:
    """`host/?query` with its signature: what a GET without body to that host would carry."""
    stamp = f"{now:%Y%m%dT%H%M%SZ}"
    scope = (stamp[:8], region, service, "aws4_request")
    parameters = {
        **query,
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": "/".join((credentials.access_key, *scope)),
        "X-Amz-Date": stamp,
        "X-Amz-Expires": str(expires_s),
        "X-Amz-SignedHeaders": "host",
    }
    if credentials.session_token:
        parameters["X-Amz-Security-Token"] = credentials.session_token
    text = "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in sorted(parameters.items()))
    request = f"GET\n/\n{text}\nhost:{host}\n\nhost\n{_EMPTY_BODY}"
    key = f"AWS4{credentials.secret_key}".encode()
    for part in scope:
        key = hmac.digest(key, part.encode(), "sha256")
    signed = "\n".join((_ALGORITHM, stamp, "/".join(scope), hashlib.sha256(request.encode()).hexdigest()))
    return f"{host}/?{text}&X-Amz-Signature={hmac.digest(key, signed.encode(), 'sha256').hex()}"


class PodIdentity:
    """The pod's own role. One a client; safe to share between its connections."""

    def __init__(self, settings: AwsSettings | None = None, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._settings = settings or AwsSettings()
        self._now = now
        self._held: Credentials | None = None
        self._lock = asyncio.Lock()

    async def database_token(self, host: str, port: int, user: str) -> str:
        """Password of `user` at RDS for one connection."""
        return await self._sign(f"{host}:{port}", {"Action": "connect", "DBUser": user}, "rds-db")

    async def cache_token(self, cache: str, user: str) -> str:
        """Password of `user` at the ElastiCache replication group `cache` for one connection."""
        return await self._sign(cache, {"Action": "connect", "User": user}, "elasticache")

    async def kafka_token(self) -> str:
        """OAUTHBEARER token for MSK."""
        signed = await self._sign(f"kafka.{self._settings.region}.amazonaws.com", {"Action": "kafka-cluster:Connect"}, "kafka-cluster")
        return base64.urlsafe_b64encode(f"https://{signed}&User-Agent=plumbline".encode()).decode().rstrip("=")

    async def _sign(self, host: str, query: Mapping[str, str], service: str) -> str:
        credentials = await self._credentials()
        return presign(host, query, service=service, region=self._settings.region, credentials=credentials, now=self._now())

    async def _credentials(self) -> Credentials:
        async with self._lock:
            held = self._held
            if held is None or held.expires_at - self._now() < _REFRESH_BEFORE:
                try:
                    self._held = await self._fetch()
                except (httpx.HTTPError, OSError, ValueError, KeyError, TypeError) as error:
                    log.warning("iam.fetch_failed", error=type(error).__name__)
                    if held is None or held.expires_at <= self._now():
                        raise ConnectionError("no credentials for an IAM login: the Pod Identity agent does not answer") from error
            assert self._held is not None
            return self._held

    async def _fetch(self) -> Credentials:
        # The token file is rotated by the kubelet: read it anew each time.
        word = self._settings.credentials_token_file.read_text(encoding="ascii").strip()
        async with httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False, follow_redirects=False) as client:
            answer = await client.get(self._settings.credentials_url, headers={"Authorization": word})
            answer.raise_for_status()
        found = answer.json()
        expires_at = datetime.fromisoformat(found["Expiration"])
        return Credentials(found["AccessKeyId"], found["SecretAccessKey"], found.get("Token", ""), expires_at)
