"""Runs in build/verify/venv, like tests/helm; `make verify-deploy` makes it.

When a checker is missing the run stops with the cure instead of skipping.
"""

from __future__ import annotations

import importlib.util

import pytest

for module in ("yaml", "pydantic_settings"):
    if importlib.util.find_spec(module) is None:
        raise pytest.UsageError(f"{module} is not in this environment: run `deploy/verify/verify.py image ci` (make verify-deploy)")
