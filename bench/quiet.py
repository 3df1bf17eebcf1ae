"""The service with its metrics switched off, for the overhead table only: `python -m bench.quiet serve`.

Logs and spans have settings; metrics do not, because nobody should run without them.
"""

from __future__ import annotations

from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from service.cli import app


def _nothing(*_arguments: Any, **_named: Any) -> None:
    """Instead of counting."""


if __name__ == "__main__":
    for kind, verbs in ((Counter, ("inc",)), (Gauge, ("inc", "dec", "set")), (Histogram, ("observe",))):
        for verb in verbs:
            setattr(kind, verb, _nothing)
    app(prog_name="plumbline")
