#!/usr/bin/env python3
"""Terraform checks of `make verify-deploy` (tf, tf-policy) and `verify-deploy-full` (tf-moto too); no AWS account is used.

Every root and module is formatted, valid and tested against a fake provider; prod's values pass checkov; the
drift-free modules are applied to a fake AWS, planned again (empty) and destroyed. Closing line: `N passed, M failed`.
Works in a copy, so no lock file or state is left in the tree. When this fails, do not apply.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]
TREE: Final = REPOSITORY / "infra/terraform"
STRUCTURE: Final = TREE / "tests/structure.py"
MOTO_VENV: Final = REPOSITORY / "build/verify-terraform"
MOTO_PINS: Final = REPOSITORY / "requirements/verify-terraform.txt"
MOTO_PORT: Final = int(os.environ.get("MOTO_PORT", "5055"))
CHECKOV: Final = Path(os.environ.get("VERIFY_HOME", REPOSITORY / "build/verify")) / "policy/bin/checkov"
POLICY_ROOTS: Final = ("envs/prod", "bootstrap", "modules/api-gateway", "modules/notifications-sqs")
SKIPS_MAX: Final = 4
READY_TIMEOUT_S: Final = 60
COMMAND_TIMEOUT_S: Final = 900
SUMMARY: Final = re.compile(r"(\d+) passed, (\d+) failed(?:, (\d+) skipped)?\.")


class EnvironmentFault(Exception):
    """A tool is missing: the message says how to get it. Exit code 2."""


@dataclass
class Tally:
    """Counts checks; prints each failure at once."""

    passed: int = 0
    failed: int = 0
    started_s: float = field(default_factory=time.monotonic)

    def add(self, name: str, passed: int, failed: int, detail: str = "") -> None:
        self.passed += passed
        self.failed += failed
        mark = "ok  " if not failed else "FAIL"
        print(f"{time.monotonic() - self.started_s:6.1f} s  {mark} {name}: {passed} passed, {failed} failed", flush=True)
        if failed:
            print("\n".join(f"          {line}" for line in detail.strip().splitlines()[-60:]), flush=True)

    def close(self) -> int:
        print(f"{self.passed} passed, {self.failed} failed")
        return 1 if self.failed or not self.passed else 0


def terraform() -> str:
    found = shutil.which("terraform")
    if not found:
        raise EnvironmentFault("terraform is missing: install Terraform 1.11 or newer and put it on PATH")
    return found


def find_mirror() -> Path | None:
    """Folder to give to `init -plugin-dir`: a local provider mirror, found by the provider's file name; else None."""
    if named := os.environ.get("TF_PLUGIN_MIRROR"):
        return Path(named)
    skip = [part for name in ("/proc", "/sys", "/dev", str(Path(tempfile.gettempdir()))) for part in ("-path", name, "-prune", "-o")]
    skip += [part for name in (".terraform", ".git", ".venv", "node_modules", "overlay2") for part in ("-name", name, "-prune", "-o")]
    # <mirror>/registry.terraform.io/hashicorp/aws/<version>/<platform>/<file>; copies in .terraform folders are not mirrors.
    wanted = ("-path", "*/registry.terraform.io/hashicorp/aws/*/*/terraform-provider-aws_v5*", "-type", "f")
    command = ["find", "/", *skip, *wanted, "-print", "-quit"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False).stdout.strip()
    return Path(found).parents[5] if found else None


def clean_environment(work: Path, **extra: str) -> dict[str, str]:
    """No credentials, no user's CLI configuration, no calls home."""
    rc = work / "terraform.rc"
    rc.touch()
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "TF_"))}
    return {**kept, "TF_CLI_CONFIG_FILE": str(rc), "TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1", **extra}


def call(command: list[str], *, cwd: Path, env: dict[str, str]) -> tuple[int, str]:
    done = subprocess.run(
        command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=COMMAND_TIMEOUT_S, check=False
    )
    return done.returncode, done.stdout


def init_arguments(mirror: Path | None) -> list[str]:
    return [terraform(), "init", "-input=false", "-no-color", *([f"-plugin-dir={mirror}"] if mirror else [])]


def prepare_modules(work: Path, env: dict[str, str], mirror: Path | None) -> None:
    """One init for all modules: they call no other module and ask for the same provider, whose hash takes seconds."""
    first, *others = (work / "terraform" / root for root in tested_roots() if root.startswith("modules/"))
    code, output = call([*init_arguments(mirror), "-backend=false"], cwd=first, env=env)
    if code:
        raise EnvironmentFault(f"terraform init failed: is the registry reachable, or TF_PLUGIN_MIRROR set?\n{output}")
    for other in others:
        shutil.copy(first / ".terraform.lock.hcl", other)
        shutil.copytree(first / ".terraform", other / ".terraform", symlinks=True)


def check_root(work: Path, root: str, env: dict[str, str], mirror: Path | None) -> tuple[int, int, str]:
    """init, validate, test of one folder → passed, failed, output. `test` validates modules; their callers do it again."""
    folder = work / "terraform" / root
    passed = 0
    if not root.startswith("modules/"):
        for command in ([*init_arguments(mirror), "-backend=false"], [terraform(), "validate", "-no-color"]):
            code, output = call(command, cwd=folder, env=env)
            if code:
                return passed, 1, output
        passed = 1
    code, output = call([terraform(), "test", "-no-color"], cwd=folder, env=env)
    summary = SUMMARY.search(output)
    if not summary or int(summary[1]) + int(summary[2]) == 0:
        return passed, 1, output or "terraform test ran nothing"
    good, failed, skipped = (int(number or 0) for number in summary.groups())
    return passed + good, failed + skipped or int(code != 0), output


def tested_roots() -> list[str]:
    folders = [TREE / "bootstrap", *sorted((TREE / "envs").iterdir()), *sorted((TREE / "modules").iterdir())]
    # The composition has no tests of its own: each environment tests it with its values. Slowest first.
    names = [str(folder.relative_to(TREE)) for folder in folders if folder.name != "environment"]
    return sorted(names, key=lambda name: not name.startswith(("envs/", "modules/edge")))


@contextlib.contextmanager
def copied_tree() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="plumbline-terraform-") as name:
        shutil.copytree(TREE, Path(name) / "terraform", ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*"))
        yield Path(name)


def run_tf(tally: Tally) -> None:
    code, output = call([terraform(), "fmt", "-check", "-recursive", "-diff", "-no-color", str(TREE)], cwd=TREE, env=dict(os.environ))
    tally.add("fmt", int(code == 0), int(code != 0), output)
    code, output = call([sys.executable, str(STRUCTURE)], cwd=REPOSITORY, env=dict(os.environ))
    found = re.search(r"(\d+) passed, (\d+) failed", output)
    tally.add("structure and cost", int(found[1]) if found else 0, int(found[2]) if found else 1, output)
    with copied_tree() as work:
        mirror = find_mirror()
        print(f"          provider: {'local mirror' if mirror else 'registry (no local mirror found)'}", flush=True)
        env = clean_environment(work)
        prepare_modules(work, env, mirror)
        with concurrent.futures.ThreadPoolExecutor(max_workers=int(os.environ.get("TF_JOBS", "2"))) as pool:
            jobs = {pool.submit(check_root, work, root, env, mirror): root for root in tested_roots()}
            for job in concurrent.futures.as_completed(jobs):
                passed, failed, output = job.result()
                tally.add(jobs[job], passed, failed, output)


def checkov(folder: Path, *options: str) -> str:
    command = [str(CHECKOV), "-d", str(folder), "--framework", "terraform", "--quiet", "--compact", "--skip-download", *options]
    return call(command, cwd=folder, env=dict(os.environ))[1]


def run_policy(tally: Tally) -> None:
    if not CHECKOV.exists():
        raise EnvironmentFault("checkov is missing: run deploy/verify/tools.sh policy, it installs requirements/policy.txt")
    sources = [path for path in TREE.rglob("*.tf") if ".terraform" not in path.parts]
    skips = {name for path in sources for name in re.findall(r"checkov:skip=(\w+):\S", path.read_text())}
    few = len(skips) <= SKIPS_MAX
    tally.add(f"skips ({', '.join(sorted(skips))})", int(few), int(not few), f"more than {SKIPS_MAX}: fix, do not skip")
    still_needed: set[str] = set()
    for root in POLICY_ROOTS:
        output = checkov(TREE / root)
        counts = re.search(r"Passed checks: (\d+), Failed checks: (\d+)", output)
        tally.add(f"checkov {root}", int(counts[1]) if counts else 0, int(counts[2]) if counts else 1, output)
    with copied_tree() as work:
        for path in (work / "terraform").rglob("*.tf"):
            path.write_text(re.sub(r" *#checkov:skip=.*\n", "", path.read_text()))
        for root in POLICY_ROOTS[:2]:
            still_needed |= set(re.findall(r"Check: (\w+):", checkov(work / "terraform" / root, "-c", ",".join(skips))))
    tally.add("every skip is still needed", int(skips == still_needed), int(skips != still_needed), f"remove the comments of {skips - still_needed}")


def install_moto() -> Path:
    """Own environment, pinned by hash, reused while the pins are the same → moto_server."""
    stamp = MOTO_VENV / ".pins"
    pins = MOTO_PINS.read_text()
    if not stamp.exists() or stamp.read_text() != pins:
        print("          installing moto into build/verify-terraform (about 40 s)", flush=True)
        shutil.rmtree(MOTO_VENV, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(MOTO_VENV)], check=True)
        command = [str(MOTO_VENV / "bin/pip"), "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", str(MOTO_PINS)]
        if subprocess.run(command, check=False).returncode:
            raise EnvironmentFault("pip could not install requirements/verify-terraform.txt: is a package index reachable?")
        stamp.write_text(pins)
    return MOTO_VENV / "bin/moto_server"


@contextlib.contextmanager
def moto(work: Path) -> Iterator[str]:
    """A fake AWS on loopback → its URL. Stopped by its own pid."""
    url = f"http://127.0.0.1:{MOTO_PORT}"
    env = {**os.environ, "MOTO_IAM_LOAD_MANAGED_POLICIES": "true"}
    with (work / "moto.log").open("w") as log:
        server = subprocess.Popen([str(install_moto()), "-H", "127.0.0.1", "-p", str(MOTO_PORT)], stdout=log, stderr=log, env=env)
    try:
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while True:
            if server.poll() is not None:
                raise EnvironmentFault(f"moto ended at start: is port {MOTO_PORT} taken? Set MOTO_PORT. {(work / 'moto.log').read_text()[-400:]}")
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/moto-api/", timeout=2):
                break
            if time.monotonic() > deadline_s:
                raise EnvironmentFault(f"moto did not answer on {url} within {READY_TIMEOUT_S} s")
            time.sleep(0.2)
        yield url
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()


def step(tally: Tally, name: str, command: list[str], *, cwd: Path, env: dict[str, str]) -> bool:
    code, output = call(command, cwd=cwd, env=env)
    made = re.findall(r"(?:Apply|Destroy) complete!.*|No changes\..*", output)
    tally.add(f"{name} {made[-1] if made else ''}".strip(), int(code == 0), int(code != 0), output)
    return code == 0


def fit_for_moto(tree: Path) -> None:
    """Changes the copy where moto differs from AWS or where a test must be able to end."""
    for path in tree.rglob("*.tf"):
        source = path.read_text()
        # What must never be destroyed has to go at the end of a test.
        source = source.replace("prevent_destroy = true", "prevent_destroy = false")
        # moto reads eventbridge back as false, and takes a Deny without its condition: the state would be out of reach.
        source = re.sub(r'resource "aws_s3_bucket_notification" "\w+" \{\n(?:.*\n)*?\}\n', "", source)
        source = re.sub(r'resource "aws_vpc_security_group_egress_rule" "link" \{\n(?:.*\n)*?\}\n', "", source)  # loses its text
        source = re.sub(r'resource "aws_s3_bucket_policy" "state" \{\n(?:.*\n)*?\}\n', "", source)
        if path.parent.name == "bootstrap":
            # Buckets by path, not by host name, and no question after the account.
            source = source.replace('provider "aws" {', 'provider "aws" {\n  s3_use_path_style = true\n  skip_requesting_account_id = true')
            source = source.replace("  allowed_account_ids = [var.account_id]\n", "")
        path.write_text(source)


BOOTSTRAP_VALUES: Final = [
    f"-var={pair}"
    for pair in ("account_id=123456789012", "region=us-east-1", "environment=dev", "repository=example/plumbline", "owner=t", "cost_center=t")
]
BACKEND: Final = [
    f"-backend-config={pair}"
    for pair in (
        "bucket=orders-tfstate-123456789012", "key=dev/terraform.tfstate", "region=us-east-1", "encrypt=true", "use_lockfile=true",
        "use_path_style=true", "skip_credentials_validation=true", "skip_requesting_account_id=true", "skip_metadata_api_check=true",
    )
]  # fmt: skip


def run_moto(tally: Tally) -> None:
    tf = terraform()
    with copied_tree() as work, moto(work) as url:
        mirror = find_mirror()
        keys = {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
        env = clean_environment(work, **keys)
        first, stack = work / "terraform/bootstrap", work / "terraform/tests/moto"
        fit_for_moto(work / "terraform")
        rounds = [("bootstrap", first, BOOTSTRAP_VALUES, []), ("modules", stack, [], BACKEND)]
        done: list[tuple[str, Path, list[str]]] = []
        for name, folder, values, backend in rounds:
            options = ["-input=false", "-no-color", *values]
            if not step(tally, f"{name} init", [*init_arguments(mirror), *backend], cwd=folder, env=env):
                break
            done.append((name, folder, options))
            if not step(tally, f"{name} apply", [tf, "apply", "-auto-approve", *options], cwd=folder, env=env):
                break
            step(tally, f"{name} plan again is empty", [tf, "plan", "-detailed-exitcode", *options], cwd=folder, env=env)
        for name, folder, options in reversed(done):
            if name == "bootstrap":
                empty_bucket(url)
            step(tally, f"{name} destroy", [tf, "destroy", "-auto-approve", *options], cwd=folder, env=env)


def empty_bucket(url: str) -> None:
    """Versioned buckets do not go while old states are in them; on the fake, drop the versions first."""
    script = (
        "import boto3, sys; s = boto3.client('s3', endpoint_url=sys.argv[1], region_name='us-east-1', aws_access_key_id='t', aws_secret_access_key='t');"
        "b = 'orders-tfstate-123456789012'; v = s.list_object_versions(Bucket=b);"
        "[s.delete_object(Bucket=b, Key=o['Key'], VersionId=o['VersionId']) for k in ('Versions', 'DeleteMarkers') for o in v.get(k, [])]"
    )
    subprocess.run([str(MOTO_VENV / "bin/python"), "-c", script, url], check=True)


def compile_pins(_: Tally) -> None:
    uv = shutil.which("uv") or str(REPOSITORY / ".venv/bin/uv")
    options = ["--quiet", "--universal", "--generate-hashes", "--no-emit-index-url", "--no-annotate", "--python-version", "3.11"]
    header = ["--custom-compile-command", "deploy/verify/terraform.py compile"]
    subprocess.run([uv, "pip", "compile", *options, *header, "-o", str(MOTO_PINS), str(MOTO_PINS.with_suffix(".in"))], check=True, cwd=REPOSITORY)


TARGETS: Final = {"tf": run_tf, "tf-policy": run_policy, "tf-moto": run_moto}


def main() -> int:
    """Run the named targets; 0 all passed, 1 a check failed, 2 a tool is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("target", nargs="+", choices=[*TARGETS, "compile"])
    targets: list[str] = parser.parse_args().target
    tally = Tally()
    try:
        if targets == ["compile"]:
            compile_pins(tally)
            return 0
        for target in targets:
            TARGETS[target](tally)
    except EnvironmentFault as fault:
        print(f"terraform checks: {fault}", file=sys.stderr)
        tally.failed += 1
        tally.close()
        return 2
    return tally.close()


if __name__ == "__main__":
    sys.exit(main())
