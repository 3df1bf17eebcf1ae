#!/usr/bin/env python3
"""What `make verify-deploy` runs: each target prints `N passed, M failed`; one that cannot run counts as failed.

    verify.py                 the fast set            verify.py --full     also mutants, a fake AWS, containers, a cluster
    verify.py chart ci …      these targets            --record also keeps their figures for docs/checks.md
Standard library only: it first has deploy/verify/tools.sh install the checkers into build/verify. Two targets run at a
time (VERIFY_JOBS), those that start an engine or break a copy alone; each prints its lines when it is done.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = Path(os.environ.get("VERIFY_HOME", ROOT / "build" / "verify"))
BIN = HOME / "venv" / "bin"
RECORD = ROOT / "docs" / "measured" / "verify.json"
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
            pytest("tests/deploy", *(f"tests/deploy/test_{name}.py" for name in ("workflows", "slo_watch", "terraform_agrees", "notification_consumer"))),
        ),
        "docs": (
            Check("chart README", (PYTHON, "deploy/verify/chart_readme.py", "--check")),
            Check("checks page", (PYTHON, "deploy/verify/checks_page.py", "--check")),
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
NEED_CHECKOV = {"policy", "tf"}
# Their lines are shown as they come: each takes minutes.
ALONE = {"mutants", "tf-moto", "containers", "cluster"}
# Started first, so that no long one is left alone at the end.
LONGEST = {"rules", "tf", "chart"}


@dataclass
class Ended:
    """A command's end: its code, what it said, and the processor time of it and all it waited for."""

    code: int
    output: str
    cpu_s: float


def call(command: Sequence[str], *, show: bool) -> Ended:
    """Run to the end. The clock says little of two at a time on a busy machine, so its own processor time is asked for."""
    said = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if show:
                print(f"  | {line}", end="", flush=True)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return Ended(process.returncode, "".join(said), used.ru_utime + used.ru_stime)


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


@dataclass(frozen=True)
class Verdict:
    """What a target came to; `lines` are for the reader."""

    name: str
    passed: int
    failed: int
    took_s: float
    cpu_s: float
    lines: tuple[str, ...]


def run_target(name: str, checks: Sequence[Check]) -> Verdict:
    started, cpu_s, passed, failed = time.monotonic(), 0.0, 0, 0
    lines = [f"== {name}"]
    for check in checks:
        try:
            ended = call(check.command, show=name in ALONE)
        except OSError as error:
            ended = Ended(1, f"cannot run: {error}; it is installed by deploy/verify/tools.sh or part of the tree\n", 0)
        good, bad = tally(check.counts, ended.code, ended.output)
        if bad and name not in ALONE:
            lines += [f"--- {check.name}", ended.output[-6000:].rstrip(), "---"]
        passed, failed, cpu_s = passed + good, failed + bad, cpu_s + ended.cpu_s
        lines.append(f"  {check.name}: {good} passed, {bad} failed ({time.monotonic() - started:.0f} s)")
    took_s = time.monotonic() - started
    lines += [f"  {name} took {took_s:.0f} s, {cpu_s:.0f} s of CPU", f"{name}: {passed} passed, {failed} failed"]
    return Verdict(name, passed, failed, took_s, cpu_s, tuple(lines))


def run_all(names: Sequence[str]) -> list[Verdict]:
    """Together what may run together, then the others one after the other."""
    known, printing = targets(), threading.Lock()

    def one(name: str) -> Verdict:
        print(f"… {name}", flush=True)
        verdict = run_target(name, known[name])
        with printing:
            print(*verdict.lines, sep="\n", flush=True)
        return verdict

    together = sorted((name for name in names if name not in ALONE), key=lambda name: name not in LONGEST)
    with concurrent.futures.ThreadPoolExecutor(int(os.environ.get("VERIFY_JOBS", "2"))) as pool:
        done = list(pool.map(one, together))
    return done + [one(name) for name in names if name in ALONE]


def record(verdicts: Sequence[Verdict]) -> None:
    """The figures of these targets replace their old ones; then checks_page.py makes its page of them."""
    kept = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    kept |= {v.name: {"passed": v.passed, "failed": v.failed, "took_s": round(v.took_s), "cpu_s": round(v.cpu_s)} for v in verdicts}
    RECORD.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    subprocess.run([sys.executable, "deploy/verify/checks_page.py"], cwd=ROOT, check=True)


def main(arguments: list[str]) -> int:
    known, keep = targets(), "--record" in arguments
    arguments = [word for word in arguments if word != "--record"]
    names = list(FULL) if arguments == ["--full"] else arguments or list(FAST)
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"unknown target {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    more = ["policy"] if NEED_CHECKOV.intersection(names) else []
    if subprocess.run(["deploy/verify/tools.sh", *more], cwd=ROOT, check=False).returncode != 0:
        print(f"{names[0]}: 0 passed, 1 failed (the checkers could not be installed, see above)")
        return 1
    started = time.monotonic()
    verdicts = run_all(names)
    print(f"\nall targets in {time.monotonic() - started:.0f} s")
    for verdict in verdicts:
        print(f"  {verdict.name:<12}{verdict.took_s:5.0f} s  {verdict.passed} passed, {verdict.failed} failed")
    if keep:
        record(verdicts)
    return 0 if all(verdict.failed == 0 for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
