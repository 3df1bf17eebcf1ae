#!/usr/bin/env python3
"""What the Terraform tree promises about its own shape: documented, equal environments, one boundary, no offline lock.

Run by `deploy/verify/terraform.py tf`; `--write` renews the tables in the READMEs. Prints `N passed, M failed`.
When it fails, a reader is misled or a role can be made that the pipeline may not make.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

TREE: Final = Path(__file__).resolve().parents[1]
REPOSITORY: Final = TREE.parents[1]
BLOCK: Final = re.compile(r'^(variable|output) "([\w-]+)" \{\n(.*?)^\}', re.M | re.S)
TABLES: Final = ("<!-- tables: written by tests/structure.py --write -->", "<!-- end of tables -->")
BOUNDARY: Final = 'permissions_boundary = "arn:aws:iam::aws:policy/PowerUserAccess"'


def folders() -> list[Path]:
    """Every folder that is a module or a root of its own."""
    return [TREE / "bootstrap", *sorted((TREE / "modules").iterdir()), *sorted((TREE / "envs").iterdir())]


def blocks(folder: Path, kind: str) -> dict[str, str]:
    text = "\n".join(path.read_text() for path in sorted(folder.glob("*.tf")))
    return {name: body for found, name, body in BLOCK.findall(text) if found == kind}


def attribute(body: str, name: str) -> str | None:
    found = re.search(rf"^  {name}\s*= (.+)$", body, re.M)
    return found[1] if found else None


def meaning(body: str) -> str:
    return str(json.loads(attribute(body, "description") or '""'))


def tables(folder: Path) -> str:
    rows = ["| variable | type | default | meaning |", "|---|---|---|---|"]
    for name, body in blocks(folder, "variable").items():
        kind = (attribute(body, "type") or "").replace("map(object({", "map(object)").replace("object({", "object")
        default = attribute(body, "default")
        shown = f"`{default}`" if default else "required"
        rows.append(f"| `{name}` | {kind} | {shown} | {meaning(body)} |")
    rows += ["", "| output | meaning |", "|---|---|"]
    rows += [f"| `{name}` | {meaning(body)} |" for name, body in blocks(folder, "output").items()]
    return "\n".join(rows).replace("$${", "${")


def readme(folder: Path, *, write: bool) -> str | None:
    path = folder / "README.md"
    if not path.exists():
        return f"{path.relative_to(REPOSITORY)} is missing: say what the module is for and why it is so"
    text = path.read_text()
    if not all(mark in text for mark in TABLES):
        return f"{path.relative_to(REPOSITORY)} has no place for its tables: add the lines {TABLES}"
    before, rest = text.split(TABLES[0])
    made = f"{before}{TABLES[0]}\n{tables(folder)}\n{TABLES[1]}{rest.split(TABLES[1])[1]}"
    if write:
        path.write_text(made)
    return None if write or made == text else f"{path.relative_to(REPOSITORY)} is out of date: run infra/terraform/tests/structure.py --write"


def readmes() -> Iterator[str | None]:
    for folder in folders():
        if folder.parent.name != "envs":
            yield readme(folder, write="--write" in sys.argv[1:])


def variables() -> Iterator[str | None]:
    """Typed, described, validated; outputs described."""
    for folder in folders():
        where = folder.relative_to(TREE)
        for name, body in blocks(folder, "variable").items():
            missing = [word for word in ("type", "description") if not attribute(body, word)] + ["validation"] * ("validation {" not in body)
            yield f"{where}: variable {name} has no {', '.join(missing)}" if missing else None
        for name, body in blocks(folder, "output").items():
            yield None if attribute(body, "description") else f"{where}: output {name} has no description"


def tests_exist() -> Iterator[str | None]:
    for folder in folders():
        if folder.name != "environment":
            found = list((folder / "tests").glob("*.tftest.hcl"))
            yield None if found else f"{folder.relative_to(TREE)} has no tests/*.tftest.hcl"


def environments_agree() -> Iterator[str | None]:
    """Environments differ in values only; prod has its guard besides."""
    for name in ("variables.tf", "outputs.tf", "versions.tf", "backend.tf"):
        texts = {(TREE / "envs" / env / name).read_text() for env in ("dev", "staging", "prod")}
        yield None if len(texts) == 1 else f"envs/*/{name} differ: they must be the same file"
    keys = {
        env: set(re.findall(r"^\s*(\w+)\s*=", (TREE / "envs" / env / "terraform.tfvars").read_text(), re.M)) for env in ("dev", "staging", "prod")
    }
    yield None if keys["dev"] == keys["staging"] == keys["prod"] else f"terraform.tfvars set different variables: {keys}"
    bodies = {env: (TREE / "envs" / env / "main.tf").read_text().split("# Any plan that would")[0].replace(env, "ENV") for env in keys}
    yield None if len({body.strip() for body in bodies.values()}) == 1 else "envs/*/main.tf differ in more than prod's guard"
    guard = "prevent_destroy = true" in (TREE / "envs/prod/main.tf").read_text()
    yield None if guard else "envs/prod/main.tf has lost the guard of database and key (prevent_destroy)"


def roles_have_the_boundary() -> Iterator[str | None]:
    """The pipeline may only make roles that carry it; github-oidc's own roles are made by a person."""
    for path in sorted((TREE / "modules").rglob("*.tf")):
        if path.parent.name != "github-oidc":
            for name, body in re.findall(r'^resource "aws_iam_role" "(\w+)" \{\n(.*?)^\}', path.read_text(), re.M | re.S):
                carried = BOUNDARY in re.sub(r" +", " ", body)
                yield None if carried else f"{path.relative_to(TREE)}: role {name} has no {BOUNDARY}"


def no_wildcards_and_no_lookups() -> Iterator[str | None]:
    for path in sorted(TREE.rglob("*.tf")):
        where, text = path.relative_to(TREE), path.read_text()
        yield f"{where}: an action `*` allows everything: name the actions" if re.search(r'Action\s*=\s*\[?"\*"', text) else None
        looked_up = re.search(r'^data "(aws_availability_zones|aws_iam_policy_document|aws_caller_identity)"', text, re.M)
        yield f"{where}: data {looked_up[1]} breaks plans against a fake provider: pass the value, write JSON" if looked_up else None


SECRET: Final = re.compile(
    r'^\s*(?:(?:master_|administrator_)?passwords?|secret_string|secret_binary|auth_token|private_key(?:_pem)?)\s*='
    r'|resource "(?:random_password|tls_private_key|aws_secretsmanager_secret_version|aws_iam_access_key)"', re.M
)  # fmt: skip


def no_secret_in_state() -> Iterator[str | None]:
    """Whatever is an argument or made by Terraform stands in the state in the clear."""
    for path in sorted([*TREE.rglob("*.tf"), *TREE.rglob("*.tfvars")]):
        found = SECRET.search(path.read_text())
        yield f"{path.relative_to(TREE)}: {found[0].strip()} puts a secret into the state: let AWS make it, or a person set it" if found else None


def no_offline_lock() -> Iterator[str | None]:
    """A lock made from a local mirror holds one platform's hash and breaks every other machine."""
    listed = subprocess.run(["git", "ls-files", "*.terraform.lock.hcl"], cwd=TREE, capture_output=True, text=True, check=True).stdout.split()
    for name in listed:
        text = (TREE / name).read_text()
        good = text.count("h1:") >= 3 and "zh:" in text
        yield None if good else f"{name} was made offline: remove it, or make it as infra/terraform/README.md says (providers lock)"
    yield None


def cost_is_current() -> Iterator[str | None]:
    done = subprocess.run([sys.executable, str(REPOSITORY / "scripts/cost.py"), "--check"], capture_output=True, text=True, check=False)
    yield done.stderr.strip() if done.returncode else None
    fixed = {
        "NODE_DISK_GB: Final = 50": ("modules/eks/variables.tf", "default     = 50"),
        "BROKERS: Final = 3": ("modules/msk/main.tf", "number_of_broker_nodes = 3"),
        "SYSTEM_NODES: Final = 2": ("modules/eks/nodes.tf", "sizes  = { min = 2, max = 3 }"),
    }
    script = (REPOSITORY / "scripts/cost.py").read_text()
    for line, (name, text) in fixed.items():
        yield None if line in script and text in (TREE / name).read_text() else f"scripts/cost.py says {line}, {name} says otherwise"


CHECKS: Final[tuple[Callable[[], Iterator[str | None]], ...]] = (
    readmes, variables, tests_exist, environments_agree, roles_have_the_boundary, no_wildcards_and_no_lookups, no_secret_in_state,
    no_offline_lock, cost_is_current,
)  # fmt: skip


def main() -> int:
    """Run all checks; 1 when one failed."""
    results = [result for check in CHECKS for result in check()]
    failures = [result for result in results if result]
    sys.stdout.write("".join(f"{failure}\n" for failure in failures))
    sys.stdout.write(f"{len(results) - len(failures)} passed, {len(failures)} failed\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
