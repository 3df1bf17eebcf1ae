"""Every error a caller can see, as one tree.

    ServiceError                      slug, status, and what the caller may read
    ├── BadRequest                    400  MalformedRequest InvalidJson InvalidCursor UnknownHost
    │                                      IdempotencyKeyMissing IdempotencyKeyInvalid InvalidPrecondition
    ├── Unauthenticated               401
    ├── Forbidden                     403
    ├── NotFound                      404
    ├── MethodNotAllowed              405
    ├── RequestTimeout                408
    ├── Conflict                      409  IdempotencyInFlight InvalidTransition PriceChanged
    ├── PreconditionFailed            412
    ├── TooLarge UriTooLong           413 414
    ├── UnsupportedMediaType          415
    ├── ValidationFailed              422  IdempotencyKeyReused
    ├── PreconditionRequired          428
    ├── QuotaExceeded                 429
    ├── HeadersTooLarge               431
    └── Unavailable                   503  Overloaded DependencyUnavailable

The slug is the public name: `/problems/<slug>` and a section of `docs/problems.md`
(`tests/budgets/test_docs.py` holds the two together).
Operations raise these; `service/web/problems.py` is the only place that turns them into bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with the input: an RFC 6901 pointer (or parameter name), a code, a sentence."""

    pointer: str
    code: str
    detail: str


class ServiceError(Exception):
    """Base of all: `status` is the HTTP status, `detail` may be shown to anybody."""

    slug: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(
        self,
        detail: str = "",
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})


class BadRequest(ServiceError):
    status = 400


class MalformedRequest(BadRequest):
    slug, title = "malformed-request", "Malformed request"


class InvalidJson(BadRequest):
    slug, title = "invalid-json", "Body is not acceptable JSON"


class InvalidCursor(BadRequest):
    slug, title = "invalid-cursor", "Cursor is not one of ours"


class IdempotencyKeyMissing(BadRequest):
    slug, title = "idempotency-key-missing", "Idempotency-Key header is required"


class IdempotencyKeyInvalid(BadRequest):
    slug, title = "idempotency-key-invalid", "Idempotency-Key header is not usable"


class InvalidPrecondition(BadRequest):
    slug, title = "invalid-precondition", "If-Match header is not usable"


class UnknownHost(BadRequest):
    slug, title = "unknown-host", "Host is not served here"


class Unauthenticated(ServiceError):
    slug, status, title = "unauthenticated", 401, "A valid access token is required"


class Forbidden(ServiceError):
    slug, status, title = "forbidden", 403, "Not allowed"


class NotFound(ServiceError):
    slug, status, title = "not-found", 404, "Not found"


class MethodNotAllowed(ServiceError):
    slug, status, title = "method-not-allowed", 405, "Method not allowed"


class RequestTimeout(ServiceError):
    slug, status, title = "request-timeout", 408, "Request was not received in time"


class Conflict(ServiceError):
    status = 409


class IdempotencyInFlight(Conflict):
    slug, title = "idempotency-in-flight", "The same key is being processed"


class InvalidTransition(Conflict):
    slug, title = "invalid-transition", "Not possible in the current state"


class PriceChanged(Conflict):
    slug, title = "price-changed", "The total is not the expected one"


class PreconditionFailed(ServiceError):
    slug, status, title = "precondition-failed", 412, "The resource has changed"


class TooLarge(ServiceError):
    slug, status, title = "too-large", 413, "Body is too large"


class UriTooLong(ServiceError):
    slug, status, title = "uri-too-long", 414, "URI is too long"


class UnsupportedMediaType(ServiceError):
    slug, status, title = "unsupported-media-type", 415, "Body must be uncompressed application/json"


class ValidationFailed(ServiceError):
    slug, status, title = "validation-failed", 422, "Input is not valid"


class IdempotencyKeyReused(ServiceError):
    slug, status, title = "idempotency-key-reused", 422, "Key was used for another request"


class PreconditionRequired(ServiceError):
    slug, status, title = "precondition-required", 428, "If-Match header is required"


class QuotaExceeded(ServiceError):
    slug, status, title = "quota-exceeded", 429, "Too many requests"


class HeadersTooLarge(ServiceError):
    slug, status, title = "headers-too-large", 431, "Headers are too large"


class Unavailable(ServiceError):
    status = 503


class Overloaded(Unavailable):
    slug, title = "overloaded", "Busy: try again shortly"


class DependencyUnavailable(Unavailable):
    slug, title = "dependency-unavailable", "A dependency is not available: try again shortly"


def problem_types() -> dict[str, type[ServiceError]]:
    """Every public slug with its class, walked from the tree above."""
    found: dict[str, type[ServiceError]] = {}
    waiting: list[type[ServiceError]] = [ServiceError]
    while waiting:
        kind = waiting.pop()
        waiting.extend(kind.__subclasses__())
        if kind is ServiceError or kind.slug != ServiceError.slug:
            found[kind.slug] = kind
    return found
