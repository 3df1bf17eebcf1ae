"""Who may do what, derived from the routes' own policies: the table of docs/access-matrix.md and what its test expects.

A new route is in both by itself. Run `python -m tests.support.access` to write the page again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from service.app import ROUTERS
from service.web.auth import SCOPES, SEES_ALL
from service.web.route import GatedRoute

PAGE: Final = Path(__file__).parents[2] / "docs" / "access-matrix.md"
STRANGERS: Final = ("no token", "expired", "wrong audience")
PRINCIPALS: Final = (*STRANGERS, "customer", "another customer", *(role for role in SCOPES if role != "customer"))
# Routes below /orders/{order_id} are about one customer's object; lists of orders show the caller's own.
_OWNED: Final = "{order_id}"
_OWN_LIST: Final = "/v1/orders"
_HEAD: Final = """# Who may do what

Each row is a route, each column who asks; `customer` is the one whose order it is. Derived from the routes' policies
(`@policy(…)` beside each route), the roles of `service/web/auth.py` and ownership; written by `python -m tests.support.access`.
`tests/integration/test_access_matrix.py` sends each of these requests and compares; a route or a role that is added is
covered without being listed.

- **yes**: let in. **own**: let in, and sees only what is theirs. **401**, **403**, **404**: refused with that status;
  somebody else's order is the same 404 as a missing one.
- A token can narrow its role with a `scope` claim, never widen it.
- There is no other door: a route without a policy does not start
  (`tests/integration/test_access_matrix.py::test_a_route_without_a_policy_does_not_start`).

"""


def routes() -> Iterator[tuple[str, GatedRoute]]:
    """(method, route) of everything the API serves, in the order of the application."""
    for router in ROUTERS:
        for route in router.routes:
            assert isinstance(route, GatedRoute)
            for method in sorted(route.methods or ()):
                yield method, route


def role_of(principal: str) -> str:
    """The role in the token; `customer` for tokens that are refused."""
    return principal if principal in SCOPES else "customer"


def expected(method: str, route: GatedRoute, principal: str) -> str:
    """`yes`, `own`, or the status of the refusal."""
    if principal in STRANGERS:
        return "401"
    role = role_of(principal)
    if route.policy.scope not in SCOPES[role]:
        return "403"
    if role in SEES_ALL:
        return "yes"
    if _OWNED in route.path:
        return "yes" if principal == "customer" else "404"
    return "own" if (method, route.path) == ("GET", _OWN_LIST) else "yes"


def page() -> str:
    """The whole page."""
    head = ["route", "scope", *PRINCIPALS]
    rows = [[f"`{m} {r.path}`", f"`{r.policy.scope}`", *(expected(m, r, p) for p in PRINCIPALS)] for m, r in routes()]
    lines = [head, ["---"] * len(head), *rows]
    return _HEAD + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"written: {PAGE.name}")
