"""Renders the chart as Helm would and hands out the objects.

Values merge like Helm's own -f files. A template that renders something unparsable fails here, by name.
"""

from __future__ import annotations

import copy
import functools
import json
from pathlib import Path
from typing import Any

import helm_python
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "orders"
DIGEST = "sha256:" + "0" * 64

Values = dict[str, Any]
Object = dict[str, Any]

# Every way the chart is installed: name → values files, in order.
CASES: dict[str, tuple[str, ...]] = {
    "default": (),
    "dev": ("values-dev.yaml",),
    "staging": ("values-staging.yaml",),
    "prod": ("values-prod.yaml", "ci/prod-values.yaml"),
    "kind": ("ci/kind-values.yaml",),
    "everything": ("ci/everything-values.yaml",),
    "minimal": ("ci/minimal-values.yaml",),
}


def merge(under: Values, over: Values) -> Values:
    """`over` wins; maps merge, lists replace, null stays (Helm deletes it)."""
    merged = copy.deepcopy(under)
    for key, value in over.items():
        merged[key] = merge(merged[key], value) if isinstance(value, dict) and isinstance(merged.get(key), dict) else value
    return merged


def values_of(case: str) -> Values:
    merged: Values = {}
    for name in CASES[case]:
        merged = merge(merged, yaml.safe_load((CHART / name).read_text(encoding="utf-8")) or {})
    return merged


def nested(path: str, to: object) -> Values:
    """`nested("api.hpa.maxReplicas", 3)` → the map a --set would make."""
    value = to
    for part in reversed(path.split(".")):
        value = {part: value}
    assert isinstance(value, dict)
    return value


@functools.cache
def _loaded(chart: Path) -> helm_python.Chart:
    return helm_python.Chart.load(chart)


def render_text(values: Values, *, chart: Path = CHART, release: str = "orders") -> dict[str, str]:
    """Template path → manifest. Raises `HelmValuesError` or `HelmRenderError`."""
    _loaded(chart).validate_schema(values)
    rendered: dict[str, str] = _loaded(chart).render(values, name=release, namespace="orders")
    return rendered


def objects_in(rendered: dict[str, str]) -> list[Object]:
    found: list[Object] = []
    for path in sorted(rendered):
        if path.endswith("NOTES.txt"):
            continue
        found += [document for document in yaml.load_all(rendered[path], yaml.CSafeLoader) if document]
    return found


@functools.cache
def _rendered(case: str, over: str, release: str) -> list[Object]:
    return objects_in(render_text(merge(values_of(case), json.loads(over)), release=release))


def render(case: str = "default", over: Values | None = None, *, release: str = "orders") -> list[Object]:
    """The objects of one installation; a fresh copy each time, rendered once."""
    return copy.deepcopy(_rendered(case, json.dumps(over or {}), release))


def pick(objects: list[Object], kind: str, name: str | None = None) -> Object:
    """The one object of that kind (and name)."""
    found = [o for o in objects if o["kind"] == kind and name in (None, o["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} objects {kind}/{name}, wanted 1"
    return found[0]


def kinds(objects: list[Object], kind: str) -> dict[str, Object]:
    return {o["metadata"]["name"]: o for o in objects if o["kind"] == kind}


def pod_specs(objects: list[Object]) -> dict[str, Object]:
    """`Kind/name` → pod spec, of everything that makes pods."""
    specs = {}
    for o in objects:
        if o["kind"] in ("Deployment", "Job"):
            specs[f"{o['kind']}/{o['metadata']['name']}"] = o["spec"]["template"]["spec"]
        elif o["kind"] == "Pod":
            specs[f"Pod/{o['metadata']['name']}"] = o["spec"]
    return specs
