"""The generator's side of a run: its options, what its processes tell each other, its own health, its part of the verdict.

What only the outside can see (the service's metrics, foreign CPU, invariants) is the driver's (`run.py`); started
by hand, `locust -f loadtests/locustfile.py` asks for the invariants itself when it knows the stack's folder.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections import deque
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import gevent

from loadtests import users, verdict
from loadtests.crew import Crew
from loadtests.customers import Wallet
from loadtests.recorder import Recorder
from loadtests.report import terminal
from loadtests.shapes import COURSES

log = logging.getLogger("plumbline")
ROOT: Final = Path(__file__).resolve().parents[1]
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_CPU_WINDOW_S: Final = 5


def add_options(parser: ArgumentParser) -> None:
    """Ours, beside locust's own; those in the browser's form can be changed between runs."""
    fixed = {"include_in_web_ui": False}
    add: Any = parser.add_argument  # not a group's: only this one knows the browser's form
    add("--model", choices=("open", "closed"), default="open", help="open: --rate arrivals a second; closed: -u users and think time", **fixed)
    add("--shape", choices=tuple(COURSES), default="steady", help="how the rate (or the number of users) moves")
    add("--rate", type=float, default=20.0, help="arrivals a second at the highest")
    add("--seconds", type=float, default=30.0, help="length of the course")
    add("--mix", choices=tuple(users.MIXES), default="shop", help="who comes", **fixed)
    add("--poisson", action="store_true", default=False, help="random gaps between arrivals instead of even ones")
    add("--seed", type=int, default=1, help="of the random gaps")
    add("--pool", type=int, default=400, help="actions under way at once, at most, over all processes", **fixed)
    add("--generators", type=int, default=1, help="processes the rate is divided over (what --processes or the workers make)", **fixed)
    add("--customers", type=int, default=100, help="customers, each with a token of its own", **fixed)
    add("--no-think", action="store_true", default=False, help="closed: ask again at once", **fixed)
    add("--home", default="", help="state folder of a running stack: tokens, address and database come from there", **fixed)
    add("--tokens", default="", help="file with tokens, one a line, for a service elsewhere", **fixed)
    add("--public-name", default="", help="Host header to send, where the address is not the public name", **fixed)
    add("--i-own", action="store_true", default=False, help="allow a host that is not this machine: it is yours, and it knows", **fixed)
    add("--objectives", default="", help="another slo.toml", **fixed)
    add("--out", default="", help="folder for generator.json", **fixed)
    add("--driven", action="store_true", default=False, help="the driver judges: only measure", **fixed)


def choose_host(asked: str | None, options: Any) -> str:
    """The address to load. Raises `ValueError` with the cure."""
    host = asked or (_stack(options)["urls"]["api"] if options.home else "")
    if not host:
        raise ValueError("no target: name --home of a running stack, or --host with --tokens")
    if urlsplit(host).hostname not in LOOPBACK and not options.i_own:
        raise ValueError(f"{host} is not this machine: load only what you own, and say so with --i-own")
    return host


def hire(options: Any, host: str) -> Crew:
    """Customers and staff for that address. Raises `TokensError`."""
    home = Path(options.home) if options.home else None
    issuer = _stack(options)["urls"]["issuer"] if home else ""
    wallet = Wallet(home=home, issuer=issuer, file=Path(options.tokens) if options.tokens else None)
    crew = Crew.hire(wallet, customers=options.customers, seconds=options.seconds + 30)
    crew.public_name, crew.host = options.public_name, host
    return crew


def _stack(options: Any) -> dict[str, Any]:
    try:
        parsed: dict[str, Any] = json.loads((Path(options.home) / "stack.json").read_text())
    except OSError:
        raise ValueError(f"no stack runs from {options.home}: start one with `plumbline up --profile load`") from None
    return parsed


def watch_own_cpu(recorder: Recorder) -> None:
    """For ever: the most this process used of a core over any 5 s. A busy generator measures itself."""
    seen: deque[tuple[float, float]] = deque([(time.monotonic(), time.process_time())], maxlen=_CPU_WINDOW_S + 1)
    while True:
        gevent.sleep(1)
        seen.append((time.monotonic(), time.process_time()))
        wall, spent = seen[-1][0] - seen[0][0], seen[-1][1] - seen[0][1]
        if len(seen) > 2:
            recorder.cpu_share = max(recorder.cpu_share, spent / wall)


def tell_progress(recorder: Recorder, begun: float) -> None:
    """For ever: one line every two seconds."""
    while True:
        gevent.sleep(2)
        rows = recorder.timeline()[-3:-1]
        if rows:
            done = sum(row["done"] for row in rows) / len(rows)
            failed = sum(row["failed"] for row in rows) / len(rows)
            offered = sum(row["offered"] for row in rows) / len(rows)
            worst = max(row["p99_ms"] for row in rows)
            print(
                f"  {time.monotonic() - begun:4.0f} s  offered {offered:6.1f}/s  answered {done:6.1f}/s  failed {failed:5.1f}/s  p99 {worst:7.1f} ms",
                flush=True,
            )


def conclude(recorder: Recorder, options: Any, *, since: float) -> int:
    """Write generator.json; by hand also judge, print, and answer the exit code. `since`: when the run began, as `time.time()`."""
    if options.out:
        Path(options.out).mkdir(parents=True, exist_ok=True)
        (Path(options.out) / "generator.json").write_text(json.dumps(recorder.to_json()))
    if options.driven:
        return verdict.OK
    slo = verdict.load_objectives(Path(options.objectives) if options.objectives else None)
    open_model = options.model == "open"
    checks = verdict.validity(recorder, slo, open_model=open_model) + verdict.objectives(recorder, slo, open_model=open_model)
    checks += _read_back(options, since)
    print(terminal.table(recorder, checks, open_model=open_model), flush=True)
    return verdict.exit_code(checks)


def _read_back(options: Any, since: float) -> list[verdict.Check]:
    """Invariants, asked by a process of its own: asyncio and gevent do not share one."""
    if not options.home:
        print("invariants were not asked: no --home")
        return []
    command = [sys.executable, "-m", "loadtests.readback", options.home, f"{since:.3f}"]
    asked = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=120)
    if asked.returncode:
        return [verdict.Check("validity", "invariants read back", 0, 1, at_least=True, note=asked.stderr.strip()[-200:])]
    answer = json.loads(asked.stdout)
    return verdict.invariants(answer["violations"], answer["asked"])
