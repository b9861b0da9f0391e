"""A tenant does not leave a region in which something of its own is: asked before a Tenant is written.

It is asked just before the transaction and not in it: what is declared there in that very moment is missed,
and serves nobody until the tenant comes back. Next on the data's way: `hub.store`.
"""

import contextlib
from collections.abc import Callable
from typing import Any, cast

from transom.hub.changes import Wanted
from transom.hub.store import Store
from transom.model.errors import ConflictError, TransomError
from transom.model.kinds import PEOPLE
from transom.model.names import Key
from transom.model.resources import Resource

_TENANT, _REGION = "Tenant", "Region"
_NAMED_MAX = 3


async def check_leaving(store: Store, key: Key, wanted: Wanted) -> None:
    """Refuse to leave a region out of a Tenant while anything that people declared for it names that region.

    Raises `ConflictError`. Everything else that may be wrong with the change is left to the store.
    """
    if key.kind != _TENANT:
        return
    held = after = None
    with contextlib.suppress(TransomError):
        held = await store.get(key)
        after = wanted(held)
    if held is None or after is None:
        return
    had, has = _regions(held), _regions(after)
    if has is None or had == has:
        return
    users = await _naming(
        store, key.name, lambda region: region not in has and (had is None or region in had)
    )
    if users:
        named = ", ".join(f"{user.kind} {user.name!r}" for user, _ in users[:_NAMED_MAX])
        more = " and others" if len(users) > _NAMED_MAX else ""
        left = ", ".join(sorted({region for _, region in users}))
        raise ConflictError(
            f"tenant {key.name!r} cannot leave {left}, which is still named by {named}{more}; delete them, "
            "or have them name it no more, first"
        )


def _regions(tenant: Resource) -> frozenset[str] | None:
    """The regions that a tenant names; None when it names none and means every region."""
    named = tenant.spec.get("regions")
    if not isinstance(named, list):
        return None
    return frozenset(str(each) for each in cast("list[Any]", named))


async def _naming(store: Store, tenant: str, left: Callable[[str], bool]) -> list[tuple[Key, str]]:
    """What people declared for a tenant and names a region that is `left`, and which; a few of them."""
    found: list[tuple[Key, str]] = []
    for kind in store.catalog:
        if not kind.namespaced or kind.owner != PEOPLE or kind.references is None:
            continue
        after: Key | None = None
        while True:
            page = await store.page(kind.name, tenant, after=after)
            for resource in page.items:
                named = [key.name for key in kind.references(resource) if key.kind == _REGION]
                found += [(resource.key, region) for region in named if left(region)][:1]
            after = page.more_after
            if after is None or len(found) > _NAMED_MAX:
                break
    return found
