"""Runs in build/verify/venv (Helm's own SDK inside); `make verify-deploy` makes it.

When the SDK is missing the run stops with the cure instead of skipping.
"""

from __future__ import annotations

import importlib.util

import pytest

if importlib.util.find_spec("helm_python") is None:
    raise pytest.UsageError("the Helm SDK is not in this environment: run `deploy/verify/verify.py chart` (make verify-deploy)")
