"""The distributed load test: nothing unless asked for; then a master, workers that share the rate, and ways to the API only."""

from __future__ import annotations

from typing import Any

import pytest
from rendering import CASES, Object, kinds, pod_specs, render

ON: dict[str, Any] = {
    "load": {
        "enabled": True,
        "image": {"repository": "registry.example/load", "digest": f"sha256:{'a' * 64}"},
        "tokensSecret": "tokens",
        "workers": 4,
        "rate": 90,
    }
}


def of(objects: list[Object], kind: str) -> dict[str, Object]:
    return {name: found for name, found in kinds(objects, kind).items() if "load" in name}


def jobs(over: dict[str, Any]) -> dict[str, Object]:
    return {name.rpartition("-")[0]: job for name, job in of(render("staging", over), "Job").items()}


@pytest.mark.parametrize("case", CASES)
def test_it_is_off(case: str) -> None:
    assert not any(of(render(case), kind) for kind in ("Job", "Service", "NetworkPolicy"))


def test_master_and_workers_agree_on_the_run() -> None:
    found = jobs(ON)
    assert found.keys() == {"orders-load-master", "orders-load-worker"}
    arguments = {name: set(job["spec"]["template"]["spec"]["containers"][0]["args"]) for name, job in found.items()}
    shared = arguments["orders-load-master"] & arguments["orders-load-worker"]
    assert {"--host=http://orders-api", "--rate=90", "--generators=4", "--tokens=/tokens/tokens", "--i-own"} <= shared
    assert {"--master", "--expect-workers=4", "--users=4"} <= arguments["orders-load-master"]
    assert {"--worker", "--master-host=orders-load-master"} <= arguments["orders-load-worker"]
    assert found["orders-load-worker"]["spec"]["parallelism"] == 4
    assert all(job["spec"]["backoffLimit"] == 0 for job in found.values()), "a failed verdict is not tried again until it passes"
    assert "orders-load-master" in of(render("staging", ON), "Service")


def test_another_rate_is_another_job() -> None:
    names = set(of(render("staging", ON), "Job")), set(of(render("staging", {"load": ON["load"] | {"rate": 91}}), "Job"))
    assert not names[0] & names[1]


def test_its_pods_are_restricted_and_reach_the_api_only() -> None:
    objects = render("staging", ON)
    specs = {name: spec for name, spec in pod_specs(objects).items() if "load" in name}
    assert len(specs) == 2
    for spec in specs.values():
        assert spec["automountServiceAccountToken"] is False
        assert spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    policy = of(objects, "NetworkPolicy")["orders-load-worker"]["spec"]
    reached = [
        to["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
        for rule in policy["egress"]
        for to in rule["to"]
        if "namespaceSelector" not in to
    ]
    assert sorted(reached) == ["api", "load-master"]
    assert "ingress" not in policy
    let_in = [
        source["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
        for rule in kinds(objects, "NetworkPolicy")["orders-api"]["spec"]["ingress"]
        for source in rule["from"]
        if "podSelector" in source
    ]
    assert "load-worker" in let_in
