"""The event contract: the committed schemas are the code's, and a change must be one an older consumer can read.

`plumbline events schema` writes docs/events/. The rule: within a major version a field may be added if readers can
do without it; nothing may be removed, renamed, retyped or narrowed. The committed schemas follow the code, so the
rule is also held against events_as_first_published.json, which no command writes: a type is added to it, never changed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from service.events import MAJOR_VERSION, PARTITIONS, TYPES, topic_of

FOLDER = Path(__file__).parents[2] / "docs" / "events"
FIRST_PUBLISHED = json.loads(Path(__file__).with_name("events_as_first_published.json").read_text())
NAMES = {name: FOLDER / f"{name}.{MAJOR_VERSION}.json" for name in TYPES}


def breaks(
    old: dict[str, Any], new: dict[str, Any], *, old_root: dict[str, Any] | None = None, new_root: dict[str, Any] | None = None, at: str = ""
) -> list[str]:
    """What a reader written for `old` would stumble over in payloads described by `new`."""
    old_root, new_root = old_root or old, new_root or new
    old, new = _resolve(old, old_root), _resolve(new, new_root)
    found = [f"{at}: {word} changed" for word in ("type", "format", "enum", "const") if old.get(word) != new.get(word)]
    if "items" in old and "items" in new:
        found += breaks(old["items"], new["items"], old_root=old_root, new_root=new_root, at=f"{at}[]")
    fields, now = old.get("properties", {}), new.get("properties", {})
    for name, schema in fields.items():
        if name not in now:
            found.append(f"{at}.{name}: removed")
        else:
            found += breaks(schema, now[name], old_root=old_root, new_root=new_root, at=f"{at}.{name}")
    found += [f"{at}.{name}: no longer always there" for name in set(old.get("required", ())) - set(new.get("required", ())) if name in now]
    # Events of the old form are still in Kafka: what reads the new one must do without a new field.
    found += [f"{at}.{name}: new and required" for name in set(new.get("required", ())) - set(fields)]
    return found


def _resolve(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    return schema if reference is None else root["$defs"][reference.rsplit("/", 1)[1]]


@pytest.mark.parametrize("name", TYPES)
def test_the_committed_schema_is_the_codes(name: str) -> None:
    committed = json.loads(NAMES[name].read_text())
    assert breaks(committed, TYPES[name].model_json_schema()) == [], "an older consumer could not read this: make it a new major version"
    assert committed == TYPES[name].model_json_schema(), "run `plumbline events schema` and commit docs/events"


@pytest.mark.parametrize("name", FIRST_PUBLISHED)
def test_what_was_published_first_is_still_read_and_still_written(name: str) -> None:
    old = FIRST_PUBLISHED[name]
    now = TYPES[name].model_validate_json(json.dumps(old)).model_dump(mode="json")
    assert _part_of(old, now), f"an old event is read, and said again, as {now}: make it a new major version"
    required = TYPES[name].model_json_schema()["required"]
    assert set(old) <= set(required), "what older readers rely on is always there"


def _part_of(old: Any, new: Any) -> bool:
    """Does `new` say everything `old` says? More is fine."""
    if isinstance(old, dict):
        return isinstance(new, dict) and all(key in new and _part_of(value, new[key]) for key, value in old.items())
    if isinstance(old, list):
        return isinstance(new, list) and len(old) == len(new) and all(map(_part_of, old, new))
    return type(old) is type(new) and bool(old == new)


def test_there_is_a_schema_for_each_type_and_no_other() -> None:
    assert set(FIRST_PUBLISHED) == set(TYPES), "a new type: add its first payload"
    assert {path.name for path in FOLDER.glob("*.json")} == {path.name for path in NAMES.values()}
    assert {topic_of("order"), topic_of("product")} == set(PARTITIONS)


class Inner(BaseModel):
    sku: str
    quantity: int


class First(BaseModel):
    order_id: str
    total: int
    lines: tuple[Inner, ...]


def changed(**schema: Any) -> dict[str, Any]:
    return First.model_json_schema() | schema


def test_the_rule_lets_optional_fields_in() -> None:
    class Second(First):
        coupon: str | None = None

    assert breaks(First.model_json_schema(), Second.model_json_schema()) == []


BREAKING: dict[str, Any] = {
    "removed": lambda s: s["properties"].pop("total") and s["required"].remove("total"),
    "renamed": lambda s: s["properties"].update(sum=s["properties"].pop("total")),
    "retyped": lambda s: s["properties"]["total"].update(type="string"),
    "new and required": lambda s: (s["properties"].update(tax={"type": "integer"}), s["required"].append("tax")),
    "optional now": lambda s: s["required"].remove("total"),
    "inner retyped": lambda s: s["$defs"]["Inner"]["properties"]["quantity"].update(type="number"),
    "inner removed": lambda s: s["$defs"]["Inner"]["properties"].pop("sku"),
    "format": lambda s: s["properties"]["order_id"].update(format="uuid"),
}


@pytest.mark.parametrize("how", BREAKING)
def test_the_rule_refuses_what_breaks_a_reader(how: str) -> None:
    new = First.model_json_schema()
    BREAKING[how](new)
    assert breaks(First.model_json_schema(), new) != []
