"""Who the generator is: customers with a token each, what they remember, and which product is bought.

Tokens are signed with the embedded stack's key, or read from a file (`plumbline token --count N`) for a service
elsewhere; one that would expire during the run is refused before it starts. Knows no locust.
"""

from __future__ import annotations

import base64
import json
import random
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

from service.dev.issuer import mint

PRODUCTS: Final = 1_000
_RENEW_BEFORE_S: Final = 600
_REMEMBERED: Final = 20


class TokensError(Exception):
    """There are no usable tokens: one sentence with the cure."""


@dataclass(slots=True)
class Customer:
    """A subject, its token, and its latest orders as (id, ETag)."""

    name: str
    token: str
    expires_at: float
    renewable: bool = True
    orders: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))


class Wallet:
    """The tokens of one run. `home`: a stack's state folder; `issuer`: its URL; or `file`: one token a line."""

    def __init__(self, *, home: Path | None = None, issuer: str = "", file: Path | None = None) -> None:
        self._home, self._issuer = home, issuer
        self._given = _read_tokens(file) if file else []
        if home is None and not self._given:
            raise TokensError("no tokens: name --home of a running stack, or --tokens FILE made with `plumbline token --count N`")

    def customers(self, count: int, seconds: float) -> list[Customer]:
        """So many customers, each with a token that outlives the run. Raises `TokensError`."""
        return self._people("customer", count, seconds)

    def staff(self, role: str, seconds: float) -> Customer | None:
        """One operator or admin; None when the file has none."""
        people = self._people(role, 1, seconds)
        return people[0] if people else None

    def _people(self, role: str, count: int, seconds: float) -> list[Customer]:
        if self._home is not None:
            return [self._signed(f"load-{role}-{number}", role) for number in range(1, count + 1)]
        found = [(token, claims) for token, claims in self._given if claims.get("role") == role][:count]
        if role == "customer" and not found:
            raise TokensError("the token file holds no customer: make it with `plumbline token --role customer --count N`")
        short = min((claims["exp"] - time.time() for _, claims in found), default=seconds)
        if short < seconds:
            raise TokensError(f"a token expires in {max(0, short):.0f} s and the run takes {seconds:.0f} s: make fresh ones (`plumbline token`)")
        return [Customer(claims["sub"], token, claims["exp"], renewable=False) for token, claims in found]

    def _signed(self, name: str, role: str) -> Customer:
        assert self._home is not None
        token = mint(self._home, sub=name, role=role, issuer=self._issuer)
        return Customer(name, token, _claims(token)["exp"])

    def fresh(self, customer: Customer, role: str = "customer") -> str:
        """The customer's token, signed anew when it is about to expire: a soak may outlive a token."""
        if customer.renewable and customer.expires_at - time.time() < _RENEW_BEFORE_S:
            new = self._signed(customer.name, role)
            customer.token, customer.expires_at = new.token, new.expires_at
        return customer.token


def _read_tokens(file: Path) -> list[tuple[str, dict[str, Any]]]:
    try:
        lines = file.read_text().split()
    except OSError as error:
        raise TokensError(f"the token file {file} cannot be read: {error.strerror}") from None
    try:
        return [(token, _claims(token)) for token in lines]
    except (ValueError, IndexError):
        raise TokensError(f"{file} is no list of tokens, one a line: make it with `plumbline token --count N`") from None


def _claims(token: str) -> dict[str, Any]:
    payload = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims


class Zipf:
    """Ranks 1…n, rank k drawn with weight k^-s: a few products are most of the sales."""

    def __init__(self, count: int, exponent: float) -> None:
        self._sums = list(accumulate(rank**-exponent for rank in range(1, count + 1)))

    def draw(self, rng: random.Random) -> int:
        """A rank."""
        return min(len(self._sums), bisect_left(self._sums, rng.random() * self._sums[-1]) + 1)


def sku(number: int) -> str:
    """`SKU-0003`; SKU-0002 is left alone, it has only 100 pieces."""
    return f"SKU-{number:04d}"


def any_sku(rng: random.Random) -> str:
    """Any product with plenty of stock, evenly."""
    number = rng.randint(2, PRODUCTS)
    return sku(1 if number == 2 else number)


def traceparent(rng: random.Random, sampled: float = 0.1) -> str:
    """W3C trace context; as much is sampled as without a tracing client, so that tracing costs what it costs."""
    return f"00-{rng.getrandbits(128) | 1:032x}-{rng.getrandbits(64) | 1:016x}-{'01' if rng.random() < sampled else '00'}"


def basket(rng: random.Random, skus: Sequence[str]) -> dict[str, Any]:
    """The body of POST /v1/orders."""
    return {"lines": [{"sku": name, "quantity": rng.randint(1, 3)} for name in skus], "currency": "EUR"}
