"""The name and default of every setting the service reads, taken from its own settings groups.

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


def defaults() -> dict[str, object]:
    """Environment name, upper case → what the service takes without it."""
    found = dict[str, object]()
    for group in groups().values():
        prefix = str(group.model_config.get("env_prefix", ""))
        for field, info in group.model_fields.items():
            alias = info.validation_alias
            names = alias.choices if isinstance(alias, AliasChoices) else [alias or f"{prefix}{field}".upper()]
            found |= {str(name): info.default for name in names}
    return found


def known_names() -> set[str]:
    return ELSEWHERE | defaults().keys()
