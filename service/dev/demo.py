"""`plumbline demo`: the promises, kept before your eyes, on the running stack or on one of its own.

One scene a promise: what is typed, what came back, PASS or FAIL. Answers 0 if all held, 1 if one did not,
2 if there is nothing to play on. Test: `tests/stories/test_the_demo_holds.py`.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from service.dev.children import StackError
from service.dev.postgres import EmbeddedPostgres
from service.dev.scenes import SCENES, Scene
from service.dev.stack import running_stack
from service.dev.stage import Broken, Stage
from service.dev.state import Lock, read_stack

_START_TIMEOUT_S = 600.0  # the first use of a real Kafka downloads it


def run_demo(home: Path, http_port: int, numbers: Sequence[int] = ()) -> int:
    """Play all scenes, or those of `numbers` (from 1). Answers the exit code."""
    unknown = [number for number in numbers if not 1 <= number <= len(SCENES)]
    if unknown:
        return _complain(f"there is no scene {unknown[0]}: they are 1 to {len(SCENES)}")
    chosen = [(number, SCENES[number - 1]) for number in numbers or range(1, len(SCENES) + 1)]
    try:
        with _stack(home.absolute(), http_port) as found, Stage(found) as stage:
            return _play_all(stage, chosen)
    except StackError as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        return _complain("stopped before the end")


def _play_all(stage: Stage, chosen: Sequence[tuple[int, Scene]]) -> int:
    begin, failed = time.monotonic(), []
    for number, scene in chosen:
        if not _play(stage, number, scene):
            failed.append(number)
    held = len(chosen) - len(failed)
    print(f"\n{held} of {len(chosen)} promises held, in {time.monotonic() - begin:.0f} s", flush=True)
    if failed:
        print(f"failed: scene {', '.join(map(str, failed))}; the logs are in {stage.home}/logs, `plumbline doctor` may know why", flush=True)
    return 1 if failed else 0


def _play(stage: Stage, number: int, scene: Scene) -> bool:
    print(f"\n{_styled(f'{number}. {scene.title}', '1')}\n   {scene.promise}", flush=True)
    begin = time.monotonic()
    try:
        scene.play(stage)
    except (Broken, httpx.HTTPError, OSError) as error:
        print(f"   {_styled('FAIL', '1;31')} {error or type(error).__name__}", flush=True)
        return False
    print(f"   {_styled('PASS', '1;32')} in {time.monotonic() - begin:.1f} s", flush=True)
    return True


@contextmanager
def _stack(home: Path, http_port: int) -> Iterator[Path]:
    """The state folder of the running stack, or of one started for this demo only."""
    if Lock(home).holder() is not None:
        roles = {process["role"] for process in read_stack(home)["processes"]}
        if "api" not in roles:
            raise StackError("the running stack has no API (`--only deps`): stop it with `plumbline down`, or start all with `plumbline up`")
        print(f"playing on the stack of {home}", flush=True)
        yield home
        return
    print("no stack is running: starting one for this demo, about ten seconds …", flush=True)
    with tempfile.TemporaryDirectory(prefix="plumbline-demo-", ignore_cleanup_errors=True) as folder:
        own = Path(folder)
        try:
            with running_stack(own, http_port, timeout_s=_START_TIMEOUT_S):
                yield own
        finally:
            EmbeddedPostgres(own, 0).wipe()  # as root its data is elsewhere


def _styled(text: str, code: str) -> str:
    return f"\033[{code}m{text}\033[0m" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else text


def _complain(sentence: str) -> int:
    print(f"plumbline: {sentence}", file=sys.stderr, flush=True)
    return 2
