"""`python -m bench.pauses`: what the garbage collector does to an API process under load, with `gc.freeze()` after start and without.

Both processes serve the same creates and cached reads in interleaved rounds; then their own metric
`orders_gc_pause_seconds` tells how often each generation was collected and how long that stopped everything. Beside it
the memory of each. Exit 2 when it cannot run here.
"""

from __future__ import annotations

import sys
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from bench import arms as arm_table
from bench.errors import BenchError
from bench.loadgen import compile_generator
from bench.overhead import start_variants
from bench.progress import teller
from bench.rounds import ratio, run_rounds
from bench.servers import Rig, running_rig
from service.dev.children import StackError

_ROUNDS, _SECONDS = 16, 0.5
_FROZEN, _NOT = "frozen", "not frozen"
_VARIANTS: Final[dict[str, tuple[str, dict[str, str]]]] = {_FROZEN: ("service", {}), _NOT: ("bench.unfrozen", {})}
_JOBS: Final = ("create_all_on", "get_cached_all_on")
_GENERATIONS: Final = ("0", "1", "2")


def main() -> int:
    """Measure and print the table."""
    say = teller()

    try:
        program = compile_generator()
        with running_rig() as rig:
            table = {arm.name: arm for arm in arm_table.prepare(rig)}
            ports = start_variants(rig, _VARIANTS)
            arms = [replace(table[job], name=f"{job} {name}", process=name, port=port, label=name) for name, port in ports.items() for job in _JOBS]
            series = run_rounds(rig, program, arms, rounds=_ROUNDS, seconds=_SECONDS, say=say)
            pauses = {name: _pauses(port + 1000) for name, port in ports.items()}
            memory = {name: _resident_mib(rig, name) for name in ports}
    except (BenchError, StackError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    print("\n| API process | generation | collections | mean pause, ms | together, ms | resident, MiB |\n|---|---|---|---|---|---|")
    for name, found in pauses.items():
        for generation in _GENERATIONS:
            count, total_s = found[generation]
            mean = f"{1000 * total_s / count:.2f}" if count else "none"
            print(f"| {name} | {generation} | {count:.0f} | {mean} | {1000 * total_s:.1f} | {memory[name]:.0f} |")
    for job in _JOBS:
        print(f"\nCPU of {job}, {_NOT} ÷ {_FROZEN}: {ratio(series[f'{job} {_NOT}'], series[f'{job} {_FROZEN}']):.2f}", end="")
    print()
    return 0


def _pauses(ops_port: int) -> dict[str, tuple[float, float]]:
    """Generation → (collections, seconds)."""
    with urllib.request.urlopen(f"http://127.0.0.1:{ops_port}/metrics", timeout=10) as page:
        families = text_string_to_metric_families(page.read().decode())
        samples = [sample for family in families if family.name == "orders_gc_pause_seconds" for sample in family.samples]
    found = {(sample.name.rpartition("_")[2], sample.labels["generation"]): sample.value for sample in samples if "le" not in sample.labels}
    return {generation: (found.get(("count", generation), 0.0), found.get(("sum", generation), 0.0)) for generation in _GENERATIONS}


def _resident_mib(rig: Rig, name: str) -> float:
    pages = int(Path(f"/proc/{rig.pid(name)}/statm").read_text().split()[1])
    return pages * 4096 / 2**20


if __name__ == "__main__":
    sys.exit(main())
