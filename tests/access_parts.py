"""Bindings, keys and callers for tests of who may do what."""

from hub_parts import put
from transom.hub.access.callers import AUTHENTICATED, Caller
from transom.hub.store import Store
from transom.model.api_keys import HUB_PREFIX, hash_of, new_api_key
from transom.model.resources import Metadata, Resource
from transom.runtime.randomness import choose_secret

ADA = "oidc:ada@example.com"


def caller(name: str = ADA, *groups: str) -> Caller:
    return Caller(name, (*groups, AUTHENTICATED), "127.0.0.1")


def subject(name: str) -> dict[str, str]:
    """`key:x`, `group:x` or a user."""
    kind, _, rest = name.partition(":")
    known = {"key": "Key", "group": "Group"}
    return {"kind": known[kind], "name": rest} if kind in known else {"kind": "User", "name": name}


def binding(name: str, tenant: str, *subjects: str, role: str = "", rules: list | None = None) -> Resource:
    """A RoleBinding of `tenant`; with "" as the tenant a HubRoleBinding."""
    spec = {"subjects": [subject(each) for each in subjects]}
    spec |= {"role": role} if role else {"rules": rules}
    kind = "RoleBinding" if tenant else "HubRoleBinding"
    return Resource(kind, Metadata(name, namespace=tenant), spec=spec)


def hub_key(name: str, **spec) -> tuple[str, Resource]:
    """A key, and the HubKey that makes it good."""
    key = new_api_key(choose_secret, HUB_PREFIX)
    given = {"hash": hash_of(key.encode()).hex(), "revoked": False, **spec}
    return key, Resource("HubKey", Metadata(name), spec=given)


async def made_key(store: Store, name: str, **roles: str) -> str:
    """A good key called `name` with these roles by tenant ("hub": the whole hub)."""
    key, resource = hub_key(name)
    bindings = [
        binding(f"{name}.{role}", "" if tenant == "hub" else tenant, f"key:{name}", role=role)
        for tenant, role in roles.items()
    ]
    outcomes = await store.write_all([put(resource), *map(put, bindings)])
    assert all(isinstance(outcome, Resource) for outcome in outcomes), outcomes
    return key
