"""Tokens of OpenID Connect: whether one is good, by an issuer's keys, and whom it names; no I/O.

1. A token's header is not believed: it names a key and an algorithm, and both must be ones that were
   configured or published for this issuer, and fit each other. No algorithm has a shared secret, none is
   "none".
2. Every claim that bounds a token is checked by our clock: who issued it, for whom, from when, until when.

Next on the data's way: `issuers` gets the keys.
RFC 7515 (JWS), 7517 (JWK), 7519 (JWT), 8725 (best current practices); OpenID Connect Core 1.0, 2 and 3.1.3.7.
"""

import base64
import binascii
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeGuard, cast
from urllib.parse import urlsplit

import msgspec
from jwt import PyJWK, PyJWS
from jwt.exceptions import PyJWTError
from pydantic import Field, field_validator

from transom.hub.access.callers import AUTHENTICATED, RESERVED, Caller
from transom.model.errors import UNREADABLE
from transom.model.resources import JsonObject
from transom.runtime.config import Config

SKEW_SECONDS = 30.0
"""How far clocks of issuers may be from ours."""
_NAME_CHARACTERS_MAX = 256
_GROUPS_MAX = 1000
_KEYS_MAX = 64

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
_FITTING = {"RS": ("RSA", None), "PS": ("RSA", None), "Ed": ("OKP", "Ed25519")}
_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}

_jws = PyJWS()


class OidcConfig(Config):
    """An issuer whose tokens are believed, as `[[oidc]]`.

    `issuer` is the address that its tokens name; `audiences` are the names by which they may mean this hub.
    Its keys are found from that address (OpenID Connect Discovery), whose server `trust` (PEM) stands for, or
    are in the file `keys` (a JWK set). `username_claim` says who it is, `groups_claim` which groups; both are
    known here with `prefix` before them. A token must have every one of `required_claims`, with that value.
    """

    issuer: str
    audiences: list[str] = Field(min_length=1)
    prefix: str = "oidc:"
    username_claim: str = "sub"
    groups_claim: str = "groups"
    required_claims: dict[str, str] = Field(default_factory=dict)
    algorithms: list[Algorithm] = Field(default_factory=lambda: ["RS256", "ES256"], min_length=1)
    keys: Path | None = None
    trust: Path | None = None

    @field_validator("issuer")
    @classmethod
    def _is_safe(cls, issuer: str) -> str:
        parts = urlsplit(issuer)
        if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("expected https://HOST[:PORT][/PATH], as the tokens name it")
        return issuer

    @field_validator("prefix")
    @classmethod
    def _is_its_own(cls, prefix: str) -> str:
        if len(prefix) < 2 or not prefix.endswith(":") or prefix.count(":") != 1:  # noqa: PLR2004  # a: at least
            raise ValueError("expected a word and a colon, as 'oidc:'")
        if prefix in RESERVED:
            raise ValueError(f"{prefix!r} is how names of the hub's own begin; choose another")
        return prefix


def check_distinct(issuers: Iterable[OidcConfig]) -> None:
    """Raise `ValueError` when two issuers could give the same name, or are the same."""
    issuers = list(issuers)
    for what in ("issuer", "prefix"):
        named = [getattr(each, what) for each in issuers]
        if len(set(named)) != len(named):
            raise ValueError(f"two of them have the same {what}: one could pass for the other")


class Unverified(NamedTuple):
    """What a token says of itself."""

    algorithm: str
    key_id: str | None
    claims: JsonObject


class _Published(msgspec.Struct):
    keys: list[JsonObject]


class KeySet:
    """The keys of an issuer that can check signatures. Raises `ValueError` for what is no JWK set."""

    def __init__(self, data: bytes) -> None:
        try:
            keys = msgspec.json.decode(data, type=_Published).keys
        except UNREADABLE as error:
            raise ValueError(f"is no JWK set: {error}") from None
        if len(keys) > _KEYS_MAX:
            raise ValueError(f"has over {_KEYS_MAX} keys")
        self._keys = [key for key in keys if _checks(key)]
        self._ready: dict[tuple[int, str], PyJWK] = {}

    def find(self, key_id: str | None, algorithm: str) -> PyJWK | None:
        """The key that a token means; one without a key's name means the only one that fits."""
        found = [
            at
            for at, key in enumerate(self._keys)
            if _fits(key, algorithm) and (key_id is None or key.get("kid") == key_id)
        ]
        if len(found) != 1:
            return None
        place = found[0], algorithm
        if place not in self._ready:
            try:
                self._ready[place] = PyJWK(self._keys[found[0]], algorithm)
            except (PyJWTError, ValueError, TypeError):
                return None
        return self._ready[place]


def _checks(key: JsonObject) -> bool:
    """Whether it is a public key for signatures."""
    return "d" not in key and key.get("use", "sig") == "sig" and "verify" in key.get("key_ops", ["verify"])


def _fits(key: JsonObject, algorithm: str) -> bool:
    kind, curve = _FITTING.get(algorithm[:2], ("EC", _CURVES.get(algorithm)))
    if key.get("kty") != kind or (curve is not None and key.get("crv") != curve):
        return False
    return key.get("alg", algorithm) == algorithm


def unverified(token: bytes) -> Unverified | None:
    """What `token` says, of which nothing is known to be true; None when it is no token."""
    parts = token.split(b".")
    if len(parts) != 3:  # noqa: PLR2004  # header, claims, signature
        return None
    try:
        header, claims = (msgspec.json.decode(_decoded(part), type=dict[str, Any]) for part in parts[:2])
    except (binascii.Error, ValueError, *UNREADABLE):
        return None
    algorithm, key_id = header.get("alg"), header.get("kid")
    # What is said to be critical must be understood (RFC 7515, 4.1.11), and nothing of that kind is.
    if not isinstance(algorithm, str) or not isinstance(key_id, str | None) or "crit" in header:
        return None
    return Unverified(algorithm, key_id, claims)


def is_signed(token: bytes, key: PyJWK, algorithm: str) -> bool:
    """Whether the signature of `token` is that of `key`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a key that is too short is refused by the option
            _jws.decode_complete(
                token, key, algorithms=[algorithm], options={"enforce_minimum_key_length": True}
            )
    except (PyJWTError, ValueError, TypeError):
        return False
    return True


def caller_of_claims(claims: JsonObject, config: OidcConfig, source: str, now: float) -> Caller | None:
    """Whom the claims of a signed token name, at `now` (wall seconds); None when it is not good for this."""
    if not (_is_for_us(claims, config) and _is_now(claims, now)):
        return None
    name, groups = claims.get(config.username_claim), _groups(claims.get(config.groups_claim, []))
    # An address that was not verified is whatever somebody typed.
    if config.username_claim == "email" and claims.get("email_verified", True) is not True:
        return None
    if not _is_name(name) or groups is None:
        return None
    prefixed = (config.prefix + group for group in groups)
    return Caller(f"{config.prefix}{name}", (*prefixed, AUTHENTICATED), source)


def _is_for_us(claims: JsonObject, config: OidcConfig) -> bool:
    audience = claims.get("aud")
    audiences = cast("list[Any]", audience if isinstance(audience, list) else [audience])
    return (
        claims.get("iss") == config.issuer
        and any(each in config.audiences for each in audiences)
        and all(claims.get(claim) == value for claim, value in config.required_claims.items())
    )


def _is_now(claims: JsonObject, now: float) -> bool:
    """Whether the token has begun and not ended. It must say when it ends."""
    times = [claims.get("exp"), claims.get("nbf", now), claims.get("iat", now)]
    if not all(isinstance(each, int | float) and not isinstance(each, bool) for each in times):
        return False
    ends, begins, issued = cast("list[float]", times)
    return ends > now - SKEW_SECONDS and max(begins, issued) <= now + SKEW_SECONDS


def _groups(claim: object) -> list[str] | None:
    """The groups in a claim, which may be one or a list; None when it is something else."""
    listed = cast("list[Any]", claim if isinstance(claim, list) else [claim])
    return listed if len(listed) <= _GROUPS_MAX and all(map(_is_name, listed)) else None


def _is_name(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= _NAME_CHARACTERS_MAX and value.isprintable()


def _decoded(part: bytes) -> bytes:
    """Base64 for addresses without padding (RFC 7515, 2), and nothing else."""
    return base64.b64decode(part + b"=" * (-len(part) % 4), altchars=b"-_", validate=True)
