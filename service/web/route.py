"""A route that runs the gates in their order before the endpoint, and validates bytes once.

    token → scope → key header → body (deadline, cap) → strict JSON
    → model (a failure is held) → principal bucket + cache peeks (one Redis pipeline) → slot → endpoint

FastAPI still reads the signature for OpenAPI; only its request handling is replaced, because with
`Depends(auth)` a stranger's body is read in full and malformed JSON answers 422 before 401.
A route without a policy does not start: deny by default.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar, get_type_hints

from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.answers import KeyedRequest, fingerprint
from service.errors import DependencyUnavailable, FieldError, ServiceError, Unauthenticated, ValidationFailed
from service.foundation import failpoints
from service.foundation.cache import Ref
from service.foundation.deadline import within
from service.web.admission import Lane
from service.web.auth import Caller
from service.web.body import parse_json, read_body
from service.web.call import Call
from service.web.exchange import Exchange
from service.web.idempotency import read_key
from service.web.problems import field_errors, problem_examples, problem_response

PeekAt = Callable[[Mapping[str, Any]], Sequence[Ref]]
Endpoint = TypeVar("Endpoint", bound=Callable[..., Awaitable[Response]])
_WRITES: Final = frozenset({"POST", "PATCH"})
_ALWAYS: Final = (
    "malformed-request", "unknown-host", "unauthenticated", "forbidden", "uri-too-long", "headers-too-large",
    "quota-exceeded", "overloaded", "dependency-unavailable", "internal",
)  # fmt: skip
_WITH_BODY: Final = ("invalid-json", "request-timeout", "too-large", "unsupported-media-type", "validation-failed")
_WITH_KEY: Final = ("idempotency-key-missing", "idempotency-key-invalid", "idempotency-in-flight", "idempotency-key-reused")
_WITH_MATCH: Final = ("invalid-precondition", "precondition-failed", "precondition-required")
_PATH_NAME: Final = re.compile(r"{(\w+)}")
_KEY_HEADER: Final = {
    "name": "Idempotency-Key", "in": "header", "required": True, "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    "description": "A fresh UUID for a new intent; the same one for every retry of it.",
}  # fmt: skip
_MATCH_HEADER: Final = {
    "name": "If-Match", "in": "header", "required": True, "schema": {"type": "string"},
    "description": "The strong ETag you last saw.",
}  # fmt: skip


def _peek_at_nothing(_arguments: Mapping[str, Any]) -> Sequence[Ref]:
    return ()


@dataclass(frozen=True, slots=True)
class Policy:
    """Who may call a route, what a call costs, which lane it takes, and what it needs besides.

    `peeks` names the cached objects a call will read, from its arguments: they travel with the limiter's charge.
    """

    scope: str
    cost: int
    lane: Lane
    keyed: bool
    if_match: bool
    problems: tuple[str, ...]
    peeks: PeekAt


def policy(
    scope: str,
    *,
    cost: int = 1,
    lane: Lane = "normal",
    keyed: bool = False,
    if_match: bool = False,
    problems: tuple[str, ...] = (),
    peeks: PeekAt = _peek_at_nothing,
) -> Callable[[Endpoint], Endpoint]:
    """Declare an endpoint's policy; every route must have one."""

    def declare(endpoint: Endpoint) -> Endpoint:
        endpoint.__policy__ = Policy(scope, cost, lane, keyed, if_match, problems, peeks)  # type: ignore[attr-defined]
        return endpoint

    return declare


class GatedRoute(APIRoute):
    """Use as `APIRouter(route_class=GatedRoute)`."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        declared = getattr(endpoint, "__policy__", None)
        if declared is None:
            raise TypeError(f"{endpoint.__qualname__} has no policy: add @policy(scope) below the route decorator")
        self.policy: Policy = declared
        self._read_signature(endpoint, path)
        options["responses"] = {**(options.get("responses") or {}), **problem_examples(*self._problem_slugs())}
        options["openapi_extra"] = {"parameters": self._header_parameters(), "security": [{"bearer": []}], "x-scope": declared.scope}
        super().__init__(path, endpoint, **options)
        # "$" also matches before a last line end: /v1/orders%0A would be another name of /v1/orders.
        self.path_regex = re.compile(self.path_regex.pattern.removesuffix("$") + r"\Z")
        self.app = self.serve

    def _read_signature(self, endpoint: Callable[..., Any], path: str) -> None:
        hints = get_type_hints(endpoint)
        names = [name for name in inspect.signature(endpoint).parameters if name != "call"]
        self._query: type[BaseModel] | None = hints["query"] if "query" in names else None
        self._body: type[BaseModel] | None = hints["body"] if "body" in names else None
        self._has_input = self._query is not None or self._body is not None
        unknown = (set(names) - {"query", "body"}) ^ set(_PATH_NAME.findall(path))
        if unknown:
            raise TypeError(f"{endpoint.__qualname__}: parameters are call, query, body and every path name, not {sorted(unknown)}")

    def _problem_slugs(self) -> tuple[str, ...]:
        return (
            *_ALWAYS,
            *(_WITH_BODY if self._body else ()),
            *(("validation-failed",) if self._query else ()),
            *(_WITH_KEY if self.policy.keyed else ()),
            *(_WITH_MATCH if self.policy.if_match else ()),
            *self.policy.problems,
        )

    def _header_parameters(self) -> list[dict[str, Any]]:
        return [*([_KEY_HEADER] if self.policy.keyed else []), *([_MATCH_HEADER] if self.policy.if_match else [])]

    async def serve(self, scope: Scope, receive: Receive, _send: Send) -> None:
        """ASGI: gates, endpoint, answer. One coroutine: each one around another is made and woken for every request."""
        exchange: Exchange = scope["exchange"]
        call, resources, wanted = Call(exchange), exchange.resources, self.policy
        try:
            presented = exchange.head.all(b"authorization")
            caller = call.caller = resources.authenticator.remembered(presented) or await self._authenticate(call, presented)
            exchange.caller_tag = caller.tag
            caller.require(wanted.scope)
            key = read_key(exchange.head.all(b"idempotency-key")) if wanted.keyed else None
            arguments: dict[str, Any] = {**scope["path_params"]}
            raw, held = await self._read_input(call, receive, arguments) if self._has_input else (None, None)
            # An input that is not valid is charged like any other, but nothing is looked up for it.
            exchange.charged, exchange.peeks = await resources.limiter.charge(caller, wanted.cost, () if held else wanted.peeks(arguments))
            call.peeks = exchange.peeks
            if held is not None:
                raise held
            if key is not None:
                call.keyed = KeyedRequest(caller.subject, key, fingerprint(call.method, scope["path"], caller.subject, raw))
            if not resources.admission.enter_at_once(wanted.lane):
                await resources.admission.enter(wanted.lane)
            try:
                response = await self._run_endpoint(call, arguments)
            finally:
                resources.admission.leave()
        except ServiceError as error:
            response = problem_response(error, request_id=exchange.request_id)
        if not exchange.answer_at_once(response):
            await exchange.answer(response)

    @staticmethod
    async def _authenticate(call: Call, presented: Sequence[bytes]) -> Caller:
        try:
            return await call.resources.authenticator.authenticate(presented)
        except Unauthenticated:
            call.resources.shield.charge(call.scope, failed_token=True)
            raise

    async def _run_endpoint(self, call: Call, arguments: dict[str, Any]) -> Response:
        http = call.resources.settings.http
        deadline_ms = http.write_deadline_ms if call.method in _WRITES else http.read_deadline_ms
        try:
            response: Response = await within(deadline_ms / 1000, self.endpoint(call, **arguments))
        except TimeoutError as error:
            raise DependencyUnavailable("not finished within the deadline") from error
        if failpoints.armed():
            await failpoints.hit("after-commit-before-response")
        return response

    async def _read_input(self, call: Call, receive: Receive, arguments: dict[str, Any]) -> tuple[Any, ValidationFailed | None]:
        """Fill `body` and `query` into the arguments; (the body as parsed, what is wrong with the input)."""
        raw: Any = None
        try:
            if self._body is not None:
                raw, arguments["body"] = await self._read_model(call, receive, self._body)
            if self._query is not None:
                arguments["query"] = _read_query(call, self._query)
        except ValidationFailed as invalid:
            return raw, invalid
        return raw, None

    async def _read_model(self, call: Call, receive: Receive, model: type[BaseModel]) -> tuple[Any, BaseModel]:
        http = call.resources.settings.http
        optional = not model.model_fields
        admission = call.resources.admission
        admission.begin_receiving()
        try:
            body = await read_body(call.exchange.head, receive, http, required=not optional)
        finally:
            admission.end_receiving()
        raw = {} if optional and not body else parse_json(body, max_depth=http.json_depth)
        try:
            return raw, model.model_validate(raw)
        except ValidationError as error:
            raise ValidationFailed(errors=field_errors(error)) from None


def _read_query(call: Call, model: type[BaseModel]) -> BaseModel:
    pairs = call.parameters
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValidationFailed(errors=[FieldError("query", "repeated", "a parameter may appear once")])
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ValidationFailed(errors=field_errors(error, query=True)) from None
