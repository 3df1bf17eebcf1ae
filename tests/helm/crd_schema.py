"""Checks custom resources against the operators' own CRDs, unknown fields included.

The API server prunes or warns about unknown fields; here they are errors, because they are typing mistakes.
CEL rules are not evaluated.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CRDS = Path(os.environ.get("VERIFY_HOME", ROOT / "build" / "verify")) / "crds"


def strict(schema: Any) -> Any:
    """The same schema, refusing keys it does not name."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed_part(key, value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        closed.pop("type", None)
    opened = schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("x-kubernetes-embedded-resource")
    if "properties" in schema and "additionalProperties" not in schema and not opened:
        closed["additionalProperties"] = False
    return closed


def _closed_part(key: str, value: Any) -> Any:
    if key == "properties":
        return {name: strict(part) for name, part in value.items()}
    return strict(value) if key in ("items", "additionalProperties") else value


def load() -> dict[tuple[str, str], Any]:
    """(apiVersion, kind) → strict schema of each served version."""
    files = sorted(CRDS.glob("*.yaml"))
    if not files:
        raise pytest.UsageError(f"no CRDs in {CRDS}: run deploy/verify/tools.sh")
    schemas = {}
    for path in files:
        crd = yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]
        for version in crd["versions"]:
            schema = strict(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}
            schemas[(f"{crd['group']}/{version['name']}", crd["names"]["kind"])] = schema
    return schemas


def complaints(schema: Any, resource: dict[str, Any]) -> list[str]:
    validator = jsonschema.Draft7Validator(schema)
    return [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(resource)]
