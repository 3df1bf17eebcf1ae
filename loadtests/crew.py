"""What all users of one generator process share: tokens, customers, the recorder, and when the run began."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

from loadtests.customers import Customer, Wallet, Zipf
from loadtests.recorder import Recorder


@dataclass
class Crew:
    """Made once a process, before the first user."""

    wallet: Wallet
    customers: list[Customer]
    operator: Customer | None = None
    admin: Customer | None = None
    recorder: Recorder = field(default_factory=Recorder)
    begun_at: float = field(default_factory=time.monotonic)
    public_name: str = ""
    host: str = ""
    zipf: Zipf = field(default_factory=lambda: Zipf(50, 1.2))

    @classmethod
    def hire(cls, wallet: Wallet, *, customers: int, seconds: float) -> Crew:
        """With a token each that outlives the run. Raises `TokensError`."""
        people = wallet.customers(customers, seconds)
        return cls(wallet, people, wallet.staff("operator", seconds), wallet.staff("admin", seconds))

    def anybody(self, rng: random.Random) -> Customer:
        """A customer."""
        return rng.choice(self.customers)

    def note(self, name: str, ended: float, *, raw_ms: float, intended_ms: float | None, outcome: str, error: str) -> None:
        """One answer, `ended` on the monotonic clock."""
        self.recorder.request(name, at_s=ended - self.begun_at, raw_ms=raw_ms, intended_ms=intended_ms, outcome=outcome, error=error)
