"""What each template promises, option by option: one statement a test, read from the rendered objects."""

from __future__ import annotations

import re
from typing import Any

import pytest
from rendering import CASES, Object, kinds, nested, pick, pod_specs, render

SELECTOR_KEYS = {"app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component"}
SIX_LABELS = SELECTOR_KEYS | {f"app.kubernetes.io/{k}" for k in ("version", "part-of", "managed-by")}


def api(case: str = "staging", over: dict[str, Any] | None = None) -> Object:
    return pick(render(case, over), "Deployment", "orders-api")


def container(deployment: Object) -> Object:
    found: Object = deployment["spec"]["template"]["spec"]["containers"][0]
    return found


def workloads(objects: list[Object]) -> dict[str, Object]:
    return {name.removeprefix("Deployment/"): o for name, o in ((f"Deployment/{n}", o) for n, o in kinds(objects, "Deployment").items())}


# --- every pod -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_every_pod_is_restricted(case: str) -> None:
    specs = pod_specs(render(case))
    assert specs
    for name, spec in specs.items():
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["enableServiceLinks"] is False, name
        context = spec["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert context["runAsUser"] == context["runAsGroup"] == context["fsGroup"] == 10001, name
        assert context["fsGroupChangePolicy"] == "OnRootMismatch", name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for box in [*spec["containers"], *spec.get("initContainers", [])]:
            inner = box["securityContext"]
            assert inner["readOnlyRootFilesystem"] is True, (name, box["name"])
            assert inner["allowPrivilegeEscalation"] is False, (name, box["name"])
            assert inner["capabilities"] == {"drop": ["ALL"]}, (name, box["name"])
            assert inner["runAsUser"] == 10001, (name, box["name"])
            assert inner["seccompProfile"] == {"type": "RuntimeDefault"}, (name, box["name"])


@pytest.mark.parametrize("case", CASES)
def test_every_container_has_requests_and_a_memory_limit_but_no_cpu_limit(case: str) -> None:
    for name, spec in pod_specs(render(case)).items():
        for box in [*spec["containers"], *spec.get("initContainers", [])]:
            assert set(box["resources"]["requests"]) == {"cpu", "memory", "ephemeral-storage"}, (name, box["name"])
            assert set(box["resources"]["limits"]) == {"memory", "ephemeral-storage"}, (name, box["name"])


@pytest.mark.parametrize("case", CASES)
def test_only_tmp_is_writable(case: str) -> None:
    for name, spec in pod_specs(render(case)).items():
        for volume in spec["volumes"]:
            assert set(volume) - {"name"} <= {"emptyDir", "secret", "configMap"}, name
            if "emptyDir" in volume:
                assert volume == {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}, name
        for box in spec["containers"]:
            writable = [m["mountPath"] for m in box["volumeMounts"] if not m.get("readOnly")]
            assert writable in ([], ["/tmp"]), name  # noqa: S108 - the mount path is the promise


@pytest.mark.parametrize("case", CASES)
def test_secrets_are_files_never_environment(case: str) -> None:
    objects = render(case)
    for name, spec in pod_specs(objects).items():
        for box in [*spec["containers"], *spec.get("initContainers", [])]:
            assert all("secretRef" not in source for source in box.get("envFrom", [])), name
            assert all("valueFrom" not in variable for variable in box.get("env", [])), name
    for config in kinds(objects, "ConfigMap").values():
        assert not set(config["data"]) & {"DATABASE_URL", "REDIS_URL"}


@pytest.mark.parametrize("case", CASES)
def test_the_process_looks_where_the_secrets_are_mounted(case: str) -> None:
    objects = render(case)
    (folder,) = {c["data"]["APP_SECRETS_DIR"] for c in kinds(objects, "ConfigMap").values() if "APP_SECRETS_DIR" in c["data"]}
    for name, spec in pod_specs(objects).items():
        for box in [*spec["containers"], *spec.get("initContainers", [])]:
            if "envFrom" in box:
                assert {"name": "secrets", "mountPath": folder, "readOnly": True} in box["volumeMounts"], name


@pytest.mark.parametrize("case", CASES)
def test_labels_and_immutable_selectors(case: str) -> None:
    for o in render(case):
        assert set(o["metadata"]["labels"]) >= SIX_LABELS, o["metadata"]["name"]
        if o["kind"] == "Deployment":
            assert set(o["spec"]["selector"]["matchLabels"]) == SELECTOR_KEYS
            assert o["spec"]["selector"]["matchLabels"].items() <= o["spec"]["template"]["metadata"]["labels"].items()


def test_pods_roll_when_the_configuration_changes_and_only_then() -> None:
    def checksum(over: dict[str, Any] | None = None) -> str:
        value: str = api("staging", over)["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
        return value

    assert checksum() == checksum(nested("ingress.wafAclArn", "arn:aws:wafv2:x")) != checksum(nested("config.logLevel", "debug"))


def test_placement_values_reach_every_pod() -> None:
    for name, spec in pod_specs(render("everything")).items():
        assert spec["nodeSelector"] == {"kubernetes.io/arch": "arm64"}, name
        assert spec["tolerations"][0]["value"] == "orders", name
        assert spec["priorityClassName"] == "orders-critical", name
        assert spec["imagePullSecrets"] == [{"name": "registry"}], name


def test_the_digest_wins_over_the_tag() -> None:
    digest = "sha256:" + "b" * 64
    image = {"repository": "r.example.com/p", "tag": "1.0.0", "digest": digest}
    for name, spec in pod_specs(render("default", {"image": image})).items():
        assert {c["image"] for c in spec["containers"]} == {f"r.example.com/p@{digest}"}, name
    assert container(api("default", nested("image.tag", "1.0.0")))["image"] == "plumbline:1.0.0"
    assert container(api("default"))["image"] == "plumbline:0.1.0"


# --- workloads -------------------------------------------------------------------------------------------------------


def test_no_replicas_where_a_scaler_owns_the_count() -> None:
    objects = render("staging")
    for name in ("orders-api", "orders-worker-core", "orders-worker-followers"):
        assert "replicas" not in pick(objects, "Deployment", name)["spec"], name
    fixed = render("default")
    assert pick(fixed, "Deployment", "orders-api")["spec"]["replicas"] == 2
    assert pick(fixed, "Deployment", "orders-worker-core")["spec"]["replicas"] == 2
    assert not kinds(fixed, "HorizontalPodAutoscaler")
    assert not kinds(fixed, "ScaledObject")


@pytest.mark.parametrize("case", CASES)
def test_one_scaler_a_workload(case: str) -> None:
    objects = render(case)
    owners = [o["spec"]["scaleTargetRef"]["name"] for o in objects if o["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")]
    assert len(owners) == len(set(owners))
    assert set(owners) <= set(kinds(objects, "Deployment"))


def test_rollouts_never_lose_capacity() -> None:
    for name, deployment in kinds(render("staging"), "Deployment").items():
        spec = deployment["spec"]
        assert spec["revisionHistoryLimit"] == 5
        if name == "orders-reaper":
            assert spec["strategy"] == {"type": "Recreate"}
            assert spec["replicas"] == 1
        else:
            assert spec["strategy"]["rollingUpdate"] == {"maxSurge": "25%", "maxUnavailable": 0}, name
    assert api()["spec"]["minReadySeconds"] == 10
    assert api()["spec"]["progressDeadlineSeconds"] == 600
    assert pick(render("staging"), "Deployment", "orders-relay")["spec"]["replicas"] == 2


def test_api_shutdown_arithmetic() -> None:
    objects = render("staging")
    spec = pick(objects, "Deployment", "orders-api")["spec"]["template"]["spec"]
    data = pick(objects, "ConfigMap", "orders-config")["data"]
    pre_stop = spec["containers"][0]["lifecycle"]["preStop"]
    assert pre_stop == {"sleep": {"seconds": 25}}
    drain = int(data["APP_HTTP_DRAIN_WAIT_S"]) + int(data["APP_HTTP_DRAIN_TIMEOUT_S"])
    assert spec["terminationGracePeriodSeconds"] == 60 >= 25 + drain + 5
    attributes = pick(objects, "Ingress")["metadata"]["annotations"]["alb.ingress.kubernetes.io/load-balancer-attributes"]
    idle = int(re.findall(r"idle_timeout.timeout_seconds=(\d+)", attributes)[0])
    assert int(data["APP_HTTP_KEEP_ALIVE_S"]) == 75 > idle == 60


def test_background_grace_and_no_pre_stop() -> None:
    for name, deployment in kinds(render("staging"), "Deployment").items():
        if name != "orders-api":
            assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 90, name
            assert "lifecycle" not in container(deployment), name


def test_probes_use_the_ops_port_and_liveness_asks_no_dependency() -> None:
    for name, deployment in kinds(render("staging"), "Deployment").items():
        box = container(deployment)
        seen = {
            k: (box[f"{k}Probe"]["httpGet"]["path"], box[f"{k}Probe"]["periodSeconds"], box[f"{k}Probe"]["failureThreshold"])
            for k in ("startup", "liveness", "readiness")
        }
        assert seen == {"startup": ("/health/startup", 2, 30), "liveness": ("/health/live", 10, 3), "readiness": ("/health/ready", 5, 2)}, name
        assert all(box[f"{k}Probe"]["httpGet"]["port"] == "ops" for k in ("startup", "liveness", "readiness")), name
        assert {"name": "ops", "containerPort": 9000} in box["ports"], name
        assert ({"name": "http", "containerPort": 8000} in box["ports"]) is (name == "orders-api")


def test_commands() -> None:
    args = {name: container(o)["args"] for name, o in kinds(render("default"), "Deployment").items()}
    assert args == {
        "orders-api": ["serve"],
        "orders-worker-core": ["worker", "--group", "inventory", "--group", "payments"],
        "orders-worker-followers": ["worker", "--group", "notifications", "--group", "timeline", "--group", "cache"],
        "orders-relay": ["relay"],
        "orders-reaper": ["reaper"],
    }


def test_every_deployment_waits_for_its_schema() -> None:
    for name, deployment in kinds(render("minimal"), "Deployment").items():
        boxes = deployment["spec"]["template"]["spec"]["initContainers"]
        assert [b["args"] for b in boxes] == [["db-wait"]], name
        assert {m["mountPath"] for m in boxes[0]["volumeMounts"]} == {"/tmp", "/var/run/secrets/plumbline"}, name  # noqa: S108


def test_spread_over_zones_and_hosts() -> None:
    for case, zone in (("dev", "ScheduleAnyway"), ("prod", "DoNotSchedule")):
        for name, deployment in kinds(render(case), "Deployment").items():
            first, second = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
            assert (first["topologyKey"], first["whenUnsatisfiable"]) == ("topology.kubernetes.io/zone", zone), name
            assert (second["topologyKey"], second["whenUnsatisfiable"]) == ("kubernetes.io/hostname", "ScheduleAnyway"), name
            for constraint in (first, second):
                assert constraint["matchLabelKeys"] == ["pod-template-hash"], name
                assert constraint["nodeTaintsPolicy"] == "Honor", name
                assert constraint["labelSelector"]["matchLabels"] == deployment["spec"]["selector"]["matchLabels"], name


@pytest.mark.parametrize("case", CASES)
def test_every_deployment_has_a_budget_that_never_blocks_a_drain(case: str) -> None:
    objects = render(case)
    budgets = kinds(objects, "PodDisruptionBudget")
    assert set(budgets) == set(kinds(objects, "Deployment"))
    for name, budget in budgets.items():
        spec = budget["spec"]
        assert spec["maxUnavailable"] == 1
        assert "minAvailable" not in spec
        assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        assert spec["selector"] == pick(objects, "Deployment", name)["spec"]["selector"]


def test_a_worker_entry_set_to_null_is_gone() -> None:
    assert not [o for o in render("minimal") if "followers" in o["metadata"]["name"]]


# --- scaling ---------------------------------------------------------------------------------------------------------


def test_api_hpa() -> None:
    spec = pick(render("prod"), "HorizontalPodAutoscaler", "orders-api")["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (3, 30)
    assert spec["metrics"][0]["resource"] == {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}
    up, down = spec["behavior"]["scaleUp"], spec["behavior"]["scaleDown"]
    assert up["policies"] == [{"type": "Percent", "value": 100, "periodSeconds": 30}, {"type": "Pods", "value": 4, "periodSeconds": 30}]
    assert up["selectPolicy"] == "Max"
    assert down == {"stabilizationWindowSeconds": 300, "policies": [{"type": "Percent", "value": 10, "periodSeconds": 60}]}


def test_worker_hpa_targets_its_deployment() -> None:
    spec = pick(render("everything"), "HorizontalPodAutoscaler", "shop-worker-core")["spec"]
    assert spec["scaleTargetRef"]["name"] == "shop-worker-core"
    assert spec["maxReplicas"] == 12


def test_scaled_object_names_topics_version_and_limits() -> None:
    objects = render("prod")
    spec = pick(objects, "ScaledObject", "orders-worker-followers")["spec"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"], spec["pollingInterval"], spec["cooldownPeriod"]) == (2, 12, 15, 300)
    assert spec["fallback"] == {"failureThreshold": 3, "replicas": 4}
    read = [(t["metadata"]["consumerGroup"], t["metadata"]["topic"]) for t in spec["triggers"]]
    events, catalog = "orders.events.v1", "catalog.events.v1"
    assert read == [("notifications", events), ("timeline", events), ("cache", events), ("cache", catalog)]
    for trigger in spec["triggers"]:
        told = trigger["metadata"]
        assert told["lagThreshold"] == "200"
        assert told["activationLagThreshold"] == "0"
        assert told["version"] == "3.6.0"
        assert told["allowIdleConsumers"] == told["excludePersistentLag"] == "false"
        assert (told["sasl"], told["saslTokenProvider"], told["tls"], told["awsRegion"]) == ("oauthbearer", "aws_msk_iam", "enable", "us-east-1")
        assert trigger["authenticationRef"] == {"name": "orders-keda"}
    assert pick(objects, "TriggerAuthentication")["spec"] == {"podIdentity": {"provider": "aws", "identityOwner": "keda"}}


def test_without_iam_the_scaler_needs_no_authentication() -> None:
    objects = render("everything")
    trigger = pick(objects, "ScaledObject")["spec"]["triggers"][0]
    assert "authenticationRef" not in trigger
    assert "sasl" not in trigger["metadata"]
    assert not kinds(objects, "TriggerAuthentication")


def test_the_fallback_stays_within_the_maximum() -> None:
    over = nested("workers.core.maxReplicas", 3)
    assert pick(render("staging", over), "ScaledObject", "orders-worker-core")["spec"]["fallback"]["replicas"] == 3


def test_connections_are_counted_with_surge() -> None:
    data = pick(render("prod"), "ConfigMap", "orders-config")["data"]
    # 30 API + 8 surge, twice 12 + 3 workers, relay 2 + 1, reaper 1
    assert data["APP_DB_PROCESSES"] == str(38 + 30 + 3 + 1)
    assert int(data["APP_DB_PROCESSES"]) * int(data["APP_DB_POOL_SIZE"]) <= int(data["APP_DB_CONNECTION_BUDGET"])
    assert data["APP_REPLICAS"] == "3"


# --- jobs ------------------------------------------------------------------------------------------------------------


def job_name(component: str, over: dict[str, Any] | None = None) -> str:
    (name,) = [n for n in kinds(render("staging", over), "Job") if f"-{component}-" in n]
    return name


def test_migration_is_a_plain_job() -> None:
    job = pick(render("staging"), "Job", job_name("migrate"))
    annotations = job["metadata"]["annotations"]
    assert not [key for key in annotations if key.startswith("helm.sh/")]
    assert annotations == {"argocd.argoproj.io/sync-wave": "-1"}
    spec = job["spec"]
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"]) == (3, 600)
    assert "ttlSecondsAfterFinished" not in spec
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert pod["serviceAccountName"] == "orders-migrate"
    assert pod["containers"][0]["args"] == ["migrate"]
    assert [v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v] == ["orders-migrate-secrets"]
    assert pick(render("staging"), "Job", job_name("topics"))["spec"]["template"]["spec"]["containers"][0]["args"] == ["topics", "apply"]


@pytest.mark.parametrize(
    "over", [nested("image.tag", "9"), nested("config.logLevel", "debug"), nested("migrate.backoffLimit", 1), nested("nodeSelector", {"a": "b"})]
)
@pytest.mark.parametrize("component", ["migrate", "topics"])
def test_a_changed_job_has_another_name(component: str, over: dict[str, Any]) -> None:
    assert re.fullmatch(rf"orders-{component}-[0-9a-f]{{8}}", job_name(component))
    assert job_name(component) != job_name(component, over)


def test_an_unchanged_job_keeps_its_name() -> None:
    assert (
        job_name("migrate")
        == job_name("migrate", nested("ingress.wafAclArn", "arn:aws:wafv2:x"))
        == job_name("migrate", nested("podDisruptionBudget.maxUnavailable", 2))
    )


def test_what_a_job_needs_exists_before_it() -> None:
    """Argo CD applies waves in order and waits: a needed object in a later wave would block the sync for ever."""
    objects = render("staging")
    waves = {(o["kind"], o["metadata"]["name"]): int(o["metadata"].get("annotations", {}).get("argocd.argoproj.io/sync-wave", "0")) for o in objects}
    made_by = {o["spec"]["target"]["name"]: ("ExternalSecret", o["metadata"]["name"]) for o in objects if o["kind"] == "ExternalSecret"}
    for job in kinds(objects, "Job").values():
        pod = job["spec"]["template"]["spec"]
        needed = [("ServiceAccount", pod["serviceAccountName"]), ("SecretStore", "orders-secrets")]
        needed += [("ConfigMap", source["configMapRef"]["name"]) for source in pod["containers"][0]["envFrom"]]
        needed += [made_by[v["secret"]["secretName"]] for v in pod["volumes"] if "secret" in v]
        component = job["metadata"]["labels"]["app.kubernetes.io/component"]
        needed += [("NetworkPolicy", f"orders-{component}"), ("NetworkPolicy", "orders-default-deny")]
        for key in needed:
            assert waves[key] < -1, key


def test_no_hooks_but_tests() -> None:
    for case in CASES:
        hooks = {o["metadata"]["annotations"]["helm.sh/hook"] for o in render(case) if "helm.sh/hook" in o["metadata"].get("annotations", {})}
        assert hooks <= {"test"}


# --- secrets, accounts, configuration -----------------------------------------------------------------------------


def test_external_secrets() -> None:
    objects = render("prod")
    secrets = kinds(objects, "ExternalSecret")
    assert {n: [d["secretKey"] for d in o["spec"]["data"]] for n, o in secrets.items()} == {
        "orders-secrets": ["DATABASE_URL", "REDIS_URL"],
        "orders-migrate-secrets": ["DATABASE_URL"],
    }
    for secret in secrets.values():
        assert secret["spec"]["refreshInterval"] == "1h"
        assert secret["spec"]["target"]["creationPolicy"] == "Owner"
        assert secret["spec"]["target"]["deletionPolicy"] == "Retain"
        assert secret["spec"]["secretStoreRef"] == {"kind": "SecretStore", "name": "orders-secrets"}
    assert {d["remoteRef"]["key"] for o in secrets.values() for d in o["spec"]["data"]} == {"orders/app", "orders/migrate"}
    assert pick(objects, "SecretStore")["spec"]["provider"]["aws"] == {"service": "SecretsManager", "region": "us-east-1"}
    shared = render("everything")
    assert not kinds(shared, "SecretStore")
    assert pick(shared, "ExternalSecret", "shop-secrets")["spec"]["secretStoreRef"]["name"] == "platform"


def test_existing_secrets_are_mounted_by_name() -> None:
    objects = render("default", {"secrets": {"existingName": "mine", "existingMigrateName": "owners"}})
    assert not kinds(objects, "ExternalSecret")
    for name, spec in pod_specs(objects).items():
        if name.startswith("Pod/"):
            continue
        wanted = "owners" if "migrate" in name else "mine"
        assert [v["secret"]["secretName"] for v in spec["volumes"] if "secret" in v] == [wanted], name


def test_reloader_is_asked_only_when_told() -> None:
    key = "secret.reloader.stakater.com/reload"
    assert {o["metadata"]["annotations"][key] for o in kinds(render("everything"), "Deployment").values()} == {"shop-secrets"}
    assert all(key not in o["metadata"].get("annotations", {}) for o in kinds(render("staging"), "Deployment").values())


def test_accounts() -> None:
    objects = render("everything")
    accounts = kinds(objects, "ServiceAccount")
    assert set(accounts) == {"shop-api", "shop-worker", "shop-migrate"}
    assert accounts["shop-api"]["metadata"]["annotations"]["eks.amazonaws.com/role-arn"].endswith("role/orders-api")
    assert all(a["automountServiceAccountToken"] is False for a in accounts.values())
    used = {name: spec["serviceAccountName"] for name, spec in pod_specs(objects).items()}
    assert {used["Deployment/shop-api"], used["Deployment/shop-worker-core"], used["Deployment/shop-relay"], used["Deployment/shop-reaper"]} == {
        "shop-api",
        "shop-worker",
    }
    assert set(used.values()) <= set(accounts)


# --- network ---------------------------------------------------------------------------------------------------------


def policy(name: str, case: str = "prod", over: dict[str, Any] | None = None) -> Object:
    found: Object = pick(render(case, over), "NetworkPolicy", name)["spec"]
    return found


def openings(rules: list[Object]) -> set[tuple[str, int]]:
    """(cidr or selector, port) of every rule."""
    found = set()
    for rule in rules:
        for peer in rule.get("to", rule.get("from")):
            label = (
                peer["ipBlock"]["cidr"]
                if "ipBlock" in peer
                else str(
                    sorted(
                        {**peer.get("namespaceSelector", {}).get("matchLabels", {}), **peer.get("podSelector", {}).get("matchLabels", {})}.values()
                    )
                )
            )
            found |= {(label, port["port"]) for port in rule["ports"]}
    return found


DATA = ("10.40.4.0/24", "10.40.5.0/24", "10.40.6.0/24")
DNS = {("['kube-dns', 'kube-system']", 53)}
SHARED = (
    DNS
    | {(d, p) for d in DATA for p in (5432, 6379, 9098)}
    | {
        *((f"10.40.{third}.0/20", 443) for third in (16, 32, 48)),
        ("169.254.170.23/32", 80),
        ("fd00:ec2::23/128", 80),
        ("['observability']", 4317),
        ("['observability']", 4318),
    }
)


def test_default_deny_selects_every_pod_both_ways() -> None:
    spec = policy("orders-default-deny")
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in spec
    assert "egress" not in spec
    chosen = spec["podSelector"]["matchLabels"].items()
    for o in render("prod"):
        if o["kind"] in ("Deployment", "Job"):
            assert chosen <= o["spec"]["template"]["metadata"]["labels"].items()


def test_api_policy() -> None:
    spec = policy("orders-api")
    assert openings(spec["egress"]) == SHARED | {("198.51.100.0/28", 443)}
    subnets = ("10.40.0.0/24", "10.40.1.0/24", "10.40.2.0/24")
    assert openings(spec["ingress"]) == {(s, p) for s in subnets for p in (8000, 9000)} | {
        ("['monitoring']", 9000),
        ("['orders', 'orders', 'test']", 8000),
        ("['orders', 'orders', 'test']", 9000),
    }


def test_worker_policy_covers_every_background_component() -> None:
    spec = policy("orders-worker")
    assert openings(spec["egress"]) == SHARED | {("203.0.113.0/28", 443), ("203.0.113.16/28", 443)}
    assert openings(spec["ingress"]) == {("['monitoring']", 9000)}
    chosen = set(spec["podSelector"]["matchExpressions"][0]["values"])
    components = {o["metadata"]["labels"]["app.kubernetes.io/component"] for o in kinds(render("prod"), "Deployment").values()}
    assert chosen == components - {"api"}


def test_job_policies_open_one_port() -> None:
    migrate, topics = policy("orders-migrate"), policy("orders-topics")
    assert openings(migrate["egress"]) == DNS | {(d, 5432) for d in DATA}
    assert openings(topics["egress"]) == DNS | {(d, 9098) for d in DATA} | {("169.254.170.23/32", 80), ("fd00:ec2::23/128", 80)}
    assert "ingress" not in migrate
    assert "ingress" not in topics


def test_dns_is_asked_over_both_protocols() -> None:
    for name in ("orders-api", "orders-worker", "orders-migrate", "orders-topics", "orders-test"):
        first = policy(name)["egress"][0]
        assert {(p["protocol"], p["port"]) for p in first["ports"]} == {("UDP", 53), ("TCP", 53)}, name


def test_the_identity_agent_can_be_left_out() -> None:
    off = nested("networkPolicy.podIdentityAgent", to=False)
    for name in ("orders-api", "orders-worker", "orders-topics"):
        assert not [peer for peer, _ in openings(policy(name, "prod", off)["egress"]) if peer.startswith("169.")], name


def test_every_pod_has_a_policy_of_its_own() -> None:
    objects = render("prod")
    policies = [o["spec"]["podSelector"] for n, o in kinds(objects, "NetworkPolicy").items() if n != "orders-default-deny"]
    makers = [
        o["metadata"]["labels"] if o["kind"] == "Pod" else o["spec"]["template"]["metadata"]["labels"]
        for o in objects
        if o["kind"] in ("Deployment", "Job", "Pod")
    ]
    for labels in makers:
        assert any(_selects(p, labels) for p in policies), labels


def _selects(selector: Object, labels: dict[str, str]) -> bool:
    fits = selector.get("matchLabels", {}).items() <= labels.items()
    return fits and all(labels.get(e["key"]) in e["values"] for e in selector.get("matchExpressions", []))


# --- services, ingress, monitoring -----------------------------------------------------------------------------------


def test_ingress_forwards_to_http_only_and_checks_the_ops_port() -> None:
    ingress = pick(render("prod"), "Ingress")
    backends = [p["backend"]["service"] for r in ingress["spec"]["rules"] for p in r["http"]["paths"]]
    assert backends == [{"name": "orders-api", "port": {"name": "http"}}]
    a = {k.removeprefix("alb.ingress.kubernetes.io/"): v for k, v in ingress["metadata"]["annotations"].items()}
    assert (a["scheme"], a["target-type"], a["ssl-redirect"]) == ("internet-facing", "ip", "443")
    assert a["ssl-policy"].startswith("ELBSecurityPolicy-TLS13-")
    assert (a["healthcheck-port"], a["healthcheck-path"], a["healthcheck-interval-seconds"]) == ("9000", "/health/ready", "10")
    for wanted in (
        "routing.http.drop_invalid_header_fields.enabled=true",
        "access_logs.s3.enabled=true",
        "access_logs.s3.bucket=orders-prod-alb-logs",
        "deletion_protection.enabled=true",
    ):
        assert wanted in a["load-balancer-attributes"].split(",")
    assert a["target-group-attributes"] == "deregistration_delay.timeout_seconds=30,load_balancing.algorithm.type=least_outstanding_requests"
    assert a["wafv2-acl-arn"].startswith("arn:aws:wafv2:")


def test_ingress_options() -> None:
    plain = pick(render("dev"), "Ingress")["metadata"]["annotations"]
    assert plain["alb.ingress.kubernetes.io/scheme"] == "internal"
    assert "alb.ingress.kubernetes.io/wafv2-acl-arn" not in plain
    assert "access_logs" not in plain["alb.ingress.kubernetes.io/load-balancer-attributes"]
    assert "deletion_protection.enabled=false" in plain["alb.ingress.kubernetes.io/load-balancer-attributes"]
    groups = pick(render("dev", nested("ingress.securityGroups", "sg-0a1b")), "Ingress")["metadata"]["annotations"]
    assert groups["alb.ingress.kubernetes.io/security-groups"] == "sg-0a1b"
    assert groups["alb.ingress.kubernetes.io/manage-backend-security-group-rules"] == "true"
    assert not kinds(render("default"), "Ingress")


def test_services_reach_their_pods() -> None:
    objects = render("prod")
    for name, service in kinds(objects, "Service").items():
        deployment = pick(objects, "Deployment", name)
        assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]
        named = {p["name"] for p in container(deployment)["ports"]}
        assert {p["targetPort"] for p in service["spec"]["ports"]} <= named
        assert (service["spec"].get("clusterIP") == "None") is (name != "orders-api")
    assert set(kinds(objects, "Service")) == set(kinds(objects, "Deployment"))


def test_service_monitor() -> None:
    objects = render("prod")
    monitor = pick(objects, "ServiceMonitor")
    assert monitor["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    (endpoint,) = monitor["spec"]["endpoints"]
    assert (endpoint["port"], endpoint["path"], endpoint["interval"], endpoint["honorLabels"]) == ("ops", "/metrics", "15s", False)
    assert monitor["spec"]["sampleLimit"] == 5000
    assert endpoint["metricRelabelings"][0]["action"] == "drop"
    for service in kinds(objects, "Service").values():
        assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        assert "ops" in {p["name"] for p in service["spec"]["ports"]}


def test_the_job_label_is_what_the_rules_ask_for() -> None:
    (relabel,) = pick(render("prod"), "ServiceMonitor")["spec"]["endpoints"][0]["relabelings"]
    assert (relabel["targetLabel"], relabel["replacement"]) == ("job", "orders-$1")


# --- test pods -------------------------------------------------------------------------------------------------------


def test_test_pods() -> None:
    pods = kinds(render("prod"), "Pod")
    assert set(pods) == {"orders-test-ready", "orders-test-refusal", "orders-test-order"}
    for name, pod in pods.items():
        assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
        assert pod["spec"]["containers"][0]["command"] == ["python", "/smoke/smoke.py", name.removeprefix("orders-test-")]
        assert pod["spec"]["restartPolicy"] == "Never"
    assert set(kinds(render("dev"), "Pod")) == {"orders-test-ready", "orders-test-refusal"}
    assert not kinds(render("minimal"), "Pod")
