"""The same create and the same read, written the way people write them: what the service's costs are to be judged beside.

Each peer is one file that a reader of its framework's documentation would call usual: no trick, no handicap. The three
with everything verify a token, ask Redis for the quota, write a log line, count and trace; the two bare ones do none of
it and run the floor's one statement. All use the service's tables on its own PostgreSQL, one process, one core.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Peer:
    """`everything`: token, quota, log, metrics and traces are on."""

    name: str
    label: str
    everything: bool


PEERS: Final = (
    Peer("usual", "FastAPI, async ORM session, BaseHTTPMiddleware", everything=True),
    Peer("template", "full-stack template: FastAPI, SQLModel, sync routes", everything=True),
    Peer("ninja", "Django Ninja, Django ORM", everything=True),
    Peer("lite", "Litestar, bare: asyncpg pool, one statement", everything=False),
    Peer("sheep", "BlackSheep, bare: asyncpg pool, one statement", everything=False),
)
# What `steps.py` serves, one part more each time.
STEPS: Final = (
    "FastAPI, an answer that is there already, through its response model",
    "and the token, verified",
    "and the quota, asked of Redis",
    "and the order and its lines, read by asyncpg",
    "by a session of SQLAlchemy Core instead",
    "by an ORM session instead",
    "and three BaseHTTPMiddleware: trace, count, log",
)
