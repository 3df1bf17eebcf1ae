"""The shipping documents point at things that exist and name every target and workflow variable."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "deploy" / "verify"))
import verify

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    "docs/deploy.md",
    "docs/checks.md",
    "docs/first-deploy.md",
    "deploy/helm/orders/README.md",
    "docs/adr/0421-hpa-signal.md",
    "docs/adr/0422-migrations-as-a-plain-job.md",
]


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_links_and_paths_exist(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)", text(page)):
        if not target.startswith("http"):
            assert ((ROOT / page).parent / target).exists(), target
    for path in re.findall(r"`((?:deploy|infra|docs|tests|\.github)/[\w./-]+)`", text(page)):
        assert (ROOT / path).exists(), path


def test_every_target_is_told() -> None:
    missing = [name for name in verify.targets() if f"`{name}`" not in text("docs/deploy.md") and name != "docs"]
    assert [name for name in missing if not re.search(rf"verify\.py {name}`", text("docs/deploy.md"))] == []


def test_every_variable_of_the_workflows_is_on_the_checklist() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / ".github" / "workflows").glob("*.yml"))
    for name in set(re.findall(r"(?:vars|secrets)\.([A-Z_]+)", source)):
        assert f"`{name}`" in text("docs/first-deploy.md"), name
    for label in set(re.findall(r"runner: (orders-\w+)", source)):
        assert f"`{label}`" in text("docs/first-deploy.md"), label


def test_the_timeline_is_the_charts() -> None:
    api = yaml.safe_load(text("deploy/helm/orders/values.yaml"))["api"]
    page = text("docs/deploy.md")
    assert f"serves on for {api['preStopSeconds']} s" in page
    assert f"accepting for {api['drainWaitSeconds']} s" in page
    assert f"up to {api['drainTimeoutSeconds']} s" in page
    assert f"grace period ends at {api['terminationGracePeriodSeconds']} s" in page


def test_the_namespace_is_restricted_and_gated() -> None:
    namespace, role, binding = yaml.safe_load_all(text("deploy/namespace.yaml"))
    labels = namespace["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert labels["elbv2.k8s.aws/pod-readiness-gate-inject"] == "enabled"
    assert {group for rule in role["rules"] for group in rule["apiGroups"]} == {"keda.sh", "external-secrets.io", "monitoring.coreos.com"}
    assert "*" not in str(role["rules"])
    group = binding["subjects"][0]["name"]
    assert f'"{group}"' in text("infra/terraform/modules/environment/main.tf")
