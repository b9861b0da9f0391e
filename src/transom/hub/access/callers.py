"""Who sent a request: made by `hub.api.door` when it comes in, read wherever it is handled.

Names of callers begin with where they come from: `key:NAME` for a HubKey, the prefix of an issuer for its
people. Only the administrator's key has none, so nobody else can be called that.
Next on the data's way: `rights` decides what a caller may do.
"""

from collections.abc import Awaitable, Callable

import msgspec
from starlette.requests import Request

from transom.hub.changes import Actor
from transom.model.kinds import PEOPLE
from transom.runtime.http import Scope

ADMINISTRATOR = "administrator"
"""Who shows the key in the hub's folder."""
OPERATORS = "transom:operators"
"""The group of the administrator's key: it may do everything, whatever bindings say."""
AUTHENTICATED = "system:authenticated"
"""The group of everyone who was let in."""
KEY_PREFIX = "key:"

RESERVED = (KEY_PREFIX, "transom:", "system:")
"""How no name of an issuer may begin."""

_CALLER = "transom.caller"
_FRESH = "transom.fresh"
_AGAIN = "transom.again"

Telling = Callable[[Scope], Awaitable[None]]
"""What remembers anew who sent a request, or raises `UnauthorizedError`: it is nobody any more."""


class Caller(msgspec.Struct, frozen=True):
    """A person or program that may ask: its name, its groups, the address its request came from."""

    name: str
    groups: tuple[str, ...] = ()
    source: str = ""


def administrator(source: str) -> Caller:
    """Whoever shows the administrator's key."""
    return Caller(ADMINISTRATOR, (OPERATORS, AUTHENTICATED), source)


def remember(scope: Scope, caller: Caller, again: Telling, *, fresh: bool) -> None:
    """Keep for the rest of this request who sent it, whether what is known of rights is as new as it, and
    how to tell that `again`.
    """
    scope[_CALLER] = caller
    scope[_FRESH] = fresh
    scope[_AGAIN] = again


async def tell_again(scope: Scope) -> None:
    """Remember who sent a request as far as is known now, for what goes on for long. Raises
    `UnauthorizedError` when that is nobody any more, and `UnreachableError` when it cannot be told.
    """
    await scope[_AGAIN](scope)


def caller_of(request: Request) -> Caller:
    """Who sent `request`."""
    return request.scope[_CALLER]


def is_fresh(scope: Scope) -> bool:
    """Whether rights are known as they were when the request came, or later."""
    return scope[_FRESH]


def actor_of(request: Request) -> Actor:
    """Who sent `request`, as writers are remembered in the history."""
    caller = caller_of(request)
    return Actor(PEOPLE, caller.name, caller.source)
