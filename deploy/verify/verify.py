#!/usr/bin/env python3
"""What `make verify-deploy` runs: each target prints `N passed, M failed`; one that cannot run counts as failed.

    verify.py                 the fast set            verify.py --full     also mutants, a fake AWS, containers, a cluster
    verify.py chart ci …      these targets
Standard library only: it first has deploy/verify/tools.sh install the checkers into build/verify.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = Path(os.environ.get("VERIFY_HOME", ROOT / "build" / "verify"))
BIN = HOME / "venv" / "bin"
PYTHON = str(BIN / "python")
# The service's own environment (`make setup`): what asks its registry, or runs it.
PROJECT = str(ROOT / ".venv" / "bin" / "python")
CLOSING = re.compile(r"^(\d+) passed, (\d+) failed$", re.MULTILINE)
PYTEST = re.compile(r"(\d+) (passed|failed|errors?)\b")


@dataclass(frozen=True)
class Check:
    """One command. `counts`: one: its exit code; pytest, closing: its own numbers."""

    name: str
    command: tuple[str, ...]
    counts: str = "one"


def pytest(folder: str, *more: str) -> Check:
    arguments = ("-q", "-c", "deploy/verify/pytest.ini", "--rootdir", ".", "--confcutdir", folder)
    return Check(folder, (PYTHON, "-m", "pytest", *arguments, *(more or (folder,))), "pytest")


def glob(pattern: str) -> tuple[str, ...]:
    return tuple(sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(pattern)))


def schema(name: str, *files: str) -> Check:
    return Check(f"schema {name}", (str(BIN / "check-jsonschema"), "--builtin-schema", f"vendor.{name}", *files))


def targets() -> dict[str, tuple[Check, ...]]:
    """Name → checks. The Terraform and telemetry targets are their owners' scripts."""
    terraform = (PYTHON, "deploy/verify/terraform.py")
    scripts = (*glob("deploy/**/*.sh"),)
    return {
        "chart": (pytest("tests/helm"), Check("kubeconform", (PYTHON, "deploy/verify/kubeconform.py"), "closing")),
        "policy": (Check("checkov", (PYTHON, "deploy/verify/policy.py"), "closing"),),
        "image": (
            Check("hadolint", (str(BIN / "hadolint"), "--failure-threshold", "info", "Dockerfile")),
            schema("compose-spec", "compose.yaml"),
            pytest("tests/deploy", "tests/deploy/test_image.py", "tests/deploy/test_compose.py"),
        ),
        "ci": (
            Check("zizmor", (str(BIN / "zizmor"), "--offline", "--quiet", "--persona", "pedantic", ".github")),
            Check("actionlint", (str(HOME / "bin" / "actionlint"), "-shellcheck", str(BIN / "shellcheck"), "-pyflakes=")),
            schema("github-workflows", *glob(".github/workflows/*.yml")),
            schema("dependabot", ".github/dependabot.yml"),
            Check("shellcheck", (str(BIN / "shellcheck"), *scripts)),
            pytest("tests/deploy", "tests/deploy/test_workflows.py", "tests/deploy/test_slo_watch.py", "tests/deploy/test_terraform_agrees.py"),
        ),
        "docs": (
            Check("chart README", (PYTHON, "deploy/verify/chart_readme.py", "--check")),
            pytest("tests/deploy", "tests/deploy/test_docs.py"),
        ),
        "rules": (
            Check("tools", ("deploy/verify/telemetry_tools.sh",)),
            Check("slo rules are the script's", (PYTHON, "observability/slo_rules.py", "--check")),
            Check("cause rules are the script's", (PYTHON, "observability/cause_rules.py", "--check")),
            Check("promtool check", ("promtool", "check", "rules", "--lint=all", *glob("deploy/helm/orders/files/rules/*.yaml"))),
            Check("promtool test", ("promtool", "test", "rules", *(f"observability/tests/{name}.yaml" for name in ("slo", "app", "platform")))),
            Check("alertmanager", (PYTHON, "observability/checks/alertmanager.py"), "closing"),
            Check("invariants", (PROJECT, "observability/checks/invariants.py"), "closing"),
            Check("live", (PROJECT, "observability/checks/live.py"), "closing"),
        ),
        "dashboards": (
            Check("dashboards are the script's", (PYTHON, "observability/dashboards/generate.py", "--check")),
            pytest("tests/deploy", "tests/deploy/test_dashboards.py"),
        ),
        "collector": (pytest("tests/deploy", "tests/deploy/test_pipeline.py"),),
        "mutants": (Check("mutants", (PYTHON, "deploy/verify/mutants.py"), "closing"),),
        "tf": (Check("terraform", (*terraform, "tf"), "closing"), Check("checkov", (*terraform, "tf-policy"), "closing")),
        "tf-moto": (Check("terraform on moto", (*terraform, "tf-moto"), "closing"),),
        "containers": (Check("docker", (PYTHON, "deploy/verify/containers.py"), "closing"),),
        "cluster": (Check("kubernetes", ("deploy/dev/cluster/verify.sh",), "closing"),),
    }


FAST = ("chart", "policy", "image", "ci", "docs", "tf", "rules", "dashboards", "collector")
FULL = (*FAST, "mutants", "tf-moto", "containers", "cluster")


def run(check: Check) -> tuple[int, int]:
    """(passed, failed). Output is shown when something failed, or could not be read."""
    try:
        ended = subprocess.run(check.command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    except OSError as error:
        print(f"  {check.name}: cannot run: {error}; it is installed by deploy/verify/tools.sh or part of the tree", flush=True)
        return 0, 1
    passed, failed = tally(check.counts, ended.returncode, ended.stdout)
    if failed:
        print(f"--- {check.name}\n{ended.stdout[-6000:]}---", flush=True)
    return passed, failed


def tally(counts: str, code: int, output: str) -> tuple[int, int]:
    """What a command's end means. A bad exit is at least one failure, whatever was printed."""
    if counts == "one":
        return (1, 0) if code == 0 else (0, 1)
    if counts == "closing":
        found = CLOSING.findall(output)
        if not found:
            return 0, 1
        passed, failed = int(found[-1][0]), int(found[-1][1])
    else:
        lines = output.strip().splitlines() or [""]
        numbers = {word.rstrip("s"): int(n) for n, word in PYTEST.findall(lines[-1])}
        passed, failed = numbers.get("passed", 0), numbers.get("failed", 0) + numbers.get("error", 0)
    if code != 0 or passed == 0:
        failed = max(failed, 1)
    return passed, failed


def cpu_s() -> float:
    """What the commands that ended so far took of the processors: on a shared machine more telling than the clock."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run_target(name: str, checks: Sequence[Check]) -> bool:
    started, cpu_before = time.monotonic(), cpu_s()
    print(f"== {name}", flush=True)
    passed = failed = 0
    for check in checks:
        good, bad = run(check)
        passed, failed = passed + good, failed + bad
        print(f"  {check.name}: {good} passed, {bad} failed ({time.monotonic() - started:.0f} s)", flush=True)
    print(f"  {name} took {time.monotonic() - started:.0f} s, {cpu_s() - cpu_before:.0f} s of CPU", flush=True)
    print(f"{name}: {passed} passed, {failed} failed", flush=True)
    return failed == 0


def main(arguments: list[str]) -> int:
    known = targets()
    names = list(FULL) if arguments == ["--full"] else arguments or list(FAST)
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"unknown target {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    if subprocess.run(["deploy/verify/tools.sh"], cwd=ROOT, check=False).returncode != 0:
        print(f"{names[0]}: 0 passed, 1 failed (the checkers could not be installed, see above)")
        return 1
    good = [run_target(name, known[name]) for name in names]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
