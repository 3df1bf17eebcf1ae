"""`plumbline doctor --settings`: every setting with its variable, unit, meaning, default and value; secrets masked.

The page a person reads before changing one. A password never appears on it.
Test: `tests/stories/test_the_doctor_finds_what_is_wrong.py`.
"""

from __future__ import annotations

import os
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from pydantic import AliasChoices, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from service.settings import Group, SettingsError, groups, load_settings

_UNITS: Final = {"ms": "ms", "s": "s", "h": "hours", "d": "days", "bytes": "bytes"}
_MASK: Final = "•••"
_VALUE_WIDTH: Final = 22


class Row(NamedTuple):
    """One setting as text. `given`: the environment or a secret file says so."""

    variable: str
    unit: str
    value: str
    default: str
    given: bool
    meaning: str


def print_settings() -> int:
    """All settings by group, a `*` where one is not the default; a refusal at the end. Answers the exit code."""
    print("every setting: variable, value (unit), meaning; * is not the default; secrets are masked")
    for name, group in groups().items():
        print(f"\n{name}")
        try:
            values = group(_secrets_dir=os.environ.get("APP_SECRETS_DIR"))
        except ValidationError:
            print("    cannot be read: the reason is at the end")
            continue
        for row in rows_of(group, values):
            _print(row)
    try:
        load_settings()
    except SettingsError as error:
        print(f"\nrefused: {error}", flush=True)
        return 1
    return 0


def _print(row: Row) -> None:
    changed = row.value != row.default
    source = "" if row.given or not changed else ", from a secret file"
    meaning = "; ".join(filter(None, (row.meaning, f"default {row.default}{source}" if changed else "")))
    value = f"{row.value} {row.unit}".rstrip()
    line = f"  {'*' if changed else ' '} {row.variable:<38} {value:<{_VALUE_WIDTH}} "
    if len(value) > _VALUE_WIDTH and meaning:
        print(f"{line.rstrip()}\n    {'':<38} {'':<{_VALUE_WIDTH}} {meaning}")
    else:
        print(f"{line}{meaning}".rstrip())


def rows_of(group: type[Group], values: Group) -> list[Row]:
    """The settings of one group, in the order they are declared."""
    rows = []
    for name, field in group.model_fields.items():
        variable = _variable(group, name, field)
        unit = next((word for suffix, word in _UNITS.items() if name.endswith(f"_{suffix}")), "")
        value, default = _text(getattr(values, name)), _text(field.default)
        rows.append(Row(variable, unit, value, default, variable in os.environ, field.description or ""))
    return rows


def _variable(group: type[Group], name: str, field: FieldInfo) -> str:
    alias = field.validation_alias
    if isinstance(alias, AliasChoices):
        alias = next(choice for choice in alias.choices if isinstance(choice, str))
    return alias if isinstance(alias, str) else f"{group.model_config.get('env_prefix', '')}{name}".upper()


def _text(value: Any) -> str:
    if isinstance(value, SecretStr):
        return mask(value.get_secret_value(), secret=True)
    if isinstance(value, tuple):
        return ",".join(f"{part:g}" if isinstance(part, float) else str(part) for part in value) or "(empty)"
    if isinstance(value, float):
        return f"{value:g}"
    return mask(str(value), secret=False) or "(empty)"


def mask(text: str, *, secret: bool) -> str:
    """A URL without its password, and without its query if it is a secret; any other secret not at all."""
    parts = urlsplit(text)
    if not parts.scheme or not parts.netloc:
        return _MASK if secret and text else text
    place = parts.netloc.rpartition("@")[2]
    if "@" in parts.netloc:
        user, colon, _ = parts.netloc.rpartition("@")[0].partition(":")
        place = f"{user}{colon and ':' + _MASK}@{place}"
    return urlunsplit(parts._replace(netloc=place, query=_MASK if secret and parts.query else parts.query))
