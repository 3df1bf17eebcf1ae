"""Keeps the checks honest: breaks one thing at a time in a copy, and some check must notice.

The chart's mutants are judged without the golden files and the README, the rules' without the comparison with their
script: those would notice any change at all. First every judge must pass the unbroken copy.
`mutants.py [JUDGE…]`, `mutants.py --left` (what was not killed yet): a survivor is printed with its edit; the verdicts are
kept in docs/measured/deploy-mutants.json, of which checks_page.py makes a table. Closing line: `N passed, M failed`. 20 min.
"""

from __future__ import annotations

import json
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
RECORD = ROOT / "docs" / "measured" / "deploy-mutants.json"
COPIED = (
    ".dockerignore", ".github", ".gitignore", "Dockerfile", "LICENSE", "Makefile", "README.md", "compose.yaml", "deploy", "docs",
    "infra", "observability", "pyproject.toml", "requirements", "service", "tests/deploy", "tests/helm", "workers",
)  # fmt: skip
CHART = "deploy/helm/orders/templates"
RULES = "deploy/helm/orders/files/rules"
TERRAFORM = "infra/terraform/modules"
ONE_FILE = {"agree": "test_terraform_agrees.py", "collector": "test_pipeline.py", "consumer": "test_notification_consumer.py"}


@dataclass(frozen=True)
class Mutant:
    """Replaces the first `old` in `path` by `new`; `judge` must fail."""

    judge: str
    path: str
    old: str
    new: str


def chart(path: str, old: str, new: str) -> Mutant:
    return Mutant("chart", f"{CHART}/{path}", old, new)


def kubeconform(path: str, old: str, new: str) -> Mutant:
    return Mutant("kubeconform", f"{CHART}/{path}", old, new)


def rule(path: str, old: str, new: str) -> Mutant:
    return Mutant("rules", path, old, new)


def consumer(old: str, new: str) -> Mutant:
    return Mutant("consumer", f"{TERRAFORM}/notifications-sqs/consumer/handler.py", old, new)


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
    Mutant("chart", "deploy/helm/orders/values.yaml", "drainTimeoutSeconds: 20", "drainTimeoutSeconds: 15"),
    Mutant("chart", "deploy/helm/orders/values-prod.yaml", "zoneSpread: DoNotSchedule", "zoneSpread: ScheduleAnyway"),
    chart("_environment.tpl", "$v.database.iamUserPrefix .account", '$v.database.iamUserPrefix "api"'),
    chart("_environment.tpl", "$v.redis.iamUserPrefix .account", '$v.database.iamUserPrefix .account'),
    chart("_environment.tpl", 'ternary "iam" "none"', 'ternary "none" "iam"'),
    chart("_environment.tpl", "APP_DB_AUTH: {{ $v.database.auth }}", "APP_DB_AUTH: password"),
    chart("_pod.tpl", '(.account | default "migrate")', '"migrate"'),
    chart("_validate.tpl", '(has .Values.database.ssl (list "disable" "prefer"))', '(has .Values.database.ssl (list "disable"))'),
    chart("_validate.tpl", '(eq .Values.redis.auth "iam") (not .Values.redis.iamCache)', '(eq .Values.redis.auth "iam") (not .Values.redis.auth)'),
    Mutant("agree", "deploy/helm/orders/values-prod.yaml", "iamUserPrefix: orders-prod-", "iamUserPrefix: orders-staging-"),
    Mutant("agree", "deploy/helm/orders/values.yaml", "iamUserPrefix: orders_", "iamUserPrefix: plumbline_"),
    Mutant("agree", f"{TERRAFORM}/pod-identity/service.tf", '"${local.group_prefix}/${group}.retry"', '"${local.group_prefix}/${group}"'),
    kubeconform("worker/scaledobject.yaml", "pollingInterval:", "pollingIntervall:"),
    kubeconform("api/hpa.yaml", "averageUtilization:", "averageUtilisation:"),
    kubeconform("_pod.tpl", "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: false\nallowPrivilegeEscalation: false"),
    kubeconform("externalsecret.yaml", "creationPolicy: Owner", "creationPolicy: Mine"),
    kubeconform("_job.tpl", "apiVersion: batch/v1", "apiVersion: batch/v1beta1"),
    rule(f"{RULES}/slo.yaml", "> 0.0144 and", "> 0.144 and"),
    rule(f"{RULES}/slo.yaml", ">= 50,", ">= 5000,"),
    rule(f"{RULES}/slo.yaml", "ratio_rate5m", "ratio_rate6h"),
    rule(f"{RULES}/app.yaml", "orders_relay_active == 1) > 60", "orders_relay_active == 1) > 600"),
    rule(f"{RULES}/app.yaml", "unless on (job, instance, group) orders_consumer_paused == 1", "and on (job, instance, group) orders_consumer_paused == 1"),
    rule(f"{RULES}/app.yaml", "> 200 * count", "> 200 + count"),
    rule(f"{RULES}/app.yaml", 'where=\\"degraded\\"', 'where=\\"shared\\"'),
    rule(f"{RULES}/app.yaml", "OrdersOutboxOldestAge.md", "OutboxOldestAge.md"),
    rule(f"{RULES}/platform.yaml", "-migrate-[0-9a-f]{8}", "-migration-[0-9a-f]{8}"),
    rule(f"{RULES}/platform.yaml", ">= on (namespace", "> on (namespace"),
    rule(f"{RULES}/recording.yaml", "orders_http_requests_total", "orders_requests_total"),
    rule("service/foundation/metrics.py", '"orders_consumer_lag"', '"orders_consumer_backlog"'),
    rule("observability/alertmanager.yaml", "matchers: [severity = page]", "matchers: [severity = paged]"),
    Mutant("collector", "observability/collector.yaml", "processors: [memory_limiter, redaction,", "processors: [redaction, memory_limiter,"),
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
    module("pod-identity", "service.tf", "/orders_${user}", "/*"),
    module("pod-identity", "service.tf", '["kafka-cluster:DescribeTopic"], Resource', '["kafka-cluster:DescribeTopic", "kafka-cluster:WriteData"], Resource'),
    module("pod-identity", "service.tf", '"kafka-cluster:Connect", "kafka-cluster:WriteDataIdempotently"', '"kafka-cluster:*"'),
    module("pod-identity", "main.tf", 'ArnEquals    = { "aws:SourceArn" = var.cluster_arn }', ""),
    module("github-oidc", "main.tf", "StringEquals = {", "StringLike = {"),
    module("notifications-sqs", "consumer.tf", '["ReportBatchItemFailures"]', "[]"),
    module("notifications-sqs", "consumer.tf", "6 * local.function_timeout_s", "local.function_timeout_s"),
    consumer("not 200 <= answer.status < 300", "answer.status >= 400"),
    consumer("< BEGIN_MARGIN_MS", "< 0"),
    consumer('failed.append({"itemIdentifier": record["messageId"]})', "continue"),
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
    if judge in ONE_FILE:
        return [pytest("tests/deploy", ONE_FILE[judge])]
    if judge == "kubeconform":
        return [[str(BIN / "python"), "deploy/verify/kubeconform.py", "staging"]]
    if judge == "rules":
        project = str(ROOT / ".venv" / "bin" / "python")
        cases = [f"observability/tests/{name}.yaml" for name in ("slo", "app", "platform")]
        return [[project, "observability/checks/invariants.py"], [project, "observability/checks/alertmanager.py"], ["promtool", "test", "rules", *cases]]
    if judge == "ci":
        return [pytest("tests/deploy", "test_workflows.py"), [str(BIN / "zizmor"), "--offline", "--quiet", "--persona", "pedantic", ".github"]]
    return [[str(BIN / "python"), "deploy/verify/mutants.py", "--terraform", judge]]


def fails(judge: str, copy: Path) -> bool:
    env = {**os.environ, "VERIFY_HOME": str(HOME), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(copy)}
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


def judged(mutant: Mutant, copy: Path) -> bool:
    """Was it noticed? The copy is whole again afterwards."""
    kept = apply(mutant, copy)
    try:
        return fails(mutant.judge, copy)
    finally:
        (copy / mutant.path).write_text(kept, encoding="utf-8")


def share_terraform_mirror() -> None:
    """Looking for the provider reads the whole disk: once, not for every mutant."""
    import terraform

    if mirror := terraform.find_mirror():
        os.environ["TF_PLUGIN_MIRROR"] = str(mirror)


def recorded() -> dict[tuple[str, str, str, str], bool]:
    """Mutant → was it killed, when it was last judged."""
    kept = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else []
    return {(row["judge"], row["path"], row["old"], row["new"]): row["killed"] for row in kept}


def record(mutant: Mutant, *, killed: bool) -> None:
    """At once, so that a run cut short keeps what it found; mutants that are no longer in the list go."""
    told = recorded() | {key(mutant): killed}
    rows = [dict(zip(("judge", "path", "old", "new", "killed"), (*key(m), told[key(m)]), strict=True)) for m in MUTANTS if key(m) in told]
    RECORD.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def key(mutant: Mutant) -> tuple[str, str, str, str]:
    return mutant.judge, mutant.path, mutant.old.strip(), mutant.new.strip()


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--terraform"]:
        return judge_terraform(arguments[1])
    judges = [word for word in arguments if word != "--left"]
    done = recorded() if "--left" in arguments else {}
    chosen = [m for m in MUTANTS if (not judges or m.judge in judges) and not done.get(key(m))]
    if any(m.judge.startswith("modules/") for m in chosen):
        share_terraform_mirror()
    verdicts, broken, started = list[bool](), set[str](), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="plumbline-mutants-") as name:
        copy = Path(name)
        copy_tree(copy)
        for judge in sorted({m.judge for m in chosen}):
            if fails(judge, copy):
                print(f"{judge}: fails on the unbroken tree; make that pass first", flush=True)
                broken.add(judge)
            else:
                print(f"{time.monotonic() - started:5.0f} s  {judge}: passes unbroken", flush=True)
        for mutant in (m for m in chosen if m.judge not in broken):
            dead = judged(mutant, copy)
            record(mutant, killed=dead)
            verdicts.append(dead)
            change = f"{mutant.path}: {mutant.old.strip()[:60]!r} -> {mutant.new.strip()[:60]!r}"
            print(f"{time.monotonic() - started:5.0f} s  {'killed' if dead else 'SURVIVED'}  {change}", flush=True)
    killed = sum(verdicts)
    failed = len(verdicts) - killed + len(broken)
    print(f"{killed} passed, {failed} failed")
    return 0 if failed == 0 and killed > 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
