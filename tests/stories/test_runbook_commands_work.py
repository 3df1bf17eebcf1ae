"""What a runbook tells a person to type in the first five minutes works: every line of every page, beside a running stack.

Lines that several pages share run once. A line that cannot run, or reads a metric that does not exist, fails here.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stories.shop import Shop

pytestmark = pytest.mark.alone  # fifty lines in a shell, one after the other, most start a Python: longer than any other story

PAGES = Path(__file__).parents[2] / "docs" / "runbooks"
_BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
_MARK = "@@@"
# `metrics` as the page defines it asks every process; 35 lines look for something in what it says, once is enough to know what that is.
_ONCE = """
said=$(metrics)
metrics() { printf '%s\\n' "$said"; }
"""


def _commands() -> dict[str, str]:
    """Line → the first page that has it."""
    found: dict[str, str] = {}
    for page in sorted(PAGES.glob("*.md")):
        if page.name != "README.md":
            for block in _BLOCK.findall(page.read_text(encoding="utf-8")):
                for line in block.splitlines():
                    found.setdefault(line, page.name)
    return found


async def test_every_command_of_every_page_works(shop: Shop) -> None:
    bought = await shop.definite(lambda: shop.login("anna-runbook").place(("SKU-0001", 1), key="runbook"))
    await shop.becomes(bought.json(), "paid")
    [setup] = _BLOCK.findall((PAGES / "README.md").read_text(encoding="utf-8"))
    commands = _commands()
    assert len(commands) > 40, "the pages hold fewer commands than alerts"
    # A line of its own whatever the command printed last: JSON answers end without one.
    script = setup + _ONCE + "".join(f"\n{{ {line}\n}}\nprintf '\\n{_MARK} %s\\n' $?\n" for line in commands)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    bare = {name: value for name, value in os.environ.items() if not name.startswith("APP_") and name not in {"DATABASE_URL", "REDIS_URL"}}
    env = bare | {"PLUMBLINE_HOME": str(shop.home), "PATH": path}
    ended = await asyncio.to_thread(subprocess.run, ["bash", "-uc", script], env=env, capture_output=True, text=True, timeout=600, check=False)
    outputs = re.split(rf"^{_MARK} (\d+)$", ended.stdout, flags=re.MULTILINE)
    codes = [int(code) for code in outputs[1::2]]
    assert len(codes) == len(commands), f"{ended.stdout[-500:]}\n{ended.stderr[-2000:]}"
    # The doctor answers 1 when it finds something: that is what it is for.
    bad = {f"{page}: {line}": code for (line, page), code in zip(commands.items(), codes, strict=True) if code and line != "plumbline doctor"}
    assert not bad, f"{bad}\n{ended.stderr[-2000:]}"
    assert "command not found" not in ended.stderr
    assert "unbound variable" not in ended.stderr
    assert "no answer from" not in ended.stderr
    said = dict(zip(commands, outputs[0::2], strict=False))
    assert "orders_outbox_rows" in next(text for line, text in said.items() if "orders_outbox_rows|orders_outbox_oldest" in line)
    assert "orders_build_info" in said['curl -sS "$OPS/metrics" | grep orders_build_info']
