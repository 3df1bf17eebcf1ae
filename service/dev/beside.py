"""The door to the load tests, which live beside the package and not in it: an image or an installed package has none.

When this fails, `plumbline load` ends with a traceback instead of a sentence (`tests/unit/test_load_commands.py`).
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable

from service.dev.state import ROOT

_NO_CLONE = "the load tests are not part of an image or an installed package: run them from a clone of the repository, after `make setup`"


def load_tests() -> Callable[[list[str]], None]:
    """Their command line. Exits 2 with the cure when they, or the tools they need, are not here."""
    if not (ROOT / "loadtests" / "__main__.py").exists():
        raise SystemExit(_complain(_NO_CLONE))
    sys.path.insert(0, str(ROOT))
    if importlib.util.find_spec("locust") is None:  # looked for, not imported: it patches what it finds
        raise SystemExit(_complain("locust is missing: `make -B setup` brings the tools for tests"))
    main: Callable[[list[str]], None] = importlib.import_module("loadtests.__main__").main
    return main


def _complain(sentence: str) -> int:
    print(f"plumbline: {sentence}", file=sys.stderr)
    return 2
