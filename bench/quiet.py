"""The service with its metrics switched off, for the overhead table only: `python -m bench.quiet serve`.

Logs and spans have settings; metrics do not, because nobody should run without them.
"""

from __future__ import annotations

from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from service.cli import app
from service.foundation.metrics import LoopCounter, LoopHistogram


def _nothing(*_arguments: Any, **_named: Any) -> None:
    """Instead of counting."""


if __name__ == "__main__":
    counters, histograms = (Counter, LoopCounter), (Histogram, LoopHistogram)
    for kind, verbs in (*((c, ("inc",)) for c in counters), (Gauge, ("inc", "dec", "set")), *((h, ("observe",)) for h in histograms)):
        for verb in verbs:
            setattr(kind, verb, _nothing)
    app(prog_name="plumbline")
