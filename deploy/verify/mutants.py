"""Keeps the checks honest: breaks one thing at a time in a copy, and some check must notice.

The chart's mutants are judged without the golden files and the README, which would notice any change at all.
First every judge must pass the unbroken copy. Closing line: `N passed, M failed`; a survivor is printed with its edit.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = Path(os.environ.get("VERIFY_HOME", ROOT / "build" / "verify"))
BIN = HOME / "venv" / "bin"
COPIED = (
    ".dockerignore", ".github", ".gitignore", "Dockerfile", "LICENSE", "Makefile", "README.md", "compose.yaml", "deploy", "docs",
    "infra", "pyproject.toml", "requirements", "service", "tests/deploy", "tests/helm", "workers",
)  # fmt: skip
CHART = "deploy/helm/orders/templates"
TERRAFORM = "infra/terraform/modules"


@dataclass(frozen=True)
class Mutant:
    """Replaces the first `old` in `path` by `new`; `judge` must fail."""

    judge: str
    path: str
    old: str
    new: str


def chart(path: str, old: str, new: str) -> Mutant:
    return Mutant("chart", f"{CHART}/{path}", old, new)


def module(name: str, path: str, old: str, new: str) -> Mutant:
    return Mutant(f"modules/{name}", f"{TERRAFORM}/{name}/{path}", old, new)


MUTANTS = (
    chart("_pod.tpl", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"),
    chart("_pod.tpl", "runAsUser: 10001", "runAsUser: 0"),
    chart("_pod.tpl", "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true"),
    chart("_pod.tpl", "automountServiceAccountToken: false", "automountServiceAccountToken: true"),
    chart("_pod.tpl", "path: /health/live", "path: /health/ready"),
    chart("_pod.tpl", "      args: [db-wait]", "      args: [doctor]"),
    chart("_pod.tpl", "unhealthyPodEvictionPolicy: AlwaysAllow", "unhealthyPodEvictionPolicy: IfHealthyBudget"),
    chart("_pod.tpl", "matchLabelKeys: [pod-template-hash]", "minDomains: 1"),
    chart("_job.tpl", 'argocd.argoproj.io/sync-wave: "-1"', "helm.sh/hook: pre-install,pre-upgrade"),
    chart("_job.tpl", "trunc 8 }}", "trunc 0 }}"),
    chart("_validate.tpl", "$a.drainTimeoutSeconds 5", "$a.drainTimeoutSeconds 0"),
    chart("_validate.tpl", "if gt $most $partitions", "if gt $most 1000"),
    chart("_counts.tpl", '(include "orders.apiMax" .)', '(include "orders.apiMin" .)'),
    chart("_environment.tpl", "APP_DB_POOL_SIZE", "APP_DATABASE_POOL"),
    chart("_environment.tpl", "APP_SECRETS_DIR: /var/run/secrets/plumbline", "APP_SECRETS_DIR: /var/run/secrets/orders"),
    chart("api/deployment.yaml", "maxUnavailable: 0", "maxUnavailable: 1"),
    chart("api/deployment.yaml", '{{- if eq .Values.api.scaler "none" }}', "{{- if true }}"),
    chart("api/deployment.yaml", '"preStop" .Values.api.preStopSeconds ', ""),
    chart("api/ingress.yaml", "port: {name: http}", "port: {name: ops}"),
    chart("worker/scaledobject.yaml", "topic: {{ $topic }}", "topics: {{ $topic }}"),
    chart("worker/triggerauthentication.yaml", "identityOwner: keda", "identityOwner: workload"),
    chart("networkpolicy/default-deny.yaml", "policyTypes: [Ingress, Egress]", "policyTypes: [Ingress]"),
    chart("networkpolicy/worker.yaml", '"port" 443', '"port" 80'),
    chart("networkpolicy/_rules.tpl", "169.254.170.23/32", "169.254.169.254/32"),
    chart("externalsecret.yaml", "deletionPolicy: Retain", "deletionPolicy: Delete"),
    chart("monitoring/servicemonitor.yaml", "replacement: orders-$1", "replacement: $1"),
    Mutant("chart", "deploy/helm/orders/values.yaml", "terminationGracePeriodSeconds: 60", "terminationGracePeriodSeconds: 30"),
    Mutant("chart", "deploy/helm/orders/values-prod.yaml", "zoneSpread: DoNotSchedule", "zoneSpread: ScheduleAnyway"),
    Mutant("image", "Dockerfile", "USER 10001:10001", "USER plumbline"),
    Mutant("image", "Dockerfile", 'ENTRYPOINT ["plumbline"]', "ENTRYPOINT plumbline"),
    Mutant("image", "Dockerfile", "--require-hashes ", ""),
    Mutant("image", "Dockerfile", "COPY --from=build /app/.venv /app/.venv", "COPY --from=build /app/.venv /app/.venv\nCOPY --from=build /src /src"),
    Mutant("image", ".dockerignore", "!service", "!service\n!.plumbline"),
    Mutant("image", "compose.yaml", "cap_drop: [ALL]", "cap_drop: [NET_RAW]"),
    Mutant("image", "compose.yaml", "127.0.0.1:${ISSUER_PORT:-8103}:8103", "8103:8103"),
    Mutant("image", "compose.yaml", "postgres: {condition: service_healthy}", "postgres: {condition: service_started}"),
    Mutant("ci", ".github/workflows/image.yml", "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1", "actions/checkout@v7"),
    Mutant(
        "ci",
        ".github/workflows/image.yml",
        "aquasecurity/trivy-action@ed142fd0673e97e23eac54620cfb913e5ce36c25",
        "aquasecurity/trivy-action@" + "a" * 40,
    ),
    Mutant("ci", ".github/workflows/ci.yml", "permissions: {}", "permissions: write-all"),
    Mutant("ci", ".github/workflows/ci.yml", "    timeout-minutes: 15\n", ""),
    Mutant("ci", ".github/workflows/deploy.yml", "--certificate-identity ", "--certificate-identity-regexp "),
    Mutant("ci", ".github/workflows/deploy.yml", "steps.upgrade.outcome == 'success'", "steps.upgrade.outcome == 'failure'"),
    Mutant("ci", ".github/workflows/deploy.yml", '--name "orders-$ENVIRONMENT"', '--name "orders-${{ inputs.environment }}"'),
    Mutant("ci", ".github/workflows/drift.yml", "persist-credentials: false", "persist-credentials: true"),
    Mutant("ci", ".github/dependabot.yml", "cooldown: {default-days: 7}", "cooldown: {default-days: 1}"),
    module("aurora", "main.tf", "storage_encrypted                   = true", "storage_encrypted                   = false"),
    module("aurora", "main.tf", "= 5432", "= 5433"),
    module("elasticache", "main.tf", "transit_encryption_enabled = true", "transit_encryption_enabled = false"),
    module("msk", "main.tf", "auto.create.topics.enable=false", "auto.create.topics.enable=true"),
    module("msk", "main.tf", 'client_broker = "TLS"', 'client_broker = "TLS_PLAINTEXT"'),
    module(
        "eks", "main.tf", 'authentication_mode                         = "API"', 'authentication_mode                         = "API_AND_CONFIG_MAP"'
    ),
    module("pod-identity", "main.tf", 'ArnEquals    = { "aws:SourceArn" = var.cluster_arn }', ""),
    module("github-oidc", "main.tf", "StringEquals = {", "StringLike = {"),
)


def pytest(folder: str, *files: str) -> list[str]:
    options = ["-q", "-x", "-c", "deploy/verify/pytest.ini", "--rootdir", ".", "--confcutdir", folder]
    return [str(BIN / "python"), "-m", "pytest", *options, *(f"{folder}/{file}" for file in files)]


def commands(judge: str) -> list[list[str]]:
    """What decides: all must pass on the unbroken copy, one must fail on a mutant."""
    if judge == "chart":
        return [pytest("tests/helm", "test_objects.py", "test_settings.py", "test_guards.py", "test_render.py")]
    if judge == "image":
        return [[str(BIN / "hadolint"), "--failure-threshold", "info", "Dockerfile"], pytest("tests/deploy", "test_image.py", "test_compose.py")]
    if judge == "ci":
        return [pytest("tests/deploy", "test_workflows.py"), [str(BIN / "zizmor"), "--offline", "--quiet", "--persona", "pedantic", ".github"]]
    return [[str(BIN / "python"), "deploy/verify/mutants.py", "--terraform", judge]]


def fails(judge: str, copy: Path) -> bool:
    env = {**os.environ, "VERIFY_HOME": str(HOME), "PYTHONDONTWRITEBYTECODE": "1"}
    return any(subprocess.run(command, cwd=copy, env=env, capture_output=True, check=False).returncode != 0 for command in commands(judge))


def judge_terraform(root: str) -> int:
    """Init, validate and test of one module of this tree, by the Terraform target's own function."""
    import terraform

    with terraform.copied_tree() as work:
        env, mirror = terraform.clean_environment(work), terraform.find_mirror()
        code, output = terraform.call([*terraform.init_arguments(mirror), "-backend=false"], cwd=work / "terraform" / root, env=env)
        if code:
            print(output)
            return 1
        _, failed, output = terraform.check_root(work, root, env, mirror)
    if failed:
        print(output)
    return 1 if failed else 0


def apply(mutant: Mutant, copy: Path) -> str:
    """Breaks the copy; the text to restore. Raises `SystemExit` when the edit no longer fits."""
    target = copy / mutant.path
    kept = target.read_text(encoding="utf-8")
    if mutant.old not in kept:
        raise SystemExit(f"{mutant.path} no longer holds {mutant.old!r}: update deploy/verify/mutants.py")
    target.write_text(kept.replace(mutant.old, mutant.new, 1), encoding="utf-8")
    return kept


def copy_tree(copy: Path) -> None:
    ignore = shutil.ignore_patterns("__pycache__", ".terraform*")
    for name in COPIED:
        source, target = ROOT / name, copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=ignore)
        else:
            shutil.copy2(source, target)


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--terraform"]:
        return judge_terraform(arguments[1])
    chosen = [m for m in MUTANTS if not arguments or m.judge in arguments]
    killed = survived = 0
    broken = set[str]()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="plumbline-mutants-") as name:
        copy = Path(name)
        copy_tree(copy)
        for judge in sorted({m.judge for m in chosen}):
            if fails(judge, copy):
                print(f"{judge}: fails on the unbroken tree; make that pass first")
                broken.add(judge)
                survived += 1
            else:
                print(f"{time.monotonic() - started:5.0f} s  {judge}: passes unbroken", flush=True)
        for mutant in (m for m in chosen if m.judge not in broken):
            kept = apply(mutant, copy)
            dead = fails(mutant.judge, copy)
            (copy / mutant.path).write_text(kept, encoding="utf-8")
            killed, survived = killed + dead, survived + (not dead)
            verdict = "killed" if dead else "SURVIVED"
            print(
                f"{time.monotonic() - started:5.0f} s  {verdict}  {mutant.path}: {mutant.old.strip()[:60]!r} -> {mutant.new.strip()[:60]!r}",
                flush=True,
            )
    print(f"{killed} passed, {survived} failed")
    return 0 if survived == 0 and killed > 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
