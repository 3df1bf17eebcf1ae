"""Every setting, its unit and its default, in frozen groups; contradictions are refused by name.

A value comes from the environment (`APP_DB_POOL_SIZE=20`) or, for secrets, from a file of that name
in `APP_SECRETS_DIR`. `plumbline doctor --settings` prints them all.
When this fails, no process starts; `tests/unit/test_settings.py` holds each refusal.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

# A role's keys are asked for over plain HTTP at addresses of this machine only: loopback and the Pod Identity agent's.
_CREDENTIAL_HOSTS = r"https://|http://(127\.0\.0\.1|localhost|\[::1\]|169\.254\.170\.23|\[fd00:ec2::23\])[:/]"


class SettingsError(Exception):
    """Start-up refused: the message names the setting and what to do."""


def _prefix(name: str) -> SettingsConfigDict:
    return SettingsConfigDict(env_prefix=f"APP_{name}", frozen=True, extra="ignore", populate_by_name=True, nested_model_default_partial_update=False)


CommaList = Annotated[tuple[str, ...], NoDecode]


def _split(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


class Group(BaseSettings):
    """One prefix of settings; lists are comma-separated."""

    @model_validator(mode="before")
    @classmethod
    def _lists(cls, data: dict[str, object]) -> dict[str, object]:
        listed = {n for n, f in cls.model_fields.items() if "tuple[" in str(f.annotation)}
        listed |= {a for n in tuple(listed) if isinstance(a := cls.model_fields[n].validation_alias, str)}
        return {key: _split(value) if key in listed else value for key, value in data.items()}


class AppSettings(Group):
    model_config = _prefix("")
    env: Literal["development", "test", "production"] = Field("development", description="what this process may be lenient about")
    profile: Literal["default", "load"] = Field("default", description="load lifts the rate limits for load tests")
    failpoints: CommaList = Field((), description="name=crash|hang|error, comma-separated; for fault tests")
    home: Path = Field(Path(".plumbline"), validation_alias="PLUMBLINE_HOME", description="state folder of the embedded stack")
    replicas: int = Field(1, ge=1, description="API processes that share the limits when Redis is away")


class DatabaseSettings(Group):
    model_config = _prefix("DB_")
    url: SecretStr = Field(
        SecretStr("postgresql://plumbline@127.0.0.1:8100/plumbline"),
        validation_alias="DATABASE_URL",
        description="the one database that holds the truth",
    )
    pool_size: int = Field(10, ge=1, le=200, description="connections a process, opened before ready")
    queue_timeout_ms: int = Field(250, ge=1, description="longest wait for a free connection")
    acquire_timeout_ms: int = Field(1500, ge=1, description="includes opening a lost connection again")
    command_timeout_ms: int = Field(2000, ge=1, description="client side, one statement")
    statement_timeout_ms: int = Field(2000, ge=1, description="server side, one statement")
    lock_timeout_ms: int = Field(500, ge=1, description="server side, one lock wait")
    idle_in_transaction_timeout_ms: int = Field(5000, ge=1, description="server side; frees locks of a stopped process")
    processes: int = Field(1, ge=1, description="processes that share the connection budget")
    connection_budget: int = Field(180, ge=1, description="connections all processes may open together")
    ssl: Literal["disable", "prefer", "require", "verify-full"] = Field("prefer", description="TLS to PostgreSQL")
    auth: Literal["password", "iam"] = Field("password", description="iam: RDS tokens by EKS Pod Identity, no password in DATABASE_URL")
    iam_user: str = Field("", description="database user of the tokens; each component has its own")


class RedisSettings(Group):
    model_config = _prefix("REDIS_")
    url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:8101/0"), validation_alias="REDIS_URL", description="buckets and cached copies; nothing whose loss matters"
    )
    timeout_ms: int = Field(50, ge=1, description="connect, read and pool wait; workers take at least a second")
    pool_size: int = Field(32, ge=1, description="connections a process")
    auth: Literal["password", "iam"] = Field("password", description="iam: ElastiCache tokens by EKS Pod Identity, no password in REDIS_URL")
    iam_user: str = Field("", description="cache user of the tokens")
    iam_cache: str = Field("", description="id of the ElastiCache replication group; its tokens name it")


class KafkaSettings(Group):
    model_config = _prefix("KAFKA_")
    bootstrap: str = Field("127.0.0.1:8102", validation_alias="KAFKA_BOOTSTRAP", description="host:port, comma-separated")
    broker: Literal["kafka", "memory"] = Field("kafka", description="memory: librdkafka's mock cluster, for development")
    session_timeout_ms: int = Field(10_000, ge=1000, description="a silent group member is removed after this")
    replication_factor: int = Field(1, ge=1, description="used by `topics apply`")
    send_deadline_ms: int = Field(15_000, ge=100, description="a batch not acknowledged by then is sent anew")
    auth: Literal["none", "iam"] = Field("none", description="iam: TLS and MSK tokens by EKS Pod Identity (OAUTHBEARER)")


class AwsSettings(Group):
    """What EKS Pod Identity puts into every pod, under the names it uses."""

    model_config = _prefix("AWS_")
    region: str = Field("", validation_alias="AWS_REGION", description="region that IAM tokens are signed for")
    credentials_url: str = Field("", validation_alias="AWS_CONTAINER_CREDENTIALS_FULL_URI", description="the Pod Identity agent")
    credentials_token_file: Path = Field(Path(), validation_alias="AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", description="proves the pod to it")


class HttpSettings(Group):
    model_config = _prefix("HTTP_")
    host: str = Field("127.0.0.1", description="address of the public port")
    port: int = Field(8000, ge=0, le=65535, validation_alias=AliasChoices("HTTP_PORT", "port"), description="public port")
    ops_host: str = Field("127.0.0.1", description="address of health and metrics")
    ops_port: int = Field(9000, ge=0, le=65535, validation_alias=AliasChoices("OPS_PORT", "ops_port"), description="health and metrics")
    allowed_hosts: CommaList = Field(("127.0.0.1", "localhost", "[::1]"), description="Host names served; * for any")
    trusted_proxies: CommaList = Field((), validation_alias="TRUSTED_PROXIES", description="CIDRs whose X-Forwarded-For counts")
    body_bytes: int = Field(65_536, ge=1, description="larger bodies are 413")
    uri_bytes: int = Field(4_096, ge=64, description="longer URIs are 414")
    header_bytes: int = Field(16_384, ge=256, description="larger header blocks are 431")
    header_count: int = Field(64, ge=1, description="more headers are 431")
    json_depth: int = Field(8, ge=1, description="deeper JSON is 400")
    receive_deadline_ms: int = Field(10_000, ge=1, description="headers, and again body, must arrive within")
    keep_alive_s: int = Field(75, ge=1, description="above the load balancer's idle time (60)")
    connections: int = Field(2_000, ge=1, description="open connections a process")
    write_deadline_ms: int = Field(5_000, ge=1, description="POST and PATCH, whole request past its gates")
    read_deadline_ms: int = Field(2_000, ge=1, description="GET, whole request past its gates")
    in_flight: int = Field(64, ge=1, description="requests worked on at once, a process (Little's law)")
    admission_wait_ms: int = Field(100, ge=0, description="longest wait for a slot")
    drain_wait_s: float = Field(5.0, ge=0, description="not ready, still accepting")
    drain_timeout_s: float = Field(20.0, ge=0, description="requests in hand may take this long at shutdown")


class LimitSettings(Group):
    model_config = _prefix("LIMIT_")
    policies: CommaList = Field(("burst=20/1", "sustained=600/60"), description="name=quota/window_s, charged together, a principal")
    role_factors: CommaList = Field(("operator=5", "admin=2"), description="role=factor on every quota")
    address: str = Field("address=200/1", description="name=quota/window_s, a client address, divided by the replicas")


class AuthSettings(Group):
    model_config = _prefix("AUTH_")
    issuer: str = Field("http://127.0.0.1:8103", description="exact `iss` of accepted tokens")
    audience: str = Field("plumbline", description="must be in `aud`")
    jwks_url: str = Field("http://127.0.0.1:8103/.well-known/jwks.json", description="where the issuer's public keys are")
    algorithms: CommaList = Field(("ES256", "RS256"), description="accepted signature algorithms")
    token_types: CommaList = Field(
        ("at+jwt", "application/at+jwt"), description="accepted `typ`; JWT lets ID tokens in unless `aud` tells them apart"
    )
    role_claim: str = Field("role", min_length=1, description="claim with the role; a.b is inside an object, [] at the end says list")
    role_names: CommaList = Field((), description="issuer's name=role, where the issuer has names of its own")
    scope_claim: str = Field("scope", min_length=1, description="claim with the scopes; as for the role")
    jwks_ttl_s: float = Field(600, gt=0, description="keys older than this are fetched again in the background")
    jwks_stale_s: float = Field(86_400, gt=0, description="keys are used this long when the issuer is away")
    jwks_cooldown_s: float = Field(30, gt=0, description="at most one fetch for unknown key ids in this time")
    token_lifetime_max_s: int = Field(3_600, ge=60, description="longer-lived tokens are refused")
    leeway_s: int = Field(30, ge=0, le=120, description="clock skew allowed on exp, iat and nbf")


class OrderSettings(Group):
    model_config = _prefix("ORDERS_")
    key_retention_h: int = Field(72, ge=1, description="idempotency keys replay at least this long")
    group_size: int = Field(16, ge=1, le=64, description="orders that commit together at most, where several wait; 1: each alone")
    expire_after_s: float = Field(3600, gt=0, description="placed or reserved for longer: expired")
    expire_slack_s: float = Field(900, ge=0, description="room between the last retry and expiry")
    charge_grace_s: float = Field(900, ge=0, description="a charge started less than this ago delays expiry")
    backlog_cap: int = Field(200_000, ge=1, description="outbox rows above which creates are shed (503)")


class PaymentSettings(Group):
    model_config = _prefix("PAYMENTS_")
    url: str = Field("http://127.0.0.1:8104", description="payment provider")
    timeout_ms: int = Field(3_000, ge=1, description="one call")
    key_retention_h: int = Field(24, ge=1, description="older intents are looked up, never blindly repeated")


class WorkerSettings(Group):
    model_config = _prefix("WORKER_")
    tiers_s: Annotated[tuple[float, ...], NoDecode] = Field((5.0, 30.0, 120.0, 600.0), description="delays of the retry topics")
    concurrency: int = Field(16, ge=1, description="keys worked on at once, a group")
    group_size: int = Field(16, ge=1, le=64, description="records that share a transaction at most, of those worked on at once; 1: each alone")
    buffer: int = Field(500, ge=1, description="records fetched ahead, a group")
    handler_timeout_s: float = Field(10, gt=0, description="one record")
    drain_timeout_s: float = Field(10, gt=0)
    poll_max_s: float = Field(0.1, gt=0, description="relay: longest pause between two looks when there is nothing to publish")
    inbox_retention_d: int = Field(45, ge=1)
    dead_letter_retention_d: int = Field(30, ge=1)
    outbox_sent_retention_d: int = Field(7, ge=1)
    notify_url: str = Field("", description="webhook of the notification sink; empty: a log file in the state folder")


class TelemetrySettings(Group):
    model_config = _prefix("TELEMETRY_")
    otlp_url: str = Field("", description="OTLP/HTTP traces endpoint; empty: spans are not exported")
    sample_ratio: float = Field(0.1, ge=0, le=1, description="share of new traces that are recorded")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="lines below it are not written")
    log_format: Literal["auto", "json", "console"] = Field("auto", description="auto: console in a terminal")


class Settings(BaseModel):
    """All groups. Build it with `load_settings()`."""

    model_config = ConfigDict(frozen=True)
    app: AppSettings
    db: DatabaseSettings
    redis: RedisSettings
    kafka: KafkaSettings
    aws: AwsSettings
    http: HttpSettings
    limit: LimitSettings
    auth: AuthSettings
    orders: OrderSettings
    payments: PaymentSettings
    worker: WorkerSettings
    telemetry: TelemetrySettings

    @property
    def production(self) -> bool:
        return self.app.env == "production"

    @model_validator(mode="after")
    def _no_contradictions(self) -> Self:
        for complaint in (*_contradictions(self), *(_production_refusals(self) if self.production else ())):
            raise ValueError(complaint)
        return self


def _contradictions(s: Settings) -> list[str]:
    found = []
    if s.db.pool_size * s.db.processes > s.db.connection_budget:
        found.append(
            f"APP_DB_POOL_SIZE × APP_DB_PROCESSES = {s.db.pool_size * s.db.processes} is above "
            f"APP_DB_CONNECTION_BUDGET = {s.db.connection_budget}: lower the pool or raise max_connections and the budget"
        )
    shortest = 1.2 * sum(s.worker.tiers_s) + s.orders.expire_slack_s
    if s.orders.expire_after_s < shortest:
        found.append(
            f"APP_ORDERS_EXPIRE_AFTER_S = {s.orders.expire_after_s:g} would expire orders that are still being retried: "
            f"it must be at least 1.2 × Σ APP_WORKER_TIERS_S + APP_ORDERS_EXPIRE_SLACK_S = {shortest:g}"
        )
    if s.worker.inbox_retention_d <= s.worker.dead_letter_retention_d + 7:
        found.append("APP_WORKER_INBOX_RETENTION_D must exceed APP_WORKER_DEAD_LETTER_RETENTION_D by more than 7 days")
    if s.db.lock_timeout_ms >= s.db.statement_timeout_ms:
        found.append("APP_DB_LOCK_TIMEOUT_MS must be below APP_DB_STATEMENT_TIMEOUT_MS")
    if not all("=" in name for name in s.auth.role_names):
        found.append("APP_AUTH_ROLE_NAMES must be issuer's name=role, comma-separated, such as shop-admin=admin")
    if not all(0 < tier < math.inf for tier in s.worker.tiers_s) or list(s.worker.tiers_s) != sorted(s.worker.tiers_s):
        found.append("APP_WORKER_TIERS_S must be positive and rising")
    return found + _iam_complaints(s)


def _iam_complaints(s: Settings) -> list[str]:
    found = []
    if "iam" in {s.db.auth, s.redis.auth, s.kafka.auth} and not (s.aws.region and re.match(_CREDENTIAL_HOSTS, s.aws.credentials_url)):
        found.append("IAM logins need AWS_REGION and AWS_CONTAINER_CREDENTIALS_FULL_URI as EKS Pod Identity sets them: associate a role")
    if s.db.auth == "iam" and not (s.db.iam_user and s.db.ssl in {"require", "verify-full"}):
        found.append("APP_DB_AUTH=iam needs APP_DB_IAM_USER, and APP_DB_SSL require or verify-full: a token must not be overheard")
    if s.redis.auth == "iam" and not (s.redis.iam_cache and s.redis.iam_user and s.redis.url.get_secret_value().startswith("rediss://")):
        found.append("APP_REDIS_AUTH=iam needs APP_REDIS_IAM_CACHE, APP_REDIS_IAM_USER and a REDIS_URL with rediss://")
    return found


def _production_refusals(s: Settings) -> list[str]:
    found = []
    if s.app.failpoints:
        found.append("APP_FAILPOINTS is refused when APP_ENV=production: unset it")
    if s.app.profile != "default":
        found.append("APP_PROFILE=load lifts the rate limits and is refused when APP_ENV=production: unset it")
    if not (s.auth.issuer.startswith("https://") and s.auth.jwks_url.startswith("https://")):
        found.append("APP_AUTH_ISSUER and APP_AUTH_JWKS_URL must be https when APP_ENV=production: name your issuer")
    if s.orders.expire_slack_s < 900:
        found.append("APP_ORDERS_EXPIRE_SLACK_S must be at least 900 when APP_ENV=production")
    if s.kafka.broker == "memory":
        found.append("APP_KAFKA_BROKER=memory is refused when APP_ENV=production: name a real cluster in KAFKA_BOOTSTRAP")
    if "*" in s.http.allowed_hosts:
        found.append("APP_HTTP_ALLOWED_HOSTS=* is refused when APP_ENV=production: list the public names")
    return found


def groups() -> dict[str, type[Group]]:
    """Group name → class, for `doctor --settings` and for the chart's check."""
    return {name: field.annotation for name, field in Settings.model_fields.items() if isinstance(field.annotation, type)}


def load_settings() -> Settings:
    """Read the environment. Raises `SettingsError` naming the setting and the cure."""
    secrets = os.environ.get("APP_SECRETS_DIR")
    found: dict[str, Group] = {}
    lines: list[str] = []
    for name, group in groups().items():
        try:
            found[name] = group(_secrets_dir=secrets)
        except ValidationError as error:
            lines += [_complaint(group, item["loc"], item["msg"]) for item in error.errors()]
    if not lines:
        try:
            return Settings(**found)
        except ValidationError as error:
            lines = [item["msg"].removeprefix("Value error, ") for item in error.errors()]
    raise SettingsError("; ".join(lines))


def secret_now(name: str, at_start: SecretStr) -> str:
    """The secret as its file holds it now: who opens a connection after a rotation uses the new one, without a restart."""
    file = Path(os.environ.get("APP_SECRETS_DIR", "")) / name
    if name in os.environ or "APP_SECRETS_DIR" not in os.environ or not file.is_file():
        return at_start.get_secret_value()
    return file.read_text(encoding="utf-8").strip() or at_start.get_secret_value()


def _complaint(group: type[Group], location: tuple[int | str, ...], message: str) -> str:
    """The variable as it is set, and what is wrong with it."""
    name = str(location[0]) if location else ""
    if name in group.model_fields:
        name = f"{group.model_config.get('env_prefix', '')}{name}".upper()
    return f"{name}: {message.removeprefix('Value error, ')}"
