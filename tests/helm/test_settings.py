"""The chart and the service agree: every setting the chart makes is one the service reads, and it starts with them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from rendering import CASES, ROOT, Values, pick, render

sys.path.insert(0, str(ROOT / "deploy" / "verify"))
from service_settings import defaults, known_names


def environment(case: str, over: Values | None = None) -> dict[str, str]:
    objects = render(case, over)
    (name,) = [o["metadata"]["name"] for o in objects if o["kind"] == "ConfigMap" and o["metadata"]["name"].endswith("-config")]
    data: dict[str, str] = pick(objects, "ConfigMap", name)["data"]
    api = next(o for o in objects if o["kind"] == "Deployment" and o["metadata"]["name"].endswith("-api"))
    return data | {entry["name"]: entry["value"] for entry in api["spec"]["template"]["spec"]["containers"][0].get("env", [])}


# What EKS Pod Identity puts into every container whose service account has a role.
POD_IDENTITY = {
    "AWS_REGION": "us-east-1",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount/eks-pod-identity-token",
}


@pytest.mark.parametrize("case", CASES)
def test_every_setting_of_the_chart_exists(case: str) -> None:
    assert set(environment(case)) - known_names() == set()


def test_the_secret_files_are_settings_too() -> None:
    assert {"DATABASE_URL", "REDIS_URL"} <= known_names()


SHUTDOWN = (
    "APP_HTTP_KEEP_ALIVE_S", "APP_HTTP_DRAIN_WAIT_S", "APP_HTTP_DRAIN_TIMEOUT_S", "APP_WORKER_HANDLER_TIMEOUT_S", "APP_WORKER_DRAIN_TIMEOUT_S",
)  # fmt: skip


def test_the_chart_shuts_down_by_the_services_own_numbers() -> None:
    """It repeats them so that its guard can add them up; repeated wrongly, the sum would be another process's."""
    told, own = environment("default"), defaults()
    assert {name: float(told[name]) for name in SHUTDOWN} == {name: own[name] for name in SHUTDOWN}


def start(env: dict[str, str], secrets: Path) -> subprocess.CompletedProcess[str]:
    (secrets / "DATABASE_URL").write_text("postgresql://orders:from-file@db.example.com/orders", encoding="utf-8")
    (secrets / "REDIS_URL").write_text("rediss://redis.example.com:6379/0", encoding="utf-8")
    code = "from service.settings import load_settings as l; s = l(); print(s.db.url.get_secret_value(), s.production)"
    full = {**POD_IDENTITY, **env, "APP_SECRETS_DIR": str(secrets), "PATH": os.environ["PATH"]}
    return subprocess.run([sys.executable, "-c", code], env=full, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("case", CASES)
def test_the_service_starts_with_the_environment_of_the_chart(case: str, tmp_path: Path) -> None:
    ended = start(environment(case), tmp_path)
    assert ended.returncode == 0, ended.stderr[-800:]
    url, production = ended.stdout.split()
    assert "from-file" in url, "the mounted secret is not read"
    assert production == str(case != "kind")


@pytest.mark.parametrize("case", ["dev", "staging", "prod"])
def test_every_component_logs_in_with_tokens_as_its_own_user(case: str) -> None:
    objects = render(case)
    users = {}
    for thing in objects:
        if thing["kind"] in {"Deployment", "Job"}:
            spec = thing["spec"]["template"]["spec"]
            for container in spec["containers"] + spec.get("initContainers", []):
                env = {entry["name"]: entry["value"] for entry in container["env"]}
                account = spec["serviceAccountName"].removeprefix("orders-")
                assert env == {"APP_DB_IAM_USER": f"orders_{account}", "APP_REDIS_IAM_USER": f"orders-{case}-{account}"}
                users[account] = env
    assert set(users) == {"api", "worker", "migrate"}
    told = environment(case)
    assert (told["APP_DB_AUTH"], told["APP_REDIS_AUTH"], told["APP_KAFKA_AUTH"]) == ("iam", "iam", "iam")


def test_a_contradiction_would_be_seen(tmp_path: Path) -> None:
    assert start({**environment("prod"), "APP_DB_CONNECTION_BUDGET": "1"}, tmp_path).returncode != 0
