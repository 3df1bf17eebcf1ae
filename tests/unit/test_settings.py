"""Settings that contradict each other or production are refused, and the refusal names the variable to change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import SettingsError, load_settings

PRODUCTION = {
    "APP_ENV": "production",
    "APP_AUTH_ISSUER": "https://id.example",
    "APP_AUTH_JWKS_URL": "https://id.example/jwks",
    "APP_HTTP_ALLOWED_HOSTS": "shop.example",
}


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what a test sets."""
    names = ("APP_", "DATABASE_URL", "REDIS_URL", "KAFKA_BOOTSTRAP", "HTTP_PORT", "OPS_PORT", "PLUMBLINE_HOME", "TRUSTED_PROXIES")
    for name in list(os.environ):
        if name.startswith(names):
            monkeypatch.delenv(name)


def refusal(monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as refused:
        load_settings()
    return str(refused.value)


def test_defaults_load_and_cannot_be_changed() -> None:
    settings = load_settings()
    assert (settings.http.port, settings.orders.key_retention_h, settings.worker.tiers_s) == (8000, 72, (5.0, 30.0, 120.0, 600.0))
    with pytest.raises(ValidationError):
        settings.http.port = 1  # type: ignore[misc]


REFUSED: dict[str, dict[str, str]] = {
    "APP_DB_CONNECTION_BUDGET": {"APP_DB_POOL_SIZE": "50", "APP_DB_PROCESSES": "4"},
    "APP_ORDERS_EXPIRE_AFTER_S": {"APP_ORDERS_EXPIRE_AFTER_S": "1800"},
    "APP_ORDERS_EXPIRE_SLACK_S": {"APP_ORDERS_EXPIRE_SLACK_S": "2800"},
    "APP_WORKER_INBOX_RETENTION_D": {"APP_WORKER_INBOX_RETENTION_D": "37"},
    "APP_DB_LOCK_TIMEOUT_MS": {"APP_DB_LOCK_TIMEOUT_MS": "2000"},
    "APP_WORKER_TIERS_S": {"APP_WORKER_TIERS_S": "30,5"},
}


@pytest.mark.parametrize("named", REFUSED)
def test_a_contradiction_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    assert named in refusal(monkeypatch, **REFUSED[named])


@pytest.mark.parametrize("tiers", ["0,5", "-5", "nan", "inf", "5,nan"])
def test_tiers_are_positive_rising_numbers(monkeypatch: pytest.MonkeyPatch, tiers: str) -> None:
    assert "APP_WORKER_TIERS_S" in refusal(monkeypatch, APP_WORKER_TIERS_S=tiers)


IN_PRODUCTION: dict[str, dict[str, str]] = {
    "APP_FAILPOINTS": {"APP_FAILPOINTS": "after-intent=crash"},
    "APP_PROFILE": {"APP_PROFILE": "load"},
    "APP_AUTH_ISSUER": {"APP_AUTH_ISSUER": "http://127.0.0.1:8103"},
    "APP_AUTH_JWKS_URL": {"APP_AUTH_JWKS_URL": "http://id.example/jwks"},
    "APP_ORDERS_EXPIRE_SLACK_S": {"APP_ORDERS_EXPIRE_SLACK_S": "899"},
    "APP_KAFKA_BROKER": {"APP_KAFKA_BROKER": "memory"},
    "APP_HTTP_ALLOWED_HOSTS": {"APP_HTTP_ALLOWED_HOSTS": "*"},
}


@pytest.mark.parametrize("named", IN_PRODUCTION)
def test_production_refuses_what_development_may(monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    assert named in refusal(monkeypatch, **(PRODUCTION | IN_PRODUCTION[named]))
    monkeypatch.setenv("APP_ENV", "development")
    load_settings()


def test_production_loads_when_it_is_told_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PRODUCTION.items():
        monkeypatch.setenv(name, value)
    assert load_settings().production


@pytest.mark.parametrize(
    ("name", "value"),
    [("APP_DB_POOL_SIZE", "0"), ("APP_DB_POOL_SIZE", "many"), ("HTTP_PORT", "70000"), ("APP_ENV", "prod"), ("APP_AUTH_LEEWAY_S", "-1")],
)
def test_a_value_out_of_range_is_refused_and_says_which(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    assert name in refusal(monkeypatch, **{name: value})


def test_lists_are_comma_separated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUSTED_PROXIES", "10.0.0.0/8, 192.168.0.0/16,")
    monkeypatch.setenv("APP_WORKER_TIERS_S", "1, 3,10")
    monkeypatch.setenv("APP_ORDERS_EXPIRE_AFTER_S", "3600")
    settings = load_settings()
    assert settings.http.trusted_proxies == ("10.0.0.0/8", "192.168.0.0/16")
    assert settings.worker.tiers_s == (1.0, 3.0, 10.0)


def test_secrets_come_from_files_and_are_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "DATABASE_URL").write_text("postgresql://u:hunter2@db/x\n")
    monkeypatch.setenv("APP_SECRETS_DIR", str(tmp_path))
    settings = load_settings()
    assert settings.db.url.get_secret_value() == "postgresql://u:hunter2@db/x"
    assert "hunter2" not in repr(settings) + str(settings) + settings.model_dump_json()
