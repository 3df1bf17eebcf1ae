"""`python -m bench.compare_servers`: the same raw ASGI application served by uvicorn and by granian, side by side (docs/adr/0500).

Interleaved rounds on one core; a ratio is the median over the rounds to uvicorn in the same round. Exit 2 when it cannot run here.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Final

from bench import arms as arm_table
from bench.apart import installed
from bench.errors import BenchError
from bench.loadgen import compile_generator
from bench.progress import teller
from bench.rounds import ratio, run_rounds
from bench.servers import await_port, running_rig, start
from service.dev.children import StackError

_ROUNDS, _SECONDS = 12, 0.5
_GRANIAN, _GRANIAN_PORT = "granian", 105
_FLOORS: Final = (("p1", "read an order"), ("g1", "read from Redis"), ("w0", "place an order"))


def main() -> int:
    """Measure and print the table."""
    say = teller()

    try:
        python, program = installed("peers", "granian, and the peers' frameworks", say) / "python", compile_generator()
        with running_rig() as rig:
            table = {arm.name: arm for arm in arm_table.prepare(rig)}
            port = rig.base_port + _GRANIAN_PORT
            start(rig, _GRANIAN, "bench.granian_floors", env={"HTTP_PORT": str(port)}, core=rig.server_core, python=python)
            await_port(rig, _GRANIAN, port)
            others = [replace(table[name], name=f"{name} {_GRANIAN}", process=_GRANIAN, port=port) for name, _ in _FLOORS]
            arms = [table[name] for name, _ in _FLOORS] + [table["w0_again"], *others]
            series = run_rounds(rig, program, arms, rounds=_ROUNDS, seconds=_SECONDS, say=say)
    except (BenchError, StackError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    print("\n| granian ÷ uvicorn | server CPU | requests/s | p99 |\n|---|---|---|---|")
    for name, text in _FLOORS:
        cells = " | ".join(f"{ratio(series[f'{name} {_GRANIAN}'], series[name], field):.2f}" for field in ("server_us", "per_s", "p99_ms"))
        print(f"| {text} | {cells} |")
    print(f"\nthe same floor in a second process of uvicorn: {ratio(series['w0_again'], series['w0']):.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
