"""What the API says of contexts, and the return to earlier values. Next on the data's way: `hub.contexts`."""

from typing import Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from transom.hub.access.callers import actor_of
from transom.hub.api.bodies import read_resource
from transom.hub.api.errors import RefusedError, answer
from transom.hub.api.query import query_of
from transom.hub.contexts import restore
from transom.hub.store import Store
from transom.model.contexts import ContextKinds
from transom.model.resources import JsonObject

_WHY_CHARACTERS_MAX = 1000


class Contexts(Protocol):
    """What the API asks of the hub's contexts."""

    @property
    def kinds(self) -> ContextKinds:
        """The kinds of contexts there are."""
        ...

    async def describe(self) -> JsonObject:
        """How far each region is, what guards hold, what could not be built."""
        ...

    async def diff(self, region: str) -> JsonObject:
        """What would go out to a region now, and has not; how much is held. Raises `NotFoundError`."""
        ...

    def signing(self) -> JsonObject:
        """What regions must trust."""
        ...


class ContextPages:
    """The endpoints under `/hub` that are about contexts."""

    def __init__(self, store: Store, contexts: Contexts) -> None:
        self._store = store
        self._contexts = contexts

    async def describe(self, request: Request) -> Response:
        """GET {items: one a region, holds: what guards hold, refused: subjects without a good context}."""
        query_of(request)
        return answer(await self._contexts.describe())

    async def diff(self, request: Request) -> Response:
        """GET {items: [{key, change, lane, revision, tenant}], more, held: rows held back} of one region."""
        region = query_of(request, "region").get("region", "")
        if not region:
            raise RefusedError(400, "query parameter 'region' is missing")
        return answer(await self._contexts.diff(region))

    async def restore(self, request: Request) -> Response:
        """POST {kind, revision, tenant, name, why}: {items: [{key, change}], skipped: [{key, why}]}."""
        query_of(request)
        try:
            wanted = msgspec.convert(await read_resource(request), restore.Request)
        except msgspec.ValidationError as error:
            raise RefusedError(400, f"the body is no request to restore: {error}") from None
        if len(wanted.why) > _WHY_CHARACTERS_MAX:
            raise RefusedError(400, f"the reason ('why') is over {_WHY_CHARACTERS_MAX} characters")
        restored = await restore.restore(self._store, self._contexts.kinds, wanted, actor_of(request))
        return answer(restored)

    async def signing(self, request: Request) -> Response:
        """GET {keyId, publicKey}: what gateways are configured to trust."""
        query_of(request)
        return answer(self._contexts.signing())
