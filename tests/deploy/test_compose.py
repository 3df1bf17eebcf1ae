"""Every service of compose.yaml is hardened, bounded, healthy before it is used, and reachable from this machine only."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "deploy" / "verify"))
from service_settings import known_names

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = {name for name, service in SERVICES.items() if service["image"] == "plumbline:dev"}
ONCE = {"migrate", "seed", "topics"}
# Images without a shell or client: nothing inside can ask.
NO_PROBE = {"collector", "tempo", "loki"}
# The only capabilities anybody keeps, and why: compose.yaml says it at the service.
KEPT_CAPABILITIES = {"postgres": {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"}}

every_service = pytest.mark.parametrize("name", sorted(SERVICES))


def test_the_whole_service_is_there() -> None:
    assert {"api", "worker", "relay", "reaper", "issuer", "psp"} | ONCE == OURS
    assert {"postgres", "valkey", "kafka"} <= set(SERVICES)
    observability = {name for name, s in SERVICES.items() if s.get("profiles") == ["observability"]}
    assert observability == {"collector", "prometheus", "alertmanager", "grafana", "tempo", "loki"}


@every_service
def test_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert set(service.get("cap_add", [])) == KEPT_CAPABILITIES.get(name, set())
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert service.get("network_mode") is None


@every_service
def test_bounded(name: str) -> None:
    service = SERVICES[name]
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert 0 < service["pids_limit"] <= 400
    assert service["logging"] == {"driver": "json-file", "options": {"max-size": "5m", "max-file": "2"}}
    for mount in service.get("tmpfs", []):
        if mount.startswith("/tmp"):  # noqa: S108 - the mount is the promise
            assert "size=64m" in mount


@every_service
def test_image_is_pinned(name: str) -> None:
    _, _, tag = SERVICES[name]["image"].rpartition(":")
    assert tag == "dev" if name in OURS else re.fullmatch(r"v?\d+\.\d+(\.\d+)?", tag), SERVICES[name]["image"]


@every_service
def test_ports_are_on_loopback(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert str(port).startswith("127.0.0.1:"), port
        assert "edge" in SERVICES[name]["networks"], "an internal network publishes nothing"
    if not SERVICES[name].get("ports"):
        assert SERVICES[name]["networks"] == ["backend"]


def test_data_services_cannot_reach_out() -> None:
    assert COMPOSE["networks"]["backend"] == {"internal": True}
    for name in ("postgres", "valkey", "kafka", "worker", "relay", "reaper"):
        assert SERVICES[name]["networks"] == ["backend"]


@every_service
def test_health(name: str) -> None:
    check = SERVICES[name].get("healthcheck")
    if name in ONCE:
        assert check == {"disable": True}
        assert SERVICES[name]["restart"] == "no"
    elif name in NO_PROBE:
        assert check is None
    elif name in OURS - {"issuer", "psp"}:
        assert check is None, "the image's own HEALTHCHECK applies"
    else:
        assert check["retries"] * int(check["interval"].rstrip("s")) >= 60


@every_service
def test_waits_for_what_it_needs(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        wanted = "service_completed_successfully" if other in ONCE else "service_started" if other in NO_PROBE else "service_healthy"
        assert how == {"condition": wanted}, f"{name} → {other}"


def test_order_of_the_start() -> None:
    for name in ("api", "worker", "relay", "reaper"):
        assert set(SERVICES[name]["depends_on"]) >= {"migrate", "seed", "topics", "valkey"}
        assert SERVICES[name]["stop_grace_period"] == "35s", "longer than the drain of 25 s"


@every_service
def test_secrets_are_files(name: str) -> None:
    service = SERVICES[name]
    for key, value in service.get("environment", {}).items():
        if re.search(r"PASSWORD|SECRET|TOKEN|DATABASE_URL|REDIS_URL", key) and key != "APP_SECRETS_DIR":
            assert str(value).startswith("/run/secrets/"), key
        assert "@" not in str(value) or key == "KAFKA_CONTROLLER_QUORUM_VOTERS", key
    assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])


def test_secret_files_are_made_here_and_never_committed() -> None:
    script = (ROOT / "deploy" / "dev" / "compose.sh").read_text(encoding="utf-8")
    for name, secret in COMPOSE["secrets"].items():
        assert secret == {"file": f".plumbline/compose/{name}"}
        assert name in script
    assert "/.plumbline/" in (ROOT / ".gitignore").read_text(encoding="utf-8")


def test_every_setting_exists() -> None:
    for name in OURS:
        assert set(SERVICES[name]["environment"]) - known_names() == set(), name


def test_the_connection_budget_holds() -> None:
    env = SERVICES["api"]["environment"]
    assert int(env["APP_DB_POOL_SIZE"]) * int(env["APP_DB_PROCESSES"]) <= int(env["APP_DB_CONNECTION_BUDGET"]) <= 97
    assert "max_connections=100" in SERVICES["postgres"]["command"]


def test_rules_and_dashboards_come_from_the_chart() -> None:
    mounts = [m for s in SERVICES.values() for m in s.get("volumes", []) if m.startswith("./")]
    assert "./deploy/helm/orders/files/rules:/etc/prometheus/rules:ro" in mounts
    assert "./deploy/helm/orders/files/dashboards:/var/lib/dashboards:ro" in mounts
    assert all(mount.endswith(":ro") for mount in mounts)
