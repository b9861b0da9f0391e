"""How resources become the bytes of an answer: whole, as rows of a Table, or their metadata alone.

The one place that decides it, by `Accept`. A verb asks for a `Rendering` before it does anything, so that who
cannot read the answer changes nothing; lists and watches are rendered piece by piece, and never held whole.
Next on the data's way: back to the client.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from starlette.requests import Request

from transom.hub.api.errors import RefusedError
from transom.hub.api.negotiation import AS_IT_IS, Form, form_for
from transom.hub.api.tables import Include, Tables
from transom.hub.api.wire import on_wire
from transom.model.kinds import Kind
from transom.model.resources import JsonObject, Resource, from_json, to_json

INCLUDE_OBJECT = "includeObject"
"""The word of a query that says what of each resource goes with the rows of a Table."""

_VERSIONS = ("v1", "v1beta1")
_PARTIAL = "PartialObjectMetadata"

Answers = Literal["one", "list", "watch"]
"""What an answer is about: one resource, a list of them, or their changes."""


class Rendering:
    """Whole resources of one kind, and what all renderings have.

    Answers give resources as the store has them, as bytes: where nothing must be changed for the
    client (`as_stored`) they go out as they are, and what was made for one client is good for the next.
    """

    def __init__(self, kind: Kind, *, as_stored: bool | None = None) -> None:
        self._kind = kind
        self.as_stored = not (kind.flat or kind.view) if as_stored is None else as_stored

    def one(self, resource: Resource) -> bytes:
        """The answer that is one resource."""
        return self._piece(resource)

    def one_stored(self, stored: bytes) -> bytes:
        """The same, of a resource as the store has it."""
        return stored if self.as_stored else self.one(self._kind.shown(from_json(stored)))

    def opening(self, metadata: Mapping[str, Any]) -> bytes:
        """How a list begins; `item`s follow, joined by commas, and `closing`."""
        return opened(f"{self._kind.name}List", self._kind.api_version, metadata)

    def item(self, stored: bytes) -> bytes:
        """One item of a list."""
        return stored if self.as_stored else self._piece(from_json(stored))

    @property
    def closing(self) -> bytes:
        """How a list ends."""
        return b"]}"

    def line(self, event: str, stored: bytes) -> bytes:
        """One line of a watch. A rendering is for one watch: its first line may say more than the others."""
        return line(event, self.item(stored))

    def bookmark(self, metadata: JsonObject) -> bytes:
        """The line of a watch that says how far it has come."""
        kind = {"kind": self._kind.name, "apiVersion": self._kind.api_version}
        return line("BOOKMARK", to_json({**kind, "metadata": metadata}))

    def _piece(self, resource: Resource) -> bytes:
        return to_json(on_wire(self._kind, resource))


class _Partial(Rendering):
    """The metadata alone."""

    def __init__(self, kind: Kind, api_version: str) -> None:
        super().__init__(kind, as_stored=False)
        self._api_version = api_version

    def opening(self, metadata: Mapping[str, Any]) -> bytes:
        return opened(f"{_PARTIAL}List", self._api_version, metadata)

    def bookmark(self, metadata: JsonObject) -> bytes:
        return line("BOOKMARK", self._shown(metadata))

    def _piece(self, resource: Resource) -> bytes:
        return self._shown(resource.metadata)

    def _shown(self, metadata: Any) -> bytes:
        return to_json({"kind": _PARTIAL, "apiVersion": self._api_version, "metadata": metadata})


class _Table(Rendering):
    """Rows of a Table. In a watch only the first has columns."""

    def __init__(self, kind: Kind, tables: Tables) -> None:
        super().__init__(kind, as_stored=False)
        self._tables = tables
        self._begun = False

    def one(self, resource: Resource) -> bytes:
        metadata = {"resourceVersion": resource.metadata.resource_version}
        return self.opening(metadata) + self._piece(resource) + self.closing

    def opening(self, metadata: Mapping[str, Any]) -> bytes:
        return to_json(self._tables.head() | {"metadata": metadata})[:-1] + b',"rows":['

    def line(self, event: str, stored: bytes) -> bytes:
        resource = from_json(stored)
        return self._line(event, resource.metadata.resource_version, self._tables.row(resource))

    def bookmark(self, metadata: JsonObject) -> bytes:
        return self._line("BOOKMARK", metadata["resourceVersion"], self._tables.bookmark(metadata))

    def _piece(self, resource: Resource) -> bytes:
        return to_json(self._tables.row(resource))

    def _line(self, event: str, revision: str, row: JsonObject) -> bytes:
        head = self._tables.headless() if self._begun else self._tables.head()
        self._begun = True
        return line(event, to_json(head | {"metadata": {"resourceVersion": revision}, "rows": [row]}))


def line(event: str, shown: bytes) -> bytes:
    """One line of a watch, about what is `shown`."""
    return b'{"type":"%b","object":%b}\n' % (event.encode(), shown)


def opened(kind: str, api_version: str, metadata: Mapping[str, Any]) -> bytes:
    """How a list begins, up to its first item."""
    head = to_json({"kind": kind, "apiVersion": api_version, "metadata": metadata})
    return head[:-1] + b',"items":['


def rendering_for(request: Request, kind: Kind, answers: Answers, now: Callable[[], float]) -> Rendering:
    """How to render the answer to `request`; `now` gives the seconds since 1970.

    Raises `RefusedError`: 406 when there is nothing that the client takes, 400 for a wrong `includeObject`.
    """
    partial = f"{_PARTIAL}List" if answers == "list" else _PARTIAL
    forms = [Form("meta.k8s.io", version, name) for name in ("Table", partial) for version in _VERSIONS]
    form = form_for(request.headers.get("accept", ""), (AS_IT_IS, *forms))
    if form == AS_IT_IS:
        return Rendering(kind)
    api_version = f"{form.group}/{form.version}"
    if form.kind != "Table":
        return _Partial(kind, api_version)
    return _Table(kind, Tables(kind, api_version, _included(request), now))


def _included(request: Request) -> Include:
    text = request.query_params.get(INCLUDE_OBJECT) or "Metadata"
    for known in get_args(Include):
        if text == known:
            return known
    one_of = ", ".join(get_args(Include))
    raise RefusedError(400, f"query parameter {INCLUDE_OBJECT!r} must be one of {one_of}, not {text!r}")
