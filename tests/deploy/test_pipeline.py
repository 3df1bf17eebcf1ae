"""The telemetry pipeline's configuration, by structure: what cannot be run here is checked for what would break it.

Prometheus and Alertmanager run for real in observability/checks/live.py; the Collector, Tempo, Loki and Grafana do not.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "observability"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
FILES = sorted(path for path in FOLDER.rglob("*.yaml") if "tests" not in path.parts)


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


COLLECTOR = load("collector.yaml")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_literal_secret_and_a_reason(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# "), "says what it is and what of it was run"
    for line in text.splitlines():
        assert not re.search(r"(password|token|secret|api_?key)\w*:\s*[\"']?[A-Za-z0-9]{8}", line, re.IGNORECASE), line
        assert not re.search(r"://[^/\s:]+:[^@\s\]]+@[a-z]", line), line


def test_every_component_is_defined_and_used() -> None:
    used: dict[str, set[str]] = {"receivers": set(), "processors": set(), "exporters": set()}
    for pipeline in COLLECTOR["service"]["pipelines"].values():
        for kind, names in pipeline.items():
            used[kind] |= set(names)
    for kind, names in used.items():
        assert names == set(COLLECTOR[kind]), kind
    assert set(COLLECTOR["service"]["extensions"]) == set(COLLECTOR["extensions"])


def test_every_pipeline_begins_with_the_memory_limiter() -> None:
    for name, pipeline in COLLECTOR["service"]["pipelines"].items():
        assert pipeline["processors"][0] == "memory_limiter", name
        order = pipeline["processors"]
        assert order.index("redaction") < order.index("tail_sampling"), "nothing is kept before it is redacted"
    limiter = COLLECTOR["processors"]["memory_limiter"]
    assert (limiter["limit_percentage"], limiter["spike_limit_percentage"]) == (80, 25)


def test_secrets_are_redacted() -> None:
    redaction = COLLECTOR["processors"]["redaction"]
    keys = "|".join(redaction["blocked_key_patterns"])
    for attribute in ("http.request.header.authorization", "cookie", "access_token", "db.password", "client_secret", "idempotency-key"):
        assert re.fullmatch(keys, attribute), attribute
    values = "|".join(redaction["blocked_values"])
    for value in ("eyJhbGciOi.eyJzdWIi.c2ln", "postgresql://user:hunter2@db/orders"):
        assert re.search(values, value), value
    assert not re.search(values, "http://127.0.0.1:4318/v1/traces")


def test_errors_and_slow_traces_are_kept() -> None:
    policies = {policy["type"]: policy for policy in COLLECTOR["processors"]["tail_sampling"]["policies"]}
    assert policies["status_code"]["status_code"]["status_codes"] == ["ERROR"]
    assert policies["latency"]["latency"]["threshold_ms"] == 500
    assert policies["probabilistic"]["probabilistic"]["sampling_percentage"] == 10


def test_queues_are_bounded_and_batched_in_the_exporter() -> None:
    for name, exporter in COLLECTOR["exporters"].items():
        assert exporter["sending_queue"]["enabled"] is True, name
        assert exporter["sending_queue"]["queue_size"] <= 10_000
        assert "batch" in exporter["sending_queue"]
    assert "batch" not in COLLECTOR["processors"]


def test_addresses_are_the_ones_compose_gives() -> None:
    services = set(COMPOSE["services"])
    text = "".join(path.read_text(encoding="utf-8") for path in FILES)
    for host in re.findall(r"(?:https?://|\[\"|endpoint: )([a-z]+):\d+", text):
        assert host in services, host
    for service in COMPOSE["services"].values():
        for mount in service.get("volumes", []):
            if mount.startswith("./"):
                assert (ROOT / mount.split(":")[0]).exists(), mount
    scraped = {job["job_name"].removeprefix("orders-"): job["static_configs"][0]["targets"] for job in load("prometheus.yaml")["scrape_configs"]}
    assert scraped == {role: [f"{role}:9000"] for role in ("api", "relay", "worker", "reaper")}
    assert "OTLP_URL=http://collector:4318/v1/traces" in (ROOT / "deploy/dev/compose.sh").read_text(encoding="utf-8")


def test_exemplar_to_trace_to_logs_and_back() -> None:
    sources = {source["uid"]: source for source in load("grafana/datasources/datasources.yaml")["datasources"]}
    assert sources["prometheus"]["jsonData"]["exemplarTraceIdDestinations"] == [{"name": "trace_id", "datasourceUid": "tempo"}]
    assert sources["tempo"]["jsonData"]["tracesToLogsV2"]["datasourceUid"] == "loki"
    [field] = sources["loki"]["jsonData"]["derivedFields"]
    assert field["datasourceUid"] == "tempo"
    line = '{"event":"http.request","trace_id":"9d22a30aad833b2762757d974b61ddec"}'
    found = re.search(field["matcherRegex"], line)
    assert found is not None
    assert found[1] == "9d22a30aad833b2762757d974b61ddec"
    assert "--enable-feature=exemplar-storage" in COMPOSE["services"]["prometheus"]["command"]


def test_the_trace_id_is_no_label_in_loki() -> None:
    loki = load("loki.yaml")
    config = loki["limits_config"]["otlp_config"]
    assert loki["limits_config"]["allow_structured_metadata"] is True
    assert loki["schema_config"]["configs"][0] | {"store": "tsdb", "schema": "v13"} == loki["schema_config"]["configs"][0]
    labels = [name for entry in config["resource_attributes"]["attributes_config"] for name in entry["attributes"]]
    assert "trace_id" not in labels
    assert "trace_id" in config["log_attributes"][0]["attributes"]


def test_every_severity_has_a_receiver_and_pages_silence_tickets() -> None:
    config = load("alertmanager.yaml")
    receivers = {receiver["name"] for receiver in config["receivers"]}
    routes = config["route"]["routes"]
    assert {route["receiver"] for route in routes} | {config["route"]["receiver"]} == receivers
    assert config["route"]["group_by"] == ["alertname", "slo"]
    assert config["inhibit_rules"][0]["equal"] == ["slo"]
