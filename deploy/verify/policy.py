"""Runs checkov on the rendered production chart, the Dockerfile and the workflows: no finding but the reasoned ones.

The list below must be exactly what checkov finds: a skip that is no longer needed fails like a new finding does.
Closing line: `N passed, M failed`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHECKOV = Path(os.environ.get("VERIFY_HOME", ROOT / "build" / "verify")) / "policy" / "bin" / "checkov"
sys.path.insert(0, str(ROOT / "tests" / "helm"))

# (check, kind of resource) → why it stays.
REASONS = {
    ("CKV_K8S_11", "Deployment"): "no CPU limit: throttling costs latency, the request already shares fairly",
    ("CKV_K8S_11", "Job"): "as for Deployments",
    ("CKV_K8S_11", "Pod"): "as for Deployments",
    ("CKV_K8S_8", "Pod"): "helm test pods run once: a liveness probe would restart what is meant to end",
    ("CKV_K8S_9", "Pod"): "helm test pods serve nobody: there is nothing to be ready for",
    ("CKV_DOCKER_7", "Dockerfile"): "the base is an ARG with a tag; checkov does not resolve it",
}
MOST_SKIPS = 4


def checkov(framework: str, where: list[str]) -> tuple[int, set[tuple[str, str]], list[str]]:
    """Passed checks, (check, kind) of the failed ones, and a line a finding."""
    command = [str(CHECKOV), "--framework", framework, "--skip-download", "--quiet", "--output", "json", *where]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    try:
        report = json.loads(ended.stdout)
        reports = report if isinstance(report, list) else [report]
        failed = [finding for r in reports for finding in r["results"]["failed_checks"]]
        passed = sum(r["summary"]["passed"] for r in reports)
    except (ValueError, KeyError, TypeError):
        raise SystemExit(f"checkov {framework} gave no report: {(ended.stderr or ended.stdout)[-500:]}") from None
    found = {(f["check_id"], _kind(f["resource"])) for f in failed}
    return passed, found, [f"{f['check_id']} {f['resource']}: {f['check_name']}" for f in failed]


def _kind(resource: str) -> str:
    return "Dockerfile" if "Dockerfile" in resource else resource.split(".", 1)[0]


def rendered_production(folder: Path) -> Path:
    import yaml
    from rendering import render

    path = folder / "prod.yaml"
    path.write_text(yaml.safe_dump_all(render("prod")), encoding="utf-8")
    return path


def main() -> int:
    passed, found, lines = 0, set[tuple[str, str]](), list[str]()
    with tempfile.TemporaryDirectory() as folder:
        runs = [
            ("kubernetes", ["--file", str(rendered_production(Path(folder)))]),
            ("dockerfile", ["--file", "Dockerfile"]),
            ("github_actions", ["--directory", ".github"]),
        ]
        for framework, where in runs:
            count, kinds, findings = checkov(framework, where)
            if count == 0:
                print(f"{framework}: nothing was checked")
                return 1
            passed, found, lines = passed + count, found | kinds, lines + findings
    new, stale = found - set(REASONS), set(REASONS) - found
    for check, kind in sorted(new):
        print("\n".join(line for line in lines if line.startswith(check)) or f"{check} {kind}")
    for check, kind in sorted(stale):
        print(f"{check} on {kind} is excused but no longer found: remove it from deploy/verify/policy.py")
    too_many = len({check for check, _ in REASONS}) > MOST_SKIPS
    if too_many:
        print(f"more than {MOST_SKIPS} checks are excused: fix one instead")
    failed = len(new) + len(stale) + too_many
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
