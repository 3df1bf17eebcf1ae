"""The open model in locust: one dispatcher greenlet a process starts actions at their due moments, in a bounded pool.

Arrivals do not wait for answers. When no user of the pool is free the arrival is dropped and counted, and the run
becomes invalid: a generator that silently waits turns into a closed model.
"""

from __future__ import annotations

import random
import time
from typing import Any, ClassVar

import gevent
from gevent.pool import Pool
from geventhttpclient.client import HTTPClientPool
from locust import User, task
from locust.exception import StopUser

from loadtests import users
from loadtests.arrivals import Dispatcher, intended_times
from loadtests.crew import Crew
from loadtests.shapes import COURSES, Course

_READY = 16  # users made before the first arrival; more are made as they are needed
_LAST_ANSWERS_S = 15.0


class ArrivalRateUser(User):
    """The dispatcher. One a process does the work; what is asked of it is in `parsed_options`."""

    crew: ClassVar[Crew]
    _busy: ClassVar[bool] = False

    @task
    def dispatch(self) -> None:
        """Run the whole course, wait for the last answers, tell the runner, end."""
        if ArrivalRateUser._busy:
            raise StopUser  # more users than processes: the rate is not theirs to raise
        ArrivalRateUser._busy = True
        try:
            self._run()
        finally:
            ArrivalRateUser._busy = False
        self.environment.runner.send_message("plumbline_done", {"said": self.crew.recorder.drain()})
        raise StopUser

    def _run(self) -> None:
        options = self.environment.parsed_options
        self._stage = _Stage(self.environment, self.crew, mix=options.mix, size=max(1, options.pool // max(1, options.generators)))
        dispatcher = Dispatcher(clock=time.monotonic, sleep=gevent.sleep, start=self._stage.start)
        dispatcher.done = self.crew.recorder.dispatch
        self._stage.dispatcher = dispatcher
        rng = random.Random(f"{options.seed}-{self._index}")
        times = intended_times(course_of(options).shape, part=self._index, parts=max(1, options.generators), poisson=rng if options.poisson else None)
        self.crew.begun_at = time.monotonic()
        print(f"began {self.crew.begun_at:.3f}", flush=True)
        dispatcher.run(times)
        self._stage.wait(_LAST_ANSWERS_S)

    @property
    def _index(self) -> int:
        return max(0, int(getattr(self.environment.runner, "worker_index", 0)))


class _Stage:
    """Users without tasks of their own: each plays one action at a time."""

    dispatcher: Dispatcher

    def __init__(self, environment: Any, crew: Crew, *, mix: str, size: int) -> None:
        self._environment, self._crew = environment, crew
        self._shares = users.MIXES[mix]
        self._idle: dict[str, list[users.Actor]] = {name: [] for name in self._shares}
        self._pool = Pool(size)
        self._rng = random.Random()
        for name in self._shares:
            kind = users.KINDS[name]
            kind.crew, kind.host = crew, environment.host
            kind.client_pool = HTTPClientPool(
                concurrency=size, connection_timeout=kind.connection_timeout, network_timeout=kind.network_timeout
            )  # fmt: skip
            self._idle[name] = [kind(environment) for _ in range(min(_READY, size))]

    def start(self, due: float) -> bool:
        """Begin one action; False when the pool is full."""
        full = self._pool.full()
        self._crew.recorder.arrival(due - self._crew.begun_at, dropped=full)
        if not full:
            name = self._rng.choices(list(self._shares), weights=list(self._shares.values()))[0]
            self._pool.spawn(self._play, name, due)
        return not full

    def _play(self, name: str, due: float) -> None:
        self.dispatcher.note_start(due)
        idle = self._idle[name]
        actor = idle.pop() if idle else users.KINDS[name](self._environment)
        actor.begin(due)
        try:
            actor.act()
        finally:
            self._crew.recorder.dispatch.served += not actor.failed
            idle.append(actor)

    def wait(self, timeout_s: float) -> None:
        """For the answers still under way; who has none by then has failed."""
        self._pool.join(timeout=timeout_s)
        left = len(self._pool)
        if left:
            self._crew.recorder.complain("no answer", f"{left} actions had no answer {timeout_s:g} s after the last arrival")
            self._pool.kill(block=False)


def course_of(options: Any) -> Course:
    """The course that was asked for. Raises `KeyError`, `ValueError`."""
    return COURSES[options.shape](options.rate, options.seconds)
