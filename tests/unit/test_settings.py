"""Contradicting settings are refused by name, before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.settings import SettingsError, load_settings

_PRODUCTION = {
    "APP_ENV": "production", "APP_AUTH_ISSUER": "https://issuer.test", "APP_AUTH_JWKS_URL": "https://issuer.test/jwks",
    "APP_HTTP_ALLOWED_HOSTS": "orders.test",
}  # fmt: skip


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os  # noqa: PLC0415 - only to read the names

    for name in list(os.environ):
        if name.startswith("APP_") or name in {"DATABASE_URL", "REDIS_URL", "KAFKA_BOOTSTRAP", "HTTP_PORT", "OPS_PORT", "TRUSTED_PROXIES"}:
            monkeypatch.delenv(name)


_CONTRADICTIONS = [
    ({"APP_DB_POOL_SIZE": "100", "APP_DB_PROCESSES": "4"}, "APP_DB_CONNECTION_BUDGET"),
    ({"APP_WORKER_TIERS_S": "5,30,120,6000"}, "APP_ORDERS_EXPIRE_AFTER_S"),
    ({"APP_WORKER_TIERS_S": "30,5"}, "APP_WORKER_TIERS_S"),
    ({"APP_WORKER_INBOX_RETENTION_D": "37"}, "APP_WORKER_INBOX_RETENTION_D"),
    ({"APP_DB_LOCK_TIMEOUT_MS": "2000"}, "APP_DB_LOCK_TIMEOUT_MS"),
    ({"APP_DB_POOL_SIZE": "0"}, "pool_size"),
    ({"HTTP_PORT": "70000"}, "HTTP_PORT"),
]
_REFUSED_IN_PRODUCTION = [
    ({"APP_FAILPOINTS": "after-intent=crash"}, "APP_FAILPOINTS"),
    ({"APP_PROFILE": "load"}, "APP_PROFILE"),
    ({"APP_AUTH_ISSUER": "http://issuer.test"}, "APP_AUTH_ISSUER"),
    ({"APP_ORDERS_EXPIRE_SLACK_S": "10"}, "APP_ORDERS_EXPIRE_SLACK_S"),
    ({"APP_KAFKA_BROKER": "memory"}, "APP_KAFKA_BROKER"),
    ({"APP_HTTP_ALLOWED_HOSTS": "*"}, "APP_HTTP_ALLOWED_HOSTS"),
]


def _load(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    load_settings()


def test_the_defaults_and_a_plain_production_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    _load(monkeypatch, {})
    _load(monkeypatch, _PRODUCTION)


@pytest.mark.parametrize(("environment", "named"), _CONTRADICTIONS)
def test_a_contradiction_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        _load(monkeypatch, environment)


@pytest.mark.parametrize(("environment", "named"), _REFUSED_IN_PRODUCTION)
def test_production_refuses_what_development_may(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], named: str) -> None:
    _load(monkeypatch, environment)
    with pytest.raises(SettingsError, match=named):
        _load(monkeypatch, _PRODUCTION | environment)


def test_a_secret_may_come_from_a_file_and_is_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "DATABASE_URL").write_text("postgresql://canary@db/plumbline")
    monkeypatch.setenv("APP_SECRETS_DIR", str(tmp_path))
    settings = load_settings()
    assert settings.db.url.get_secret_value() == "postgresql://canary@db/plumbline"
    assert "canary" not in repr(settings)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().db.pool_size = 3  # type: ignore[misc]
