"""Events keep being readable by older consumers: the committed schemas are the code's, and change only by addition."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import orjson
import pytest

from service.events import TYPES

_FOLDER = Path(__file__).parents[2] / "docs" / "events"


def _committed(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = orjson.loads((_FOLDER / f"{name}.v1.json").read_bytes())
    return schema


def breaks(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Why a reader of `old` could fail on what `new` describes; empty if it cannot."""
    before, after = old.get("properties", {}), new.get("properties", {})
    found = [f"{name} is gone" for name in before if name not in after]
    found += [f"{name} changed its type" for name in before if name in after and _type(before[name]) != _type(after[name])]
    found += [f"{name} is no longer always there" for name in old.get("required", []) if name not in new.get("required", [])]
    for name, definition in old.get("$defs", {}).items():
        found += breaks(definition, new.get("$defs", {}).get(name, {}))
    return found


def _type(field: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(orjson.dumps(field.get(key), option=orjson.OPT_SORT_KEYS) for key in ("type", "format", "$ref", "items", "anyOf"))


def test_every_type_has_its_schema_and_no_schema_is_left_over() -> None:
    assert {path.name for path in _FOLDER.glob("*.json")} == {f"{name}.v1.json" for name in TYPES}


@pytest.mark.parametrize("name", TYPES)
def test_the_committed_schema_is_the_codes(name: str) -> None:
    assert _committed(name) == orjson.loads(orjson.dumps(TYPES[name].model_json_schema())), "run: plumbline events schema"


@pytest.mark.parametrize("name", TYPES)
def test_a_change_stays_compatible(name: str) -> None:
    assert breaks(_committed(name), TYPES[name].model_json_schema()) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda s: s["properties"].pop("total_minor"), "total_minor is gone"),
        (lambda s: s["properties"]["total_minor"].update(type="string"), "total_minor changed its type"),
        (lambda s: s["required"].remove("currency"), "currency is no longer always there"),
        (lambda s: s["$defs"]["Line"]["properties"].pop("sku"), "sku is gone"),
    ],
)
def test_the_rule_finds_what_an_older_consumer_could_not_read(change: Any, complaint: str) -> None:
    schema = _committed("order.placed")
    changed = copy.deepcopy(schema)
    change(changed)
    assert complaint in breaks(schema, changed)


def test_an_added_field_is_compatible() -> None:
    schema = _committed("order.placed")
    added = copy.deepcopy(schema)
    added["properties"]["channel"] = {"type": "string"}
    assert breaks(schema, added) == []
