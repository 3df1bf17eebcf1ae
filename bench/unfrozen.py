"""The service whose start-up objects the collector goes on looking at, for the table of pauses only: `python -m bench.unfrozen serve`."""

from __future__ import annotations

import gc

from service.cli import app


def _stay() -> None:
    """Instead of `gc.freeze`."""


if __name__ == "__main__":
    gc.freeze = _stay
    app(prog_name="plumbline")
