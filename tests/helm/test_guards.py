"""Every refusal of templates/_validate.tpl and of the schema has values that trip it, and only it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from helm_python import HelmRenderError, HelmValuesError
from rendering import CHART, Values, merge, nested, render_text, values_of

ONE_ENTRY: Values = {"workers": {"followers": None}}
ALL_GROUPS = ["inventory", "payments", "notifications", "timeline", "cache"]

# (case, overrides, text of the refusal)
REFUSALS: list[tuple[str, Values, str]] = [
    ("default", nested("api.terminationGracePeriodSeconds", 54), "api.terminationGracePeriodSeconds is 54, but"),
    ("default", nested("api.drainTimeoutSeconds", 26), "api.terminationGracePeriodSeconds is 60, but"),
    ("default", nested("background.terminationGracePeriodSeconds", 24), "background.terminationGracePeriodSeconds is 24"),
    ("staging", nested("api.keepAliveSeconds", 60), "api.keepAliveSeconds (60) must be above"),
    ("default", {"api": {"scaler": "hpa", "hpa": {"minReplicas": 9, "maxReplicas": 8}}}, "api.hpa.minReplicas is above"),
    ("staging", nested("workers.core.maxReplicas", 13), "workers.core may have 13 replicas"),
    ("default", nested("workers.core.replicas", 13), "workers.core may have 13 replicas"),
    ("staging", nested("kafka.topics", {"orders.events.v1": 6}), "workers.core may have 12 replicas"),
    ("staging", nested("workers.core.minReplicas", 13), "workers.core.minReplicas is above"),
    ("staging", nested("kafka.region", ""), "kafka.region is empty"),
    ("staging", nested("redis.iamCache", ""), "redis.iamCache is empty"),
    ("staging", nested("database.ssl", "prefer"), "database.auth=iam sends a token"),
    ("staging", nested("database.poolSize", 20), "above connectionBudget 600"),
    ("default", nested("workers.core.groups", ["inventory", "payments", "mail"]), 'unknown group "mail"'),
    ("default", nested("workers.core.groups", [*ALL_GROUPS]), "is run by two entries"),
    ("default", ONE_ENTRY, "is run by no entry of workers"),
    ("default", nested("kafka.groups.cache", ["nowhere.v1"]), 'unknown topic "nowhere.v1"'),
    ("staging", nested("networkPolicy.egress.databaseCidrs", []), "networkPolicy.egress.databaseCidrs is empty"),
    ("staging", nested("networkPolicy.egress.redisCidrs", []), "networkPolicy.egress.redisCidrs is empty"),
    ("staging", nested("networkPolicy.egress.kafkaCidrs", []), "networkPolicy.egress.kafkaCidrs is empty"),
    ("staging", nested("networkPolicy.egress.jwksCidrs", []), "networkPolicy.egress.jwksCidrs is empty"),
    ("staging", nested("networkPolicy.egress.pspCidrs", []), "networkPolicy.egress.pspCidrs is empty"),
    ("staging", nested("networkPolicy.egress.webhookCidrs", []), "but notifications.webhookUrl is set"),
    ("staging", nested("networkPolicy.albSubnetCidrs", []), "networkPolicy.albSubnetCidrs is empty"),
    ("staging", nested("ingress.certificateArn", ""), "ingress.certificateArn is empty"),
    ("staging", nested("monitoring.labels.release", None), "monitoring.labels is empty"),
    ("default", nested("config.extra.APP_DB_POOL_SIZE", "9"), "config.extra.APP_DB_POOL_SIZE is set by the chart"),
    ("staging", nested("secrets.external.region", ""), "secrets.external.region is empty"),
    ("staging", nested("secrets.external.createStore", to=False), "secrets.external.storeName is empty"),
    ("prod", nested("load.enabled", to=True), "load.enabled is refused in prod"),
    ("default", nested("load.enabled", to=True), "load.image is incomplete"),
    ("default", {"load": {"enabled": True, "image": {"repository": "load", "digest": f"sha256:{'0' * 64}"}}}, "load.tokensSecret is empty"),
    ("prod", nested("image.digest", ""), "image.digest is empty"),
    ("prod", nested("api.hpa.minReplicas", 2), "prod needs at least 3 API replicas"),
    ("prod", {"api": {"scaler": "none", "replicas": 2}}, "prod needs at least 3 API replicas"),
    ("prod", nested("secrets.mode", "existing"), "prod takes its secrets from External Secrets"),
    ("prod", nested("networkPolicy.enabled", to=False), "prod runs behind network policies"),
    ("prod", {"networkPolicy": {"egress": {"webhookCidrs": []}}, "notifications": {"webhookUrl": ""}}, "prod names where notifications go"),
    ("prod", nested("notifications.webhookUrl", ""), "notifications.webhookUrl is empty"),
    ("prod", nested("config.appEnv", "development"), "prod needs config.appEnv"),
    ("prod", nested("zoneSpread", "ScheduleAnyway"), "prod spreads over zones"),
    ("prod", {"database": {"ssl": "prefer", "auth": "password"}}, "prod encrypts database connections"),
    ("prod", nested("ingress.deletionProtection", to=False), "prod keeps its load balancer"),
]


@pytest.mark.parametrize(("case", "over", "text"), REFUSALS, ids=[f"{c}-{t}" for c, _, t in REFUSALS])
def test_contradiction_is_refused(case: str, over: Values, text: str) -> None:
    with pytest.raises(HelmRenderError, match=re.escape(text)):
        render_text(merge(values_of(case), over))


def refusal_of(case: str, over: Values) -> str:
    with pytest.raises(HelmRenderError) as caught:
        render_text(merge(values_of(case), over))
    return str(caught.value)


def test_every_refusal_in_the_templates_is_tripped_by_a_case() -> None:
    source = (CHART / "templates" / "_validate.tpl").read_text(encoding="utf-8")
    written = re.findall(r'fail (?:\(printf )?"((?:[^"\\]|\\.)+)"', source)
    assert len(written) == source.count("fail "), "a refusal is written in a form this test does not read"
    seen = [refusal_of(case, over) for case, over, _ in REFUSALS]
    for message in written:
        shape = re.sub(r"%[dsq]", r'[\\w."-]+', re.escape(message.replace('\\"', '"')))
        assert any(re.search(shape, text) for text in seen), f"no failing values for: {message}"


# (overrides on the defaults, key the message names)
BAD_VALUES: list[tuple[Values, str]] = [
    ({"replicaCount": 3}, "replicaCount"),
    (nested("environment", "production"), "environment"),
    (nested("image.tag", "latest"), "tag"),
    (nested("image.digest", "sha256:abc"), "digest"),
    (nested("image.repository", "Plumbline!"), "repository"),
    (nested("image.pullPolicy", "Sometimes"), "pullPolicy"),
    (nested("api.replicas", 0), "replicas"),
    (nested("api.replicas", "3"), "replicas"),
    (nested("api.scaler", "keda"), "scaler"),
    (nested("api.hpa.enabled", to=True), "enabled"),
    (nested("api.hpa.cpuPercent", 100), "cpuPercent"),
    (nested("api.resources.limits.cpu", "1"), "cpu"),
    (nested("api.resources.requests.memory", "lots"), "memory"),
    (nested("workers.core.scaler", "both"), "core"),
    (nested("workers.core.keda", {"enabled": True}), "core"),
    (nested("workers.Core", {"groups": []}), "Core"),
    (nested("workers.core.groups", []), "core"),
    (nested("config.extra", {"DATABASE_URL": "postgresql://x"}), "DATABASE_URL"),
    (nested("config.logLevel", "trace"), "logLevel"),
    (nested("config.publicHosts", []), "publicHosts"),
    (nested("config.publicHosts", ["*"]), "publicHosts"),
    (nested("auth.issuer", "issuer.example.com"), "issuer"),
    (nested("database.port", 0), "port"),
    (nested("database.ssl", "allow"), "ssl"),
    (nested("kafka.bootstrapServers", "kafka"), "bootstrapServers"),
    (nested("kafka.auth", "plain"), "auth"),
    (nested("kafka.topics", {"t": 0}), "t"),
    (nested("secrets.mode", "plain"), "mode"),
    (nested("networkPolicy.albSubnetCidrs", ["0.0.0.0/0"]), "albSubnetCidrs"),
    (nested("networkPolicy.egress.pspCidrs", ["0.0.0.0/0"]), "pspCidrs"),
    (nested("networkPolicy.egress.databaseCidrs", ["10.0.0.0"]), "databaseCidrs"),
    (nested("networkPolicy.egress.anyCidrs", ["10.0.0.0/8"]), "anyCidrs"),
    (nested("ingress.mode", "nginx"), "mode"),
    (nested("ingress.sslPolicy", "ELBSecurityPolicy-2016-08"), "sslPolicy"),
    (nested("podDisruptionBudget.maxUnavailable", 0), "maxUnavailable"),
    (nested("podDisruptionBudget.minAvailable", 1), "minAvailable"),
    (nested("relay.replicas", 9), "replicas"),
    (nested("reaper.replicas", 2), "replicas"),
    (nested("migrate.ttlSecondsAfterFinished", 60), "ttlSecondsAfterFinished"),
    (nested("zoneSpread", "Never"), "zoneSpread"),
    (nested("telemetry.sampleRatio", 2), "sampleRatio"),
    (nested("tests.sku", "sku 1"), "sku"),
]


@pytest.mark.parametrize(("over", "key"), BAD_VALUES, ids=[f"{i:02d}-{k}" for i, (_, k) in enumerate(BAD_VALUES)])
def test_bad_value_is_refused_by_name(over: Values, key: str) -> None:
    with pytest.raises(HelmValuesError, match=re.escape(key)):
        render_text(over)


def _closed(schema: Any, path: str = "") -> list[str]:
    """Objects of the schema that would accept a misspelt key."""
    open_ones = []
    if isinstance(schema, dict):
        if schema.get("type") == "object" and "additionalProperties" not in schema and path != "/properties/global":
            open_ones.append(path)
        for key, value in schema.items():
            open_ones += _closed(value, f"{path}/{key}")
    elif isinstance(schema, list):
        for index, value in enumerate(schema):
            open_ones += _closed(value, f"{path}/{index}")
    return open_ones


def test_the_schema_has_no_open_object() -> None:
    assert _closed(json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))) == []
