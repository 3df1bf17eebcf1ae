"""A second opinion on what the chart renders: kubeconform, strict, for every installation and every schema version.

Same schemas as tests/helm/test_render.py (core kinds and the operators' CRDs), another validator: it also refuses duplicate
keys, which a YAML reader swallows. First it must refuse a misspelt field. `kubeconform.py CASE…` judges these installations
by the newest schemas only. Closing line: `N passed, M failed` (objects).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import kubernetes_validate

ROOT = Path(__file__).resolve().parents[2]
HOME = Path(os.environ.get("VERIFY_HOME", ROOT / "build" / "verify"))
sys.path.insert(0, str(ROOT / "tests" / "helm"))

import crd_schema  # noqa: E402 - the chart's tests are no package
from rendering import CASES, render_text, values_of  # noqa: E402

VERSIONS = ("1.30.0", "1.33.0", "1.37.0")


def lean(schema: Any) -> Any:
    """Without descriptions: half of the text, and nobody judges by them."""
    if isinstance(schema, dict):
        return {key: lean(value) for key, value in schema.items() if not (key == "description" and isinstance(value, str))}
    return [lean(item) for item in schema] if isinstance(schema, list) else schema


def reachable(texts: list[str], definitions: dict[str, Any]) -> dict[str, Any]:
    """What these schemas name, and what that names: kubeconform reads the definitions anew for every kind."""
    found, open_texts = dict[str, Any](), list(texts)
    while open_texts:
        for name in set(re.findall(r'#/\$defs/([^"]+)"', open_texts.pop())) - set(found):
            found[name] = definitions[name]
            open_texts.append(json.dumps(definitions[name]))
    return found


def lay_out(folder: Path, kinds: set[str]) -> list[str]:
    """The schemas of these kinds, under the names kubeconform looks for; the -schema-location arguments."""
    bundled = Path(kubernetes_validate.__file__).with_name("kubernetes-json-schema")
    for version in VERSIONS:
        target = folder / f"v{version}"
        target.mkdir()
        source = bundled / f"v{version}-local-strict"
        texts = []
        for file in (found for kind in sorted(kinds) for found in source.glob(f"{kind.lower()}-*.json")):
            # Made for a server that serves them under /api; here they lie beside each other.
            schema = lean(json.loads(file.read_text(encoding="utf-8").replace('"/api/_definitions.json#', '"_definitions.json#')))
            schema.pop("$id", None)
            texts.append(json.dumps(schema))
            (target / file.name).write_text(texts[-1], encoding="utf-8")
        shared = lean(json.loads((source / "_definitions.json").read_text(encoding="utf-8")))
        kept = {"$schema": shared["$schema"]} if "$schema" in shared else {}
        (target / "_definitions.json").write_text(json.dumps(kept | {"$defs": reachable(texts, shared["$defs"])}), encoding="utf-8")
    (folder / "crd").mkdir()
    for (api, kind), schema in crd_schema.load().items():
        group, version = api.split("/")
        (folder / "crd" / f"{kind.lower()}-{group.split('.')[0]}-{version}.json").write_text(json.dumps(schema), encoding="utf-8")
    name = "{{.ResourceKind}}{{.KindSuffix}}.json"
    return ["-schema-location", f"{folder}/{{{{.NormalizedKubernetesVersion}}}}/{name}", "-schema-location", f"{folder}/crd/{name}"]


def judge(version: str, locations: list[str], files: list[Path]) -> tuple[int, list[str]]:
    """(valid objects, complaints). All files in one process: it reads the schema of a kind once, which is what takes the time."""
    command = [str(HOME / "bin" / "kubeconform"), "-strict", "-output", "json", "-summary", "-kubernetes-version", version, *locations]
    ended = subprocess.run([*command, *map(str, files)], capture_output=True, text=True, check=False)
    try:
        report = json.loads(ended.stdout)
    except ValueError:
        return 0, [(ended.stderr or ended.stdout)[-500:]]
    complaints = [f"{Path(found['filename']).stem} {found['kind']}/{found['name']}: {found['msg']}" for found in report.get("resources") or []]
    if ended.returncode and not complaints:
        complaints.append(ended.stderr[-500:])
    return report["summary"]["valid"], complaints


def written(folder: Path, manifests: dict[str, str]) -> list[Path]:
    files = []
    for name, manifest in manifests.items():
        files.append(folder / f"{name}.yaml")
        files[-1].write_text(manifest, encoding="utf-8")
    return files


def spoilt(manifest: str) -> dict[str, str]:
    """One Deployment with a misspelt field, and one with a key twice: neither may pass."""
    deployment = next(part for part in manifest.split("\n---\n") if "kind: Deployment" in part)
    misspelt = deployment.replace("imagePullPolicy:", "imagePulPolicy:", 1)
    return {"misspelt": misspelt, "doubled": deployment.replace("kind: Deployment", "kind: Deployment\nkind: Deployment", 1)}


def main(arguments: list[str]) -> int:
    passed, failures = 0, []
    cases, versions = arguments or list(CASES), VERSIONS[-1:] if arguments else VERSIONS
    with tempfile.TemporaryDirectory(prefix="plumbline-schemas-") as name:
        folder = Path(name)
        manifests = {case: "\n---\n".join(text for file, text in render_text(values_of(case)).items() if file.endswith(".yaml")) for case in cases}
        locations = lay_out(folder, {kind for manifest in manifests.values() for kind in re.findall(r"^kind: (\w+)", manifest, re.MULTILINE)})
        complaints = judge(versions[0], locations, written(folder, spoilt(manifests[cases[0]])))[1]
        if {complaint.split()[0] for complaint in complaints} != {"misspelt", "doubled"}:
            failures.append(f"a misspelt field or a duplicate key passes: the check cannot fail ({complaints})")
        files = written(folder, manifests)
        for version in versions:
            valid, complaints = judge(version, locations, files)
            passed += valid
            failures += [f"{version}: {complaint}" for complaint in complaints]
    for failure in failures:
        print(failure)
    print(f"{passed} passed, {len(failures)} failed")
    return 1 if failures or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
