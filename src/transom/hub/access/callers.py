"""Who sent a request: made by `hub.api.door` when it comes in, read wherever it is handled."""

import msgspec
from starlette.requests import Request

from transom.hub.changes import Actor
from transom.model.kinds import PEOPLE
from transom.runtime.http import Scope

_CALLER = "transom.caller"


class Caller(msgspec.Struct, frozen=True):
    """A person or program that may ask: its name, its groups, the address its request came from."""

    name: str
    groups: tuple[str, ...] = ()
    source: str = ""


def remember(scope: Scope, caller: Caller) -> None:
    """Keep for the rest of this request who sent it."""
    scope[_CALLER] = caller


def caller_of(request: Request) -> Caller:
    """Who sent `request`."""
    return request.scope[_CALLER]


def actor_of(request: Request) -> Actor:
    """Who sent `request`, as writers are remembered in the history."""
    caller = caller_of(request)
    return Actor(PEOPLE, caller.name, caller.source)
