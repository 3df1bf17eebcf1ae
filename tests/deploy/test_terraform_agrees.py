"""The chart's environment files and Terraform's speak of the same network, region, registry, names and secrets."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
TERRAFORM = ROOT / "infra" / "terraform"

every_environment = pytest.mark.parametrize("environment", ["dev", "staging", "prod"])


def values(environment: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "deploy/helm/orders" / f"values-{environment}.yaml").read_text(encoding="utf-8"))
    return loaded


def tfvar(environment: str, name: str) -> str:
    text = (TERRAFORM / "envs" / environment / "terraform.tfvars").read_text(encoding="utf-8")
    (found,) = re.findall(rf'^{name}\s*=\s*\[?"([^"]+)"', text, re.MULTILINE)
    return str(found)


@every_environment
def test_region_and_account(environment: str) -> None:
    told, region = values(environment), tfvar(environment, "region")
    assert told["kafka"]["region"] == told["secrets"]["external"]["region"] == region
    assert f":{region}:{tfvar(environment, 'account_id')}:" in told["ingress"]["certificateArn"]
    assert told["image"]["repository"] == f"{tfvar('prod', 'account_id')}.dkr.ecr.{region}.amazonaws.com/plumbline"


@every_environment
def test_every_cidr_of_the_vpc_is_inside_it(environment: str) -> None:
    policy, vpc = values(environment)["networkPolicy"], ipaddress.ip_network(tfvar(environment, "vpc_cidr"))
    inside = [*policy["albSubnetCidrs"]]
    for name in ("databaseCidrs", "redisCidrs", "kafkaCidrs", "vpcEndpointCidrs"):
        inside += policy["egress"][name]
    assert len(inside) == 15
    for cidr in inside:
        assert ipaddress.ip_network(cidr).subnet_of(vpc), cidr  # type: ignore[arg-type]


@every_environment
def test_public_host(environment: str) -> None:
    assert values(environment)["config"]["publicHosts"] == [f"{tfvar(environment, 'host_labels')}.{tfvar(environment, 'domain_name')}"]


def test_secret_names() -> None:
    defaults = yaml.safe_load((ROOT / "deploy/helm/orders/values.yaml").read_text(encoding="utf-8"))["secrets"]["external"]
    text = (TERRAFORM / "modules" / "environment" / "main.tf").read_text(encoding="utf-8")
    for name in (defaults["appKey"], defaults["migrateKey"]):
        assert f'"{name}"' in text


@every_environment
def test_iam_users_and_the_cache_they_log_in_to(environment: str) -> None:
    """Tokens name a database user, a cache user and a replication group: all three are Terraform's."""
    redis = values(environment)["redis"]
    main = (TERRAFORM / "modules" / "environment" / "main.tf").read_text(encoding="utf-8")
    assert re.search(r'name\s+= "orders-\$\{var.environment\}"', main)
    assert (redis["iamCache"], redis["iamUserPrefix"]) == (f"orders-{environment}", f"orders-{environment}-")
    cache = (TERRAFORM / "modules" / "elasticache" / "main.tf").read_text(encoding="utf-8")
    assert 'user_name     = "${var.name}-${each.key}"' in cache
    assert re.search(r"replication_group_id\s+= var.name\n", cache)
    defaults = yaml.safe_load((ROOT / "deploy/helm/orders/values.yaml").read_text(encoding="utf-8"))
    policy = (TERRAFORM / "modules" / "pod-identity" / "service.tf").read_text(encoding="utf-8")
    assert f"/{defaults['database']['iamUserPrefix']}${{user}}" in policy
    assert "${local.group_prefix}/${group}.retry" in policy


def test_account_names() -> None:
    text = (TERRAFORM / "modules" / "pod-identity" / "main.tf").read_text(encoding="utf-8")
    for account in ("api", "worker", "migrate"):
        assert f'name = "${{var.release}}-{account}"' in text
