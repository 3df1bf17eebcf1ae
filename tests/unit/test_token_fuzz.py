"""Whatever is in an Authorization header, well signed or not: a caller, or the one 401; never anything else."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import settings as bounded
from hypothesis import strategies as st
from jwt import PyJWK
from jwt.algorithms import ECAlgorithm

from service.errors import Unauthenticated
from service.settings import AuthSettings
from service.web.auth import SCOPES, Authenticator, Caller

_KEY = ec.generate_private_key(ec.SECP256R1())
_JWK = PyJWK(json.loads(ECAlgorithm.to_jwk(_KEY.public_key())) | {"kid": "k"}, algorithm="ES256")
_NOW = int(time.time())
_HEADER: dict[str, Any] = {"alg": "ES256", "typ": "at+jwt", "kid": "k"}
_CLAIMS: dict[str, Any] = {
    "iss": "http://127.0.0.1:8103", "aud": "plumbline", "sub": "s", "role": "customer", "iat": _NOW, "exp": _NOW + 3_600, "jti": "j",
}  # fmt: skip
# Values a JSON reader can hand over: also NaN, huge numbers, lone surrogates and deep things.
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=12)
    | st.sampled_from([_NOW + 9, "admin", "at+jwt", "k", 10**400])
)
_VALUES = st.recursive(_SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3), max_leaves=6)
_CHANGES = st.dictionaries(st.sampled_from([*_CLAIMS, "nbf", "scope", "x"]), _VALUES, max_size=3)
_HEADER_CHANGES = st.dictionaries(st.sampled_from([*_HEADER, "crit", "b64", "zip", "jku", "x"]), _VALUES, max_size=2)


class _Keys:
    loaded = True

    async def find(self, key_id: str) -> PyJWK | None:
        return _JWK if key_id == "k" else None


def _judge(raw: bytes, **settings: Any) -> Caller | None:
    judge = Authenticator(AuthSettings(issuer=_CLAIMS["iss"], audience="plumbline", **settings), _Keys())  # type: ignore[arg-type]
    try:
        return asyncio.run(judge.authenticate([raw]))
    except Unauthenticated:
        return None


def _b64(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def _signed(header: bytes, claims: bytes) -> bytes:
    signed = _b64(header) + b"." + _b64(claims)
    return b"Bearer " + signed + b"." + _b64(ECAlgorithm(ECAlgorithm.SHA256).sign(signed, _KEY))


def _text(part: dict[str, Any]) -> bytes:
    return json.dumps(part).encode("utf-8", "surrogatepass")


def test_the_good_one_is_let_in() -> None:
    assert _judge(_signed(_text(_HEADER), _text(_CLAIMS))) is not None, "otherwise this file shows nothing"


@bounded(max_examples=60)
@given(_HEADER_CHANGES, _CHANGES)
def test_signed_nonsense_is_a_caller_or_401(header: dict[str, Any], claims: dict[str, Any]) -> None:
    caller = _judge(_signed(_text(_HEADER | header), _text(_CLAIMS | claims)))
    if caller is None:
        return
    assert caller.role in SCOPES
    assert caller.scopes <= SCOPES[caller.role]
    assert 1 <= len(caller.subject) <= 255
    full = _CLAIMS | claims
    assert full["iss"] == _CLAIMS["iss"]
    assert full["aud"] == "plumbline" or "plumbline" in full["aud"]
    assert 0 < full["exp"] - full["iat"] <= 3_600


@bounded(max_examples=60)
@given(_VALUES, st.sampled_from(["role", "role[]", "a.b", "a.b[]", "x[]"]), st.sampled_from(["scope", "scope[]", "a.s[]"]))
def test_wherever_the_settings_look_for_a_role(value: Any, role_claim: str, scope_claim: str) -> None:
    claims = _CLAIMS | {"role": value, "a": value, "x": value, "scope": value}
    caller = _judge(_signed(_text(_HEADER), _text(claims)), role_claim=role_claim, scope_claim=scope_claim)
    assert caller is None or caller.scopes <= SCOPES[caller.role]


@bounded(max_examples=60)
@given(st.binary(max_size=60), st.binary(max_size=60))
def test_signed_bytes_are_a_caller_or_401(header: bytes, claims: bytes) -> None:
    assert _judge(_signed(header, claims)) is None


@bounded(max_examples=60)
@given(
    st.lists(
        st.sampled_from([b"Bearer ", b"Bearer", b".", b"=", b"e30", b"eyJhbGciOiJub25lIn0", b"\xff", b"\x00", b" ", b",", b"\r\n"])
        | st.binary(max_size=8)
    )
)
def test_any_header_is_401(parts: list[bytes]) -> None:
    assert _judge(b"".join(parts)) is None


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_changed_byte_is_401(position: int, other: int) -> None:
    good = _signed(_text(_HEADER), _text(_CLAIMS))
    at = len(b"Bearer ") + position % (len(good) - len(b"Bearer "))
    changed = good[:at] + bytes([good[at] ^ other]) + good[at + 1 :]
    caller = _judge(changed)
    # base64 readers ignore what is not of their alphabet, and bits beyond the last byte: the same token, spelt otherwise.
    assert caller is None or caller.role == "customer"
