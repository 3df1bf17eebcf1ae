"""Writes or compares the golden files: every object of each environment, so that a review sees what a change changes.

    build/verify/venv/bin/python tests/helm/golden.py --write
Compared by test_golden.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml
from rendering import Object, render

FOLDER = Path(__file__).parent / "golden"
ENVIRONMENTS = ("dev", "staging", "prod")


def generated(resource: Object) -> bool:
    """Rules and dashboards are files of their own, reviewed and tested there."""
    component: str = resource["metadata"]["labels"]["app.kubernetes.io/component"]
    return component.startswith(("rules-", "dashboard-"))


def text_of(environment: str) -> str:
    """All objects but rules and dashboards, sorted by kind and name, one document each."""
    objects = sorted((o for o in render(environment) if not generated(o)), key=lambda o: (o["kind"], o["metadata"]["name"]))
    return yaml.safe_dump_all(objects, sort_keys=True, width=120)


def main() -> int:
    if sys.argv[1:] != ["--write"]:
        print("usage: golden.py --write", file=sys.stderr)
        return 2
    FOLDER.mkdir(exist_ok=True)
    for environment in ENVIRONMENTS:
        (FOLDER / f"{environment}.yaml").write_text(text_of(environment), encoding="utf-8")
        print(f"wrote {environment}.yaml")
    return 0


if __name__ == "__main__":
    sys.exit(main())
