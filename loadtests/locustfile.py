"""What locust runs: `locust -f loadtests/locustfile.py --home .plumbline` (browser), or with `--headless -u 1`.

Open model (the default): one user a process is the dispatcher, and `--rate` is what counts, not the number of users.
Closed: `--model closed -u N`. At the end the verdict is printed and is the exit code: 0 ok · 1 objective missed ·
2 invalid run · 3 invariant broken (run it with `--exit-code-on-error 0`, or locust's own 1 mixes in).
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import gevent
import locust.stats
from locust import events
from locust.runners import MasterRunner, WorkerRunner

from loadtests import closed_model, generator, users, verdict
from loadtests.customers import TokensError
from loadtests.histogram import three_digits
from loadtests.open_model import ArrivalRateUser
from loadtests.recorder import Recorder

# Locust keeps two digits: 1,049 ms would be shown as 1,000.
locust.stats.bucket_response_time = three_digits  # type: ignore[assignment]  # its declared form rounds to two

total = Recorder()  # of all processes; on a worker it stays empty
finished: list[str] = []
code: int | None = None
began = 0.0


@events.init_command_line_parser.add_listener
def _options(parser: Any) -> None:
    generator.add_options(parser)


@events.init.add_listener
def _prepare(environment: Any, runner: Any, **_: Any) -> None:
    options = environment.parsed_options
    if options.processes:
        options.generators = max(options.generators, options.processes)
    try:
        environment.host = generator.choose_host(environment.host, options)
        crew = generator.hire(options, environment.host)
    except (ValueError, TokensError) as error:
        print(f"plumbline: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    if options.model == "closed":
        environment.user_classes = closed_model.cast(options.mix, crew, think=not options.no_think)
        closed_model.ClosedShape.options = options
        environment.shape_class = closed_model.ClosedShape()
        environment.shape_class.runner = runner
    else:
        environment.user_classes = [ArrivalRateUser]
        ArrivalRateUser.crew = crew
    environment.crew = crew
    runner.register_message("plumbline_done", lambda environment, msg, **_: _one_finished(environment, msg))
    if not isinstance(runner, MasterRunner):
        gevent.spawn(generator.watch_own_cpu, crew.recorder)


@events.test_start.add_listener
def _begin(environment: Any, **_: Any) -> None:
    global code, began
    code, began = None, time.time()
    _hold_to_host(environment)
    finished.clear()
    total.drain()
    total.cpu_share = 0.0
    environment.crew.recorder.drain()
    environment.crew.begun_at = time.monotonic()
    if environment.parsed_options.model == "closed":
        print(f"began {environment.crew.begun_at:.3f}", flush=True)
    if not isinstance(environment.runner, WorkerRunner):
        watched = total if isinstance(environment.runner, MasterRunner) else environment.crew.recorder
        environment.narrator = gevent.spawn(generator.tell_progress, watched, time.monotonic())


def _hold_to_host(environment: Any) -> None:
    """The browser's form can name a host as well: the same rule holds, and one that may not be loaded is not."""
    try:
        environment.host = generator.choose_host(environment.host, environment.parsed_options)
    except ValueError as error:
        environment.host = environment.crew.host
        print(f"plumbline: {error}; {environment.host} is loaded instead", file=sys.stderr, flush=True)


@events.report_to_master.add_listener
def _hand_in(data: dict[str, Any], **_: Any) -> None:
    kinds = [ArrivalRateUser] if hasattr(ArrivalRateUser, "crew") else list(users.KINDS.values())
    crew = next((kind.crew for kind in kinds if hasattr(kind, "crew")), None)
    if crew is not None:
        data["plumbline"] = crew.recorder.drain()


@events.worker_report.add_listener
def _collect(data: dict[str, Any], **_: Any) -> None:
    if "plumbline" in data:
        total.merge(data["plumbline"])


def _one_finished(environment: Any, message: Any) -> None:
    """A dispatcher has run its course; when all have, so has the run."""
    total.merge(message.data["said"])
    finished.append(str(message.node_id))
    if len(finished) >= max(1, environment.parsed_options.generators):
        ended = environment.runner.quit if environment.parsed_options.headless else environment.runner.stop
        gevent.spawn_later(0.1, ended)


@events.test_stop.add_listener
def _judge(environment: Any, **_: Any) -> None:
    global code  # noqa: PLW0603
    if isinstance(environment.runner, WorkerRunner) or code is not None:
        return
    environment.narrator.kill()
    if not isinstance(environment.runner, MasterRunner):
        total.merge(environment.crew.recorder.drain())
    options = environment.parsed_options
    if options.model == "open" and len(finished) < max(1, options.generators):
        print(
            f"plumbline: {len(finished)} of {max(1, options.generators)} generator processes ran their course to the end: it was stopped, "
            "or the machine is too busy for them",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        code = verdict.INVALID
        if options.headless:
            gevent.spawn_later(0.1, environment.runner.quit)
        return
    code = generator.conclude(total, options, since=began)


@events.quitting.add_listener
def _end(environment: Any, **_: Any) -> None:
    if isinstance(environment.runner, WorkerRunner):
        return
    if code is None and getattr(environment, "narrator", None) is not None:
        _judge(environment)
    environment.process_exit_code = 2 if code is None else code
