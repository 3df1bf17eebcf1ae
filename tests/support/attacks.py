# ruff: noqa: E501 - a table reads better in rows
"""The attack list as a page: docs/attacks.md, written from the tables of the tests that carry the attacks out.

Run `python -m tests.support.attacks` to write it again; `tests/budgets/test_security_pages.py` holds the two together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from service.errors import problem_types
from tests.integration import test_another_issuer as another_issuer
from tests.integration import test_attacks_inside as inside
from tests.integration import test_bad_input as bad_input
from tests.integration import test_bad_values as bad_values
from tests.integration import test_server as server
from tests.integration import test_tokens as tokens

PAGE: Final = Path(__file__).parents[2] / "docs" / "attacks.md"
_HEAD: Final = """# Attacks, and what each is answered

Written by `python -m tests.support.attacks` from the tables of the tests that carry them out, so an attack that is listed is
tried in every run of `make test`. Of each: the stated answer and no other, never a 5xx, the process goes on, and the number of
rows in every table is what it was. More is tried than a list can hold: [fuzzing](#tried-without-a-list) is at the end.

"""
Row = tuple[str, str, str]


def _answer(code: str) -> str:
    return f"{problem_types()[code].status} `{code}`"


def _by_code(codes: Mapping[str, str], test: str) -> list[Row]:
    """One row an answer: all attacks that get it."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, code in codes.items():
        found[_answer(code)].append(name)
    return [(" · ".join(names), answer, test) for answer, names in found.items()]


def _alike(names: Iterable[Any], answer: str, test: str) -> list[Row]:
    return [(" · ".join(map(str, names)), answer, test)]


_INVALID, _REFUSED = _answer("validation-failed"), _answer("unauthenticated")
_TOKENS, _VALUES = "tests/integration/test_tokens.py", "tests/integration/test_bad_values.py"
_INPUT, _RAW = "tests/integration/test_bad_input.py", "tests/integration/test_server.py"
_PARTS: Final[dict[str, list[Row]]] = {
    "JSON": [
        *_alike(bad_input.JSON_BODIES, _answer("invalid-json"), f"{_INPUT}::test_json_that_two_parsers_could_read_differently"),
        *_by_code({name: code for name, (_, code) in bad_input.BODY_HEADERS.items()}, f"{_INPUT}::test_bodies_that_are_not_small_plain_json"),
        *_alike(bad_values.ORDERS, f"{_INVALID}, pointing at the field", f"{_VALUES}::test_orders_that_make_no_sense"),
        *_alike(bad_values.CATALOGUE, f"{_INVALID}, pointing at the field", f"{_VALUES}::test_catalogue_changes_that_make_no_sense"),
        *_alike((text if len(text) < 60 else f"{len(text)} characters" for text in bad_values.INERT), "201, stored as text", f"{_VALUES}::test_text_that_others_would_run_is_text_here"),
    ],
    "Path and query": [
        *_alike(bad_values.BAD_IDS, _answer("not-found"), f"{_VALUES}::test_ids_that_name_nothing"),
        *_alike(bad_values.QUERIES, f"{_INVALID}, naming the parameter", f"{_VALUES}::test_queries_that_make_no_sense"),
    ],
    "HTTP": [
        *_by_code({name: code for name, (_, code) in bad_input.EVERY_ROUTE.items()}, f"{_INPUT}::test_every_route"),
        *_by_code({name: code for name, (_, _, code) in server._ATTACKS.items()}, f"{_RAW}::test_what_no_client_library_sends_gets_a_problem"),
        ("500 half-open connections", "408, or closed; others served", f"{_RAW}::test_half_open_requests_are_closed_and_others_are_served"),
        ("200 MiB of endless bodies, with and without a token", "413 or 401, memory flat, others served",
         f"{_RAW}::test_200_mib_of_endless_bodies_leave_no_memory_behind_and_others_are_served"),
        ("1,000 pipelined requests", "all answered, in order", f"{_RAW}::test_pipelined_requests_are_all_answered_in_order"),
        ("foreign X-Request-Id, X-Forwarded-For, X-Forwarded-Host", "a new id, nothing comes back", f"{_RAW}::test_no_header_of_the_client_comes_back"),
        ("hanging up in the middle", "others served, no slot lost", f"{_RAW}::test_who_hangs_up_in_the_middle_leaves_the_server_as_it_was"),
        ("methods that are none, overridden methods", _answer("method-not-allowed"), f"{_INPUT}::test_methods_and_paths_that_are_none"),
    ],
    "Tokens": [
        *_alike(tokens.HEADERS, _REFUSED, f"{_TOKENS}::test_a_header_that_is_not_ours"),
        *_alike(tokens.CLAIMS, _REFUSED, f"{_TOKENS}::test_claims_that_do_not_hold"),
        *_alike(tokens.SHAPES, _REFUSED, f"{_TOKENS}::test_what_is_no_token_at_all"),
        ("in the query, in a cookie, Basic, two headers", _REFUSED, f"{_TOKENS}::test_where_a_token_may_not_be"),
        ("jku, x5u, jwk, unknown kid", "no call to anybody", f"{_TOKENS}::test_no_token_makes_us_call_somebody"),
        ("1,000 invented key ids", "one fetch in 30 s", "tests/integration/test_jwks.py::test_a_thousand_unknown_ids_cause_one_fetch_a_cooldown"),
        *_alike(another_issuer.REFUSED, _REFUSED, "tests/integration/test_another_issuer.py::test_what_the_settings_do_not_say_is_refused"),
    ],
    "Business": [
        ("every route as every principal; role by header", "[the table](access-matrix.md)", "tests/integration/test_access_matrix.py"),
        *_by_code({name: code for name, (_, code) in bad_input.KEYS.items()}, f"{_INPUT}::test_idempotency_keys"),
        ("another customer's key", "independent", "tests/integration/test_place_order.py::test_keys_of_two_customers_are_independent"),
        ("same key, other body", _answer("idempotency-key-reused"),
         "tests/integration/test_place_order.py::test_another_body_under_the_same_key_is_422_and_writes_nothing"),
        ("1,000 requests over 50 keys", "50 orders", "tests/integration/test_idempotency_storm.py::test_a_thousand_requests_over_50_keys_make_50_orders"),
        ("cancel twice, ship twice, stale, `*`, weak or missing If-Match", "412, 428, 400; once",
         "tests/integration/test_orders_api.py::test_a_step_needs_the_current_etag_and_happens_once"),
        ("cancel what was shipped", _answer("invalid-transition"), "tests/integration/test_orders_api.py::test_only_what_is_paid_can_be_shipped_and_only_by_operators"),
        ("130 buyers for 100 pieces", "100 sold, 30 told", "tests/stories/test_the_last_piece_is_sold_once.py"),
        ("a cursor of somebody else", "shows nothing of theirs", "tests/integration/test_lists.py::test_a_foreign_cursor_shows_nothing_that_is_not_yours"),
    ],
    "From inside": [
        *_alike(inside.GARBAGE, "right answers from PostgreSQL", "tests/integration/test_attacks_inside.py::test_garbage_under_any_key_is_never_believed"),
        *_alike(inside.REPLIES, "sales and reads go on", "tests/integration/test_attacks_inside.py::test_whatever_redis_answers_sales_and_reads_go_on"),
        ("events that are no JSON, of a wrong schema, of a future version, without key or value", "dead letter", "tests/unit/test_envelope.py"),
        ("impossible headers, 10 MB", "dead letter", "tests/integration/test_dead_letter_replay.py::test_impossible_headers_and_sizes_end_as_dead_letters"),
        ("an event about an unknown order", "changes nothing", "tests/integration/test_inventory.py::test_an_event_about_nothing_we_know_changes_nothing"),
        ("replayed, out of order, with gaps", "the same history", "tests/integration/test_timeline.py::test_any_order_any_number_of_times_is_the_same_history"),
    ],
    "Tried without a list": [
        ("requests made from the OpenAPI document, for every role", "what it declares, and nothing else", "tests/integration/test_schemathesis.py"),
        ("signed and unsigned nonsense as a token", f"a caller or {_REFUSED}", "tests/unit/test_token_fuzz.py"),
        ("any bytes as a body", f"one reading or {_answer('invalid-json')}", "tests/unit/test_body.py"),
        ("any text as a cursor", f"ours or {_answer('invalid-cursor')}", "tests/unit/test_paging.py"),
        ("any bytes as a key", f"a key or {_answer('idempotency-key-invalid')}", "tests/unit/test_idempotency_key.py"),
        ("any text as an ETag", f"ours or {_answer('invalid-precondition')}", "tests/unit/test_etags.py"),
    ],
}  # fmt: skip


def _cell(text: str) -> str:
    return (
        text.replace("|", "\\|")
        .replace("<", "&lt;")
        .replace("{", "&#123;")
        .replace("$", "&#36;")
        .replace("\n", "␤")
        .replace("\t", "␉")
        .replace("\u200b", "␣")
    )


def page() -> str:
    """The whole page."""
    parts = []
    for title, rows in _PARTS.items():
        lines = [f"| {_cell(names)} | {answer} | `{test}` |" for names, answer, test in rows]
        parts.append("\n".join([f"## {title}", "", "| attack | answer | test |", "|---|---|---|", *lines]))
    return _HEAD + "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"written: {PAGE.name}")
