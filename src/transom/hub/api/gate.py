"""What callers may do: every verb is decided on here before it touches the store.

A missing right is told in Kubernetes' words, 403. Whoever has nothing to do with a tenant is answered as if
it were not there, nor anything in it: 404, the same to the byte, decided without a look at the store. What a
binding gives must be had by whoever writes it; that is decided inside the store's transaction (`guarded`),
where it is known what a patch comes to.
Next on the data's way: `resources`.
"""

import msgspec
from starlette.requests import Request

from transom.catalog.hub_key.kind import HUB_KEY
from transom.hub.access.callers import Caller, caller_of, is_fresh, tell_again
from transom.hub.access.rights import HUB, Decision, Rights
from transom.hub.access.roles import is_tenant
from transom.hub.access.rules import Asked, Rule, uncovered
from transom.hub.access.table import BINDINGS, AccessTable
from transom.hub.api.paths import Target
from transom.hub.changes import Held, Wanted
from transom.model.errors import ForbiddenError, NotFoundError, UnreachableError
from transom.model.kinds import Kind
from transom.model.names import Key
from transom.model.resources import to_json
from transom.runtime.http import Scope

_GATE = "transom.gate"
_NAMED = {"GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete", "POST": "create"}
_LISTED = {"GET": "list", "POST": "create", "DELETE": "deletecollection"}
_TRUE = ("true", "1")
_NAME_FIELD = "metadata.name"
_LACKING_TOLD = 5


class Gate:
    """Decides by the table. One for each app."""

    def __init__(self, table: AccessTable) -> None:
        self._table = table

    @property
    def rights(self) -> Rights:
        """Who may do what."""
        return self._table.rights

    def check(self, request: Request, target: Target, subresource: str = "") -> None:
        """Raise unless the caller may do what `request` asks of `target`.

        `ForbiddenError`, `NotFoundError` (of a tenant that the caller has nothing to do with), or
        `UnreachableError` when it cannot be told.
        """
        self.check_wish(request, asked_of(request, target, subresource), target.key)

    def check_wish(self, request: Request, asked: Asked, key: Key | None = None) -> None:
        """Raise unless the caller may do what is `asked`, of `key` if that is one resource; see `check`."""
        request.scope[_GATE] = self, asked
        require_fresh(request.scope)
        caller = caller_of(request)
        decision = self.rights.decide(caller, asked)
        if decision is Decision.HIDDEN:
            raise hidden(asked, key)
        if decision is Decision.FORBIDDEN:
            raise ForbiddenError(refusal(caller, asked))

    async def catch_up(self) -> None:
        """Have the rights of everybody as new as now; an operator's own are not looked up. Raises
        `UnreachableError`.
        """
        if not await self._table.fresh():
            raise UnreachableError("the hub's store does not answer, so rights cannot be told; ask again")

    def check_path(self, scope: Scope, caller: Caller) -> None:
        """Raise unless the caller may ask for a path that is no resource. As with `check`."""
        asked = Asked(scope["method"].lower(), path=scope["path"])
        if self.rights.decide(caller, asked) is not Decision.ALLOWED:
            require_fresh(scope)
            raise ForbiddenError(f'forbidden: User "{caller.name}" cannot {asked.verb} path "{asked.path}"')

    def granting(self, caller: Caller, key: Key, wanted: Wanted) -> Wanted:
        """`wanted`, raising `ForbiddenError` when it would give what the caller does not have."""
        if key.kind in BINDINGS:
            held = tuple(self.rights.held(caller, key.namespace))
            return _granting(self.rights, held, caller, key, wanted)
        if key.kind == HUB_KEY.name:
            lacking = [
                part
                for tenant, rules in self.rights.bound_to_key(key.name)
                for part in self.rights.lacking(caller, tenant, rules)
            ]
            return _making(caller, key, lacking, wanted)
        return wanted


def require_fresh(scope: Scope) -> None:
    """Raise `UnreachableError` when rights may have changed since they were known here."""
    if not is_fresh(scope):
        raise UnreachableError("the hub's store does not answer: nothing can be read or written; ask again")


async def check_again(request: Request) -> None:
    """Raise unless whoever sent `request`, which `Gate.check` let through, may still do what it asks.

    As `Gate.check`, and `UnauthorizedError` when the key or token is not good any more.
    """
    gate, asked = request.scope[_GATE]
    await tell_again(request.scope)
    gate.check_wish(request, asked)


def guarded(request: Request, key: Key, wanted: Wanted) -> Wanted:
    """`wanted`, checked where it is known what it comes to, for a request that `Gate.check` let through.

    It raises `ForbiddenError` when it would give rights the caller does not have, and, when it would create
    what was not there, unless the caller may create.
    """
    gate, asked = request.scope[_GATE]
    caller = caller_of(request)
    wanted = gate.granting(caller, key, wanted)
    creating = asked._replace(verb="create", subresource="", name="")
    if asked.verb == "create" or gate.rights.decide(caller, creating) is Decision.ALLOWED:
        return wanted

    def unless_new(held: Held) -> Held:
        after = wanted(held)
        if held is None and after is not None:
            raise ForbiddenError(refusal(caller, creating))
        return after

    return unless_new


def require_creating(request: Request, kind: Kind, key: Key) -> None:
    """Raise `ForbiddenError` unless the caller may create `key`, which comes along with what was asked."""
    gate, _ = request.scope[_GATE]
    caller = caller_of(request)
    tenant = key.name if is_tenant(kind) else key.namespace
    asked = Asked("create", kind.group, kind.plural, "", tenant, key.name)
    if gate.rights.decide(caller, asked) is not Decision.ALLOWED:
        raise ForbiddenError(refusal(caller, asked))


def asked_of(request: Request, target: Target, subresource: str) -> Asked:
    """What `request` asks, in the words of rules."""
    kind, name = target.kind, target.name
    verbs = _NAMED if name else _LISTED
    verb = verbs["GET" if request.method == "HEAD" else request.method]
    if verb == "list":
        if request.query_params.get("watch", "").lower() in _TRUE:
            verb = "watch"
        name = _selected_name(request.query_params.get("fieldSelector", ""))
    tenant = name if is_tenant(kind) else target.namespace
    return Asked(verb, kind.group, kind.plural, subresource, tenant, name)


def hidden(asked: Asked, key: Key | None) -> NotFoundError:
    """What is said of a tenant that the caller has nothing to do with, and of all that is in it."""
    if key is not None and key.name:
        return NotFoundError(f"{key} does not exist")
    return NotFoundError(f'namespaces "{asked.tenant}" not found')


def refusal(caller: Caller, asked: Asked) -> str:
    """That a right is missing, as Kubernetes says it."""
    qualified = f"{asked.resource}.{asked.group}" if asked.group else asked.resource
    named = f'{qualified} "{asked.name}"' if asked.name else qualified
    resource = f"{asked.resource}/{asked.subresource}" if asked.subresource else asked.resource
    where = "at the cluster scope" if asked.tenant == HUB else f'in the namespace "{asked.tenant}"'
    return (
        f'{named} is forbidden: User "{caller.name}" cannot {asked.verb} resource "{resource}" '
        f'in API group "{asked.group}" {where}'
    )


def _granting(rights: Rights, held: tuple[Rule, ...], caller: Caller, key: Key, wanted: Wanted) -> Wanted:
    def granting(before: Held) -> Held:
        after = wanted(before)
        if after is None or (before is not None and before.spec == after.spec):
            return after
        try:
            lacking = uncovered(held, rights.rules_of(after.spec))
        except (msgspec.ValidationError, TypeError, AttributeError):
            return after  # refused for its shape, with every mistake
        if lacking:
            raise ForbiddenError(_beyond(caller, key, lacking))
        return after

    return granting


def _making(caller: Caller, key: Key, lacking: list[Asked], wanted: Wanted) -> Wanted:
    def making(before: Held) -> Held:
        after = wanted(before)
        if before is None and after is not None and lacking:
            raise ForbiddenError(_beyond(caller, key, lacking))
        return after

    return making


def _beyond(caller: Caller, key: Key, lacking: list[Asked]) -> str:
    parts = [
        {word: value for word, value in part._asdict().items() if value} for part in lacking[:_LACKING_TOLD]
    ]
    more = f" and {len(lacking) - _LACKING_TOLD} more" if len(lacking) > _LACKING_TOLD else ""
    return (
        f'{key} is forbidden: user "{caller.name}" is attempting to grant permissions not currently held: '
        f"{to_json(parts).decode()}{more}"
    )


def _selected_name(fields: str) -> str:
    """The one name that a field selector leaves, if it does; rules of names hold for it then."""
    if "\\" in fields:  # a comma may be part of a value
        return ""
    for part in fields.split(","):
        field, equals, value = part.replace("==", "=", 1).partition("=")
        if equals and field.strip() == _NAME_FIELD and not field.endswith("!"):
            return value.strip()
    return ""
