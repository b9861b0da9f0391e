"""What a region needs to know to answer a request alone, and what a key may do.

The values of the contexts that a gateway decides on. The hub makes them (`catalog/*/context.py`), a gateway
reads them (`region.gateway`); neither imports the other, so they stand here. A blank is never good news: what
takes rights away or bounds them has no default, so that a value from which it was lost is refused and the
last good one stays.
"""

import re
from collections.abc import Collection
from typing import Annotated

import msgspec
from msgspec import Meta

from transom.model.names import SUBDOMAIN_CHARACTERS_MAX

SCOPES_MAX = 64
EVERYTHING = "*"
READING = frozenset({"GET", "HEAD", "OPTIONS"})
"""The methods that a scope ending in `:read` is good for: those that change nothing (RFC 9110, 9.2.1)."""

SCOPE_RULE = "must be '*', 'app:*' or 'app:NAME', each with ':read' behind it for reading alone"
_SCOPE = re.compile(r"(?:\*|app:(?:\*|[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?))(?::read)?")

Name = Annotated[str, Meta(min_length=1, max_length=SUBDOMAIN_CHARACTERS_MAX)]
Positive = Annotated[float, Meta(gt=0)]
Scope = Annotated[str, Meta(pattern=rf"^{_SCOPE.pattern}\Z", max_length=80)]


class TenantValue(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """A tenant: whether it is served at all, how old what a region knows may be, its requests a second."""

    name: Name
    suspended: bool
    max_stale_seconds: Positive | None = None
    requests_per_second: Positive | None = None


class ApiKeyValue(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """A key, found by its hash: whose it is, what it may do, until when (seconds since 1970; None: always).

    What its tenant says is written into it, so that one look-up decides and the order in which two contexts
    arrive does not matter.
    """

    name: Name
    tenant: Name
    scopes: Annotated[tuple[Scope, ...], Meta(min_length=1, max_length=SCOPES_MAX)]
    expires_at: float | None
    revoked: bool
    suspended: bool
    virtual_cluster: Name | None = None
    requests_per_second: Positive | None = None
    tenant_requests_per_second: Positive | None = None
    max_stale_seconds: Positive | None = None


class RouteValue(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A tenant has an app in this region. Where it listens, the region itself knows."""

    tenant: Name
    app: Name


def is_scope(text: str) -> bool:
    """Whether `text` is a scope: see `SCOPE_RULE`."""
    return _SCOPE.fullmatch(text) is not None


def allows(scopes: Collection[str], app: str, method: str) -> bool:
    """Whether one of `scopes` allows `method` on `app`; with an empty `app`, on no app in particular.

    `*` allows everything, `app:*` everything on any app; `app:NAME` says nothing about requests that are for
    no app. With ":read" behind it, a scope is for the methods in `READING` alone.
    """
    if EVERYTHING in scopes:
        return True
    reading = method in READING
    if reading and f"{EVERYTHING}:read" in scopes:
        return True
    # A colon would let a client name an app that reads like a scope.
    if not app or ":" in app:
        return False
    if f"app:{app}" in scopes or "app:*" in scopes:
        return True
    return reading and (f"app:{app}:read" in scopes or "app:*:read" in scopes)
