"""What a request is about: the kind, tenant and name in its path, and the words in its query.

Paths are those of the Kubernetes API, for any kind of the catalog:
`/apis/{group}/{version}/namespaces/{tenant}/{plural}/{name}` (`/api/{version}/…` for the core group), and
without `namespaces/{tenant}` for kinds that belong to no tenant (and to list a kind over all tenants). A
query word that is not known is refused: one that was meant to change the request must not be ignored.
Next: `bodies` reads what was sent.
"""

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
from starlette.requests import Request

from transom.hub.api.errors import RefusedError
from transom.model.errors import UNREADABLE, NotFoundError
from transom.model.kinds import Catalog, Kind
from transom.model.names import Key
from transom.model.resources import Resource, to_json

_NUMBER_DIGITS_MAX = 18


@dataclass(frozen=True)
class Target:
    """What a path names. `namespace` and `name` are empty where the path has none."""

    kind: Kind
    namespace: str
    name: str

    @property
    def key(self) -> Key:
        """What is stored of the resource; only for a path with a name."""
        return Key(self.kind.stored, self.namespace, self.name)

    @property
    def shown(self) -> Key:
        """The resource as clients name it."""
        return Key(self.kind.name, self.namespace, self.name)


def target_of(request: Request, catalog: Catalog) -> Target:
    """What the path of `request` names. Raises `NotFoundError` for a kind that is not there."""
    found = request.path_params
    group, version = found.get("group", ""), found["version"]
    namespace, name = found.get("tenant", ""), found.get("name", "")
    plural = found["plural"]
    kind = catalog.served(group, version, plural)
    if kind is None:
        known = ", ".join(sorted(kind.plural for kind in catalog.faces if kind.group == group))
        raise NotFoundError(f"unknown kind {plural!r}; there are {known}")
    root = f"/apis/{kind.api_version}" if kind.group else f"/api/{kind.version}"
    if namespace and not kind.namespaced:
        raise NotFoundError(f"a {kind.name} belongs to no tenant; its path is {root}/{plural}")
    if name and kind.namespaced and not namespace:
        raise NotFoundError(f"a {kind.name} belongs to a tenant: {root}/namespaces/TENANT/{plural}/{name}")
    return Target(kind, namespace, name)


def query_of(request: Request, *known: str) -> dict[str, str]:
    """The query's words. Raises `RefusedError` for one that is not in `known`, or stands twice."""
    query: dict[str, str] = {}
    for word, value in request.query_params.multi_items():
        if word not in known:
            said = f"known here: {', '.join(known)}" if known else "none is known here"
            raise RefusedError(400, f"unknown query parameter {word!r}; {said}")
        if word in query:
            raise RefusedError(400, f"query parameter {word!r} stands twice")
        query[word] = value
    return query


def number(query: dict[str, str], word: str) -> int | None:
    """The whole number that `word` gives; None when it is absent or empty."""
    text = query.get(word, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _NUMBER_DIGITS_MAX):
        raise RefusedError(400, f"query parameter {word!r} must be a whole number, not {text!r}")
    return int(text)


def truth(query: dict[str, str], word: str) -> bool:
    """Whether `word` is "true" (or "1"); "false", "0" and absence are not."""
    text = query.get(word, "false")
    if text not in ("true", "1", "false", "0"):
        raise RefusedError(400, f"query parameter {word!r} must be true or false, not {text!r}")
    return text in ("true", "1")


Matches = Callable[[Resource], bool]


def selector(query: dict[str, str]) -> Matches | None:
    """What `labelSelector` selects: `a=b` and `a==b`, joined by commas; None when it selects everything."""
    text = query.get("labelSelector", "")
    if not text:
        return None
    wanted: list[tuple[str, str]] = []
    for part in text.split(","):
        label, equals, value = part.replace("==", "=", 1).partition("=")
        if not equals or not label.strip() or label.strip().endswith("!") or "=" in value:
            raise RefusedError(400, f"labelSelector {text!r}: expected label=value, joined by commas")
        wanted.append((label.strip(), value.strip()))
    return lambda resource: all(resource.metadata.labels.get(label) == value for label, value in wanted)


class Continue(NamedTuple):
    """Where a list goes on: after this key, standing for the revision at which the list began."""

    revision: int
    namespace: str
    name: str

    def token(self) -> str:
        """As clients carry it, without knowing what it holds."""
        return base64.urlsafe_b64encode(to_json(self)).decode().rstrip("=")

    @classmethod
    def parse(cls, token: str) -> "Continue":
        """Read what `token` wrote. Raises `RefusedError`."""
        try:
            data = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
            return msgspec.json.decode(data, type=cls)
        except (binascii.Error, ValueError, *UNREADABLE):
            raise RefusedError(
                400, "query parameter 'continue' is not one that a list gave; list again without it"
            ) from None
