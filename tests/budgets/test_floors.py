"""Every module stands on a floor: import-linter holds the order, this holds that none was forgotten."""

from __future__ import annotations

import tomllib

from tests.budgets.measure import ROOT, modules


def test_every_module_has_a_floor() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    floors = next(contract for contract in contracts if contract["id"] == "floors")["layers"]
    placed = {name.strip() for floor in floors for name in floor.replace(":", "|").split("|")}
    homeless = []
    for path in modules("service", "workers"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if path.suffix != ".py" or parts[-1] == "__init__":
            continue
        names = {".".join(parts[: length + 1]) for length in range(len(parts))}
        if not names & placed:
            homeless.append(".".join(parts))
    assert not homeless, "give each a floor in pyproject.toml, [tool.importlinter]"
