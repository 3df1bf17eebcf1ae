"""Rules every workflow keeps, beyond what the linters say: pins, permissions, no untrusted text in a shell."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "deploy" / "verify"))
import verify

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
WORKFLOWS: dict[str, dict[Any, Any]] = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in FILES}
JOBS = {f"{name}/{job}": body for name, w in WORKFLOWS.items() for job, body in w["jobs"].items()}
STEPS = [(name, step) for name, job in JOBS.items() for step in job.get("steps", [])]
# trivy-action's tags were moved to malicious commits in March 2026; only this commit is known good.
TRIVY = "aquasecurity/trivy-action@ed142fd0673e97e23eac54620cfb913e5ce36c25"


def test_the_pipeline_is_complete() -> None:
    assert set(WORKFLOWS) == {"ci", "image", "chart", "terraform", "deploy", "drift", "nightly", "release", "security"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_action_is_pinned_by_commit_with_its_version(path: Path) -> None:
    uses = re.findall(r"uses:\s*(\S+)(.*)", path.read_text(encoding="utf-8"))
    assert uses
    for action, comment in uses:
        if not action.startswith("./"):
            assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", action), action
            assert re.fullmatch(r"\s+# v\d+\.\d+\.\d+", comment), f"{action} lacks its version"
        if "trivy" in action:
            assert action == TRIVY


def test_one_version_of_each_action() -> None:
    pins: dict[str, set[str]] = {}
    for path in FILES:
        for name, commit in re.findall(r"uses:\s*([\w./-]+)@([0-9a-f]{40})", path.read_text(encoding="utf-8")):
            pins.setdefault(name, set()).add(commit)
    assert {name: len(found) for name, found in pins.items() if len(found) > 1} == {}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_nothing_is_permitted_by_default(name: str) -> None:
    workflow = WORKFLOWS[name]
    assert workflow["permissions"] == {}
    assert "group" in workflow["concurrency"]
    assert "pull_request_target" not in workflow[True], "runs with secrets on code of a stranger"


@pytest.mark.parametrize("name", JOBS)
def test_every_job_says_what_it_may_and_how_long(name: str) -> None:
    job = JOBS[name]
    assert job["permissions"], name
    assert job["permissions"].get("contents") in ("read", "write"), name
    assert job.get("secrets") != "inherit"
    if "uses" not in job:
        assert 0 < job["timeout-minutes"] <= 60


def test_checkout_keeps_no_credentials() -> None:
    checkouts = [step for _, step in STEPS if "actions/checkout@" in step.get("uses", "")]
    assert len(checkouts) >= len(FILES) - 1
    for step in checkouts:
        assert step["with"]["persist-credentials"] is False


def test_no_expression_reaches_a_shell() -> None:
    for name, step in STEPS:
        assert "${{" not in step.get("run", ""), f"{name}: pass it by env"


def test_write_permissions_are_few() -> None:
    granted = {(name, scope) for name, job in JOBS.items() for scope, level in job["permissions"].items() if level == "write" and scope != "id-token"}
    assert granted == {
        ("image/publish", "attestations"),
        ("terraform/plan", "pull-requests"),
        ("release/publish", "contents"),
        ("security/codeql", "security-events"),
    }


def test_cloud_roles_need_a_token_and_are_the_known_ones() -> None:
    roles = set()
    for name, step in STEPS:
        if "configure-aws-credentials" in step.get("uses", ""):
            assert JOBS[name]["permissions"]["id-token"] == "write", name
            roles.add(step["with"]["role-to-assume"].rsplit("/", 1)[1])
            assert "aws-access-key-id" not in step["with"]
    assert roles == {"gha-image", "gha-plan", "gha-apply-${{ inputs.environment }}", "gha-apply-${{ matrix.environment }}"}
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "infra/terraform/modules/github-oidc").glob("*.tf"))
    for role in ("gha-image", "gha-plan", "gha-apply-${var.environment}"):
        assert f'"{role}"' in text, role


def test_deploy_verifies_then_upgrades_then_watches_then_rolls_back() -> None:
    steps = JOBS["deploy/deploy"]["steps"]
    text = [str(step.get("run", step.get("uses"))) for step in steps]
    order = [
        next(i for i, t in enumerate(text) if word in t) for word in ("cosign verify", "helm upgrade", "helm test", "slo_watch.py", "helm rollback")
    ]
    assert order == sorted(order)
    verified = text[order[0]]
    assert "gh attestation verify" in verified
    assert "--certificate-identity " in verified, "an exact identity, no pattern"
    assert "--rollback-on-failure --wait" in text[order[1]]
    assert "image.digest=$DIGEST" in text[order[1]]
    assert steps[order[4]]["if"] == "failure() && steps.upgrade.outcome == 'success'"
    assert JOBS["deploy/deploy"]["environment"] == "${{ inputs.environment }}"


def test_production_is_reached_by_a_tag_only() -> None:
    assert WORKFLOWS["release"][True] == {"push": {"tags": ["v[0-9]+.[0-9]+.[0-9]+"]}}
    callers = {name: job["with"]["environment"] for name, job in JOBS.items() if job.get("uses", "").endswith("/deploy.yml")}
    assert callers == {"image/dev": "dev", "image/staging": "staging", "release/production": "prod"}


def test_the_image_is_scanned_before_it_is_signed() -> None:
    text = [str(step.get("run", step.get("uses"))) for step in JOBS["image/publish"]["steps"]]
    first = {
        word: next(i for i, t in enumerate(text) if word in t) for word in ("trivy-action", "sbom-action", "cosign sign", "attest-build-provenance")
    }
    assert first["trivy-action"] < first["sbom-action"] < first["cosign sign"] <= first["attest-build-provenance"]
    build = next(s for s in JOBS["image/build"]["steps"] if "build-push" in s.get("uses", ""))["with"]
    assert (build["provenance"], build["sbom"]) == ("mode=max", True)
    assert {m["platform"] for m in JOBS["image/build"]["strategy"]["matrix"]["include"]} == {"linux/amd64", "linux/arm64"}


def test_what_the_jobs_call_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    rules = set(re.findall(r"^([a-z][\w-]*):", makefile, re.MULTILINE))
    asked = {m for _, s in STEPS for m in re.findall(r"\bmake ([a-z][\w-]*)", s.get("run", ""))}
    asked |= {m["target"] for name in ("ci/test", "nightly/test") for m in JOBS[name]["strategy"]["matrix"]["include"]}
    assert asked <= rules, f"not in the Makefile: {asked - rules}"
    for _, step in STEPS:
        for names in re.findall(r"deploy/verify/verify\.py ([a-z -]+)", step.get("run", "")):
            assert set(names.split()) <= set(verify.targets())
        for script in re.findall(r"(?:^|\s)(deploy/[\w./-]+\.(?:sh|py))", step.get("run", "")):
            assert (ROOT / script).is_file(), script
        for environment, tool in re.findall(r"build/verify/(\w+)/bin/([\w-]+)", step.get("run", "")):
            asked = (ROOT / "requirements" / f"{environment.replace('venv', 'verify')}.in").read_text(encoding="utf-8")
            assert re.search(rf"^{tool}\b", asked, re.MULTILINE), f"{tool} is not installed by requirements/{environment}"


def test_the_night_runs_what_no_push_waits_for() -> None:
    """Whatever a marker keeps out of `ci` is asked for here, with the history that the migration test needs."""
    job = JOBS["nightly/test"]
    assert {m["target"] for m in job["strategy"]["matrix"]["include"]} == {"test-slow", "test-faults", "test-load", "torture"}
    assert job["steps"][0]["with"]["fetch-depth"] == 0


def test_dependencies_cool_down() -> None:
    bot = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text(encoding="utf-8"))
    assert {u["package-ecosystem"] for u in bot["updates"]} == {"pip", "docker", "docker-compose", "github-actions", "terraform"}
    assert all(u["cooldown"]["default-days"] >= 7 for u in bot["updates"])


@pytest.mark.parametrize(
    ("counts", "code", "output", "wanted"),
    [
        ("one", 0, "", (1, 0)),
        ("one", 3, "", (0, 1)),
        ("closing", 0, "noise\n12 passed, 0 failed\n", (12, 0)),
        ("closing", 0, "no closing line", (0, 1)),
        ("closing", 1, "12 passed, 0 failed\n", (12, 1)),
        ("pytest", 0, "....\n4 passed in 0.1s\n", (4, 0)),
        ("pytest", 1, "1 failed, 3 passed, 2 errors in 0.1s", (3, 3)),
        ("pytest", 5, "no tests ran in 0.1s", (0, 1)),
        ("pytest", 0, "3 skipped in 0.1s", (0, 1)),
    ],
)
def test_verify_counts_what_happened(counts: str, code: int, output: str, wanted: tuple[int, int]) -> None:
    assert verify.tally(counts, code, output) == wanted
