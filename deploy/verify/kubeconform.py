"""A second opinion on what the chart renders: kubeconform, strict, for every installation and every schema version.

Same schemas as tests/helm/test_render.py (core kinds and the operators' CRDs), another validator: it also refuses duplicate
keys, which a YAML reader swallows. First it must refuse a misspelt field. Closing line: `N passed, M failed` (objects).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import kubernetes_validate

ROOT = Path(__file__).resolve().parents[2]
HOME = Path(os.environ.get("VERIFY_HOME", ROOT / "build" / "verify"))
sys.path.insert(0, str(ROOT / "tests" / "helm"))

import crd_schema  # noqa: E402 - the chart's tests are no package
from rendering import CASES, render_text, values_of  # noqa: E402

VERSIONS = ("1.30.0", "1.33.0", "1.37.0")


def lay_out(folder: Path, kinds: set[str]) -> list[str]:
    """The schemas of these kinds, under the names kubeconform looks for; the -schema-location arguments."""
    bundled = Path(kubernetes_validate.__file__).with_name("kubernetes-json-schema")
    for version in VERSIONS:
        target = folder / f"v{version}"
        target.mkdir()
        source = bundled / f"v{version}-local-strict"
        for file in (source / "_definitions.json", *(found for kind in kinds for found in source.glob(f"{kind.lower()}-*.json"))):
            # Made for a server that serves them under /api; here they lie beside each other.
            schema = json.loads(file.read_text(encoding="utf-8").replace('"/api/_definitions.json#', '"_definitions.json#'))
            schema.pop("$id", None)
            (target / file.name).write_text(json.dumps(schema), encoding="utf-8")
    (folder / "crd").mkdir()
    for (api, kind), schema in crd_schema.load().items():
        group, version = api.split("/")
        (folder / "crd" / f"{kind.lower()}-{group.split('.')[0]}-{version}.json").write_text(json.dumps(schema), encoding="utf-8")
    name = "{{.ResourceKind}}{{.KindSuffix}}.json"
    return ["-schema-location", f"{folder}/{{{{.NormalizedKubernetesVersion}}}}/{name}", "-schema-location", f"{folder}/crd/{name}"]


def judge(manifest: str, version: str, locations: list[str]) -> tuple[int, list[str]]:
    """(valid objects, complaints)."""
    command = [str(HOME / "bin" / "kubeconform"), "-strict", "-output", "json", "-summary", "-kubernetes-version", version, *locations]
    ended = subprocess.run(command, input=manifest, capture_output=True, text=True, check=False)
    try:
        report = json.loads(ended.stdout)
    except ValueError:
        return 0, [(ended.stderr or ended.stdout)[-500:]]
    complaints = [f"{found['kind']}/{found['name']}: {found['msg']}" for found in report.get("resources") or []]
    if ended.returncode and not complaints:
        complaints.append(ended.stderr[-500:])
    return report["summary"]["valid"], complaints


def main() -> int:
    passed, failures = 0, []
    with tempfile.TemporaryDirectory(prefix="plumbline-schemas-") as name:
        manifests = {case: "\n---\n".join(text for file, text in render_text(values_of(case)).items() if file.endswith(".yaml")) for case in CASES}
        locations = lay_out(Path(name), {kind for manifest in manifests.values() for kind in re.findall(r"^kind: (\w+)", manifest, re.MULTILINE)})
        good = manifests["default"]
        for spoilt in (good.replace("imagePullPolicy:", "imagePulPolicy:", 1), good.replace("kind: Deployment", "kind: Deployment\nkind: Deployment", 1)):
            if not judge(spoilt, VERSIONS[0], locations)[1]:
                failures.append("a misspelt field or a duplicate key passes: the check cannot fail")
        for case, manifest in manifests.items():
            for version in VERSIONS:
                valid, complaints = judge(manifest, version, locations)
                passed += valid
                failures += [f"{case} on {version}: {complaint}" for complaint in complaints]
    for failure in failures:
        print(failure)
    print(f"{passed} passed, {len(failures)} failed")
    return 1 if failures or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
