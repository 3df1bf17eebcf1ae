"""Every installation renders, lints and is valid for every supported Kubernetes version.

Core kinds: strict schemas of 1.30, 1.33 and 1.37, the newest. Custom kinds: the operators' own CRDs. A kind that neither knows fails.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
from crd_schema import complaints, load
from rendering import CASES, CHART, Object, kinds, merge, nested, objects_in, pick, render, render_text, values_of

VERSIONS = ("1.30", "1.33", "1.37")
CRDS = load()

# Single options switched the other way on top of staging (everything on there), each must still be valid.
TOGGLES: dict[str, Any] = {
    "api.scaler": "none",
    "workers.core.scaler": "hpa",
    "workers.followers": None,
    "migrate.enabled": False,
    "topics.enabled": False,
    "networkPolicy.enabled": False,
    "networkPolicy.podIdentityAgent": False,
    "ingress.mode": "none",
    "ingress.securityGroups": "sg-0123abcd",
    "kafka.auth": "none",
    "secrets.mode": "existing",
    "secrets.reloader": True,
    "monitoring.serviceMonitor.enabled": False,
    "tests.enabled": False,
    "tests.tokenSecret": "",
    "notifications.webhookUrl": "",
    "image.digest": "sha256:" + "a" * 64,
}


def check(resource: Object, version: str) -> None:
    """Raises on any unknown field, wrong type or unknown kind."""
    schema = CRDS.get((resource["apiVersion"], resource["kind"]))
    if schema is not None:
        assert complaints(schema, resource) == [], resource["metadata"]["name"]
        return
    kubernetes_validate.validate(resource, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", CASES)
def test_every_object_is_valid(case: str, version: str) -> None:
    objects = render(case)
    assert len(objects) > 10
    for resource in objects:
        check(resource, version)


@pytest.mark.parametrize("option", TOGGLES)
def test_every_option_is_valid_the_other_way(option: str) -> None:
    over = nested(option, TOGGLES[option])
    if option == "workers.followers":
        over["workers"]["core"] = {"groups": ["inventory", "payments", "notifications", "timeline", "cache"]}
    objects, before = render("staging", over), render("staging")
    assert objects != before, f"{option} changes nothing"
    for resource in objects:
        check(resource, VERSIONS[0])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("version", VERSIONS)
def test_lint_is_clean(case: str, version: str) -> None:
    report = helm_python.lint(CHART, values_of(case), strict=True, kube_version=f"v{version}.0")
    errors = [m for m in report["messages"] if m["severity"] >= 2 and "funcMap" not in m["error"]]
    assert report["errors"] == []
    assert errors == []


def test_supported_versions_are_declared() -> None:
    with helm_python.Chart.load(CHART) as chart:
        assert chart.metadata["kubeVersion"] == ">=1.30.0-0"


@pytest.mark.parametrize("case", CASES)
def test_names_are_unique_and_short(case: str) -> None:
    names = [(o["kind"], o["metadata"]["name"]) for o in render(case)]
    assert len(names) == len(set(names))
    assert max(len(name) for _, name in names) <= 63


def test_a_long_release_name_still_fits() -> None:
    for resource in render("staging", release="a-release-name-of-exactly-fifty-three-characters-long"):
        assert len(resource["metadata"]["name"]) <= 63


def spoil(kind: str, change: Callable[[Object], None]) -> Object:
    resource = copy.deepcopy(pick([o for o in render("staging") if o["kind"] == kind][:1], kind))
    change(resource)
    return resource


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("ScaledObject", lambda o: o["spec"].update(pollingIntervall=15)),
        ("ScaledObject", lambda o: o["spec"].update(minReplicaCount="2")),
        ("TriggerAuthentication", lambda o: o["spec"]["podIdentity"].update(provider="nobody")),
        ("ExternalSecret", lambda o: o["spec"]["target"].update(creationPolicy="Sometimes")),
        ("SecretStore", lambda o: o["spec"]["provider"]["aws"].pop("region")),
        ("ServiceMonitor", lambda o: o["spec"]["endpoints"][0].update(interval="often")),
        ("Deployment", lambda o: o["spec"]["template"]["spec"]["containers"][0].update(imagePulPolicy="Always")),
        ("Job", lambda o: o["spec"].update(backoffLimit="three")),
    ],
)
def test_the_schemas_refuse_mistakes(kind: str, change: Callable[[Object], None]) -> None:
    with pytest.raises((AssertionError, kubernetes_validate.ValidationError)):
        check(spoil(kind, change), VERSIONS[-1])


def test_an_unknown_kind_is_an_error_not_a_warning() -> None:
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        check({"apiVersion": "example.com/v1", "kind": "Surprise", "metadata": {"name": "x"}}, VERSIONS[0])


def test_rules_and_dashboards_are_shipped_untouched(tmp_path: Path) -> None:
    chart = tmp_path / "orders"
    shutil.copytree(CHART, chart)
    for folder in ("rules", "dashboards"):
        shutil.rmtree(chart / "files" / folder, ignore_errors=True)
        (chart / "files" / folder).mkdir(parents=True)
    rule = 'groups:\n- name: g\n  rules:\n  - alert: A\n    expr: up == 0\n    annotations: {summary: "{{ $labels.pod }} at {{ $value }}"}\n'
    (chart / "files" / "rules" / "slo.yaml").write_text(rule)
    (chart / "files" / "dashboards" / "api.json").write_text('{"title": "{{ route }}"}\n')
    objects = objects_in(render_text(values_of("staging"), chart=chart))
    shipped = pick(objects, "PrometheusRule")
    assert shipped["spec"]["groups"][0]["rules"][0]["annotations"]["summary"] == "{{ $labels.pod }} at {{ $value }}"
    assert shipped["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    check(shipped, VERSIONS[0])
    off = merge(values_of("staging"), {"monitoring": {"prometheusRule": {"enabled": False}, "dashboards": {"enabled": False}}})
    left = objects_in(render_text(off, chart=chart))
    assert len(left) == len(objects) - 2
    dashboard = kinds(objects, "ConfigMap")["orders-dashboard-api"]
    assert dashboard["data"]["api.json"] == '{"title": "{{ route }}"}'
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_merge_keeps_what_is_not_named() -> None:
    assert merge({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}) == {"a": {"b": 3, "c": 2}}
