"""`python -m bench.overhead`: CPU of a create and of a cached read with telemetry on against all of it off, side by side.

On: access log, metrics, spans sampled at 10 % and exported. Off: no line, no span, metrics replaced by nothing
(`bench/quiet.py`). The arms between show what each part costs. Interleaved rounds on one core; a ratio is the median of
per-round ratios. Exit 0 when a create costs at most 35 % more, 1 when more, 2 when it cannot run here.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from bench import arms as arm_table
from bench.errors import BenchError
from bench.loadgen import compile_generator
from bench.progress import teller
from bench.rounds import ratio, run_rounds
from bench.servers import Rig, await_ready, running_rig, start
from service.dev.children import StackError

AT_MOST: Final = 1.35
_ROUNDS, _SECONDS = 16, 0.3
_SILENT: Final = {"APP_TELEMETRY_LOG_LEVEL": "error", "APP_TELEMETRY_OTLP_URL": "", "APP_TELEMETRY_SAMPLE_RATIO": "0"}
# Room for a machine that is busy with other things: what costs CPU is asked here, not what runs into its time-out.
PATIENT: Final = {
    "APP_DB_QUEUE_TIMEOUT_MS": "10000",
    "APP_DB_COMMAND_TIMEOUT_MS": "20000",
    "APP_HTTP_WRITE_DEADLINE_MS": "30000",
    "APP_HTTP_READ_DEADLINE_MS": "30000",
    "APP_REDIS_TIMEOUT_MS": "5000",
}
# Name → (module, settings): what is on.
_VARIANTS: Final[dict[str, tuple[str, dict[str, str]]]] = {
    "on": ("service", {}),
    "off": ("bench.quiet", _SILENT),
    "metrics only": ("service", _SILENT),
    "all spans": ("service", {"APP_TELEMETRY_SAMPLE_RATIO": "1"}),
}
_ROWS: Final = (("create", "create_all_on"), ("cached read", "get_cached_all_on"))


def start_variants(rig: Rig, variants: Mapping[str, tuple[str, Mapping[str, str]]]) -> dict[str, int]:
    """Start an API process for each name → (module, settings); answers name → port."""
    ports = {}
    for number, (name, (module, env)) in enumerate(variants.items()):
        port = rig.base_port + 105 + number
        start(rig, name, module, "serve", env={**PATIENT, **env, "HTTP_PORT": str(port), "OPS_PORT": str(port + 1000)}, core=rig.server_core)
        await_ready(rig, name, port + 1000)
        ports[name] = port
    return ports


def main() -> int:
    """Measure and print the table."""
    say = teller()

    try:
        program = compile_generator()
        with running_rig() as rig:
            table = {arm.name: arm for arm in arm_table.prepare(rig)}
            missing = arm_table.missing_features(rig)
            if missing:
                raise BenchError(f"not everything is on: {', '.join(missing)}")
            ports = start_variants(rig, _VARIANTS)
            chosen = [
                replace(table[arm], name=f"{arm} {name}", process=name, port=port, label=f"{label}, {name}")
                for name, port in ports.items()
                for label, arm in _ROWS
            ]
            series = run_rounds(rig, program, chosen, rounds=_ROUNDS, seconds=_SECONDS, say=say)
    except (BenchError, StackError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    print("\n| CPU of the API against everything off | metrics only | everything on, 10 % sampled | everything on, all sampled |\n|---|---|---|---|")
    for label, arm in _ROWS:
        off = series[f"{arm} off"]
        cells = " | ".join(f"{ratio(series[f'{arm} {name}'], off):.2f}" for name in ("metrics only", "on", "all spans"))
        print(f"| {label}: {off.median('server_us'):.0f} µs off | {cells} |")
    return 0 if ratio(series["create_all_on on"], series["create_all_on off"]) <= AT_MOST else 1


if __name__ == "__main__":
    sys.exit(main())
