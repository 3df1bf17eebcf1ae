"""The names of every setting the service reads, taken from its own settings groups.

A chart or compose file that sets another name sets nothing at all; tests/helm and tests/deploy ask here.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import AliasChoices

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from service.settings import groups  # noqa: E402 - the repository root is not on the path of the checkers' environment

# Read outside the settings groups, before they exist.
ELSEWHERE = {"APP_SECRETS_DIR"}


def known_names() -> set[str]:
    """Environment names, upper case."""
    names = set(ELSEWHERE)
    for group in groups().values():
        prefix = str(group.model_config.get("env_prefix", ""))
        for field, info in group.model_fields.items():
            alias = info.validation_alias
            if isinstance(alias, AliasChoices):
                names |= {str(choice) for choice in alias.choices}
            else:
                names.add(str(alias) if alias else f"{prefix}{field}".upper())
    return names
