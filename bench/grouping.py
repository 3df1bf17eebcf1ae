"""`python -m bench.grouping`: creates that commit together against creates one by one, side by side (docs/adr/0022).

The same API, started once for each largest group; as many creates in flight as the ladder has connections. Interleaved
rounds on one core; a ratio is the median of per-round ratios to one by one. Exit 2 when it cannot run here.
"""

from __future__ import annotations

import sys
import urllib.request
from dataclasses import replace
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from bench import arms as arm_table
from bench.errors import BenchError
from bench.loadgen import compile_generator
from bench.overhead import PATIENT, start_variants
from bench.progress import teller
from bench.rounds import CONNECTIONS, ratio, run_rounds
from bench.servers import running_rig
from service.dev.children import StackError

_ROUNDS, _SECONDS = 12, 0.5
_ALONE: Final = "1"
_SIZES: Final = (_ALONE, "4", "16", "32")


def main() -> int:
    """Measure and print the table."""
    say = teller()

    try:
        program = compile_generator()
        with running_rig() as rig:
            create = next(arm for arm in arm_table.prepare(rig) if arm.name == "create_all_on")
            floor = next(arm for arm in arm_table.prepare(rig) if arm.name == "w0")
            ports = start_variants(rig, {size: ("service", {**PATIENT, "APP_ORDERS_GROUP_SIZE": size}) for size in _SIZES})
            arms = [replace(create, name=size, process=size, port=port, label=size) for size, port in ports.items()]
            series = run_rounds(rig, program, [floor, *arms], rounds=_ROUNDS, seconds=_SECONDS, say=say)
            together = {size: _mean_group(port + 1000) for size, port in ports.items()}
    except (BenchError, StackError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    print(f"\n{CONNECTIONS} creates in flight; ratios to one by one, and to the floor w0 (one by one, without any promise)\n")
    print("| at most | committed together | API CPU | PostgreSQL CPU | orders/s | p99 | API CPU ÷ w0 |\n|---|---|---|---|---|---|---|")
    for size in _SIZES:
        fields = ("server_us", "postgres_us", "per_s", "p99_ms")
        cells = " | ".join(f"{ratio(series[size], series[_ALONE], name):.2f}" for name in fields)
        print(f"| {size} | {together[size]:.1f} | {cells} | {ratio(series[size], series['w0']):.2f} |")
    return 0


def _mean_group(ops_port: int) -> float:
    """Callers a transaction, of those that shared one."""
    with urllib.request.urlopen(f"http://127.0.0.1:{ops_port}/metrics", timeout=10) as page:
        families = text_string_to_metric_families(page.read().decode())
        found = {sample.name: sample.value for family in families if family.name == "orders_db_group_size" for sample in family.samples}
    return found["orders_db_group_size_sum"] / max(1.0, found["orders_db_group_size_count"])


if __name__ == "__main__":
    sys.exit(main())
