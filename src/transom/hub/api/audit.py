"""What the API says of the audit: the whole of it, as lines of JSON, and where it ends.

Next on the data's way: `hub.audit`.
"""

from collections.abc import AsyncGenerator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from transom.hub.api.errors import RefusedError, answer
from transom.hub.api.query import number, query_of
from transom.hub.audit import Audit
from transom.hub.store_audit import Place
from transom.model.names import LABEL_RULE, is_label
from transom.model.times import read_time

_LINES = "application/x-ndjson"


class AuditPages:
    """The endpoints under `/hub/audit`."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    def routes(self) -> list[Route]:
        """Where they are."""
        return [Route("/hub/audit", self.export), Route("/hub/audit/head", self.head)]

    async def export(self, request: Request) -> Response:
        """GET the changes after `since` (a revision, or a time) as lines; `tenant` shows only what is its."""
        query = query_of(request, "since", "tenant")
        tenant = query.get("tenant", "")
        if tenant and not is_label(tenant):
            raise RefusedError(400, f"query parameter 'tenant': {tenant!r} {LABEL_RULE}")
        lines = self._audit.export(await self._begin(query.get("since", "")), tenant)
        return StreamingResponse(_not_empty(lines), media_type=_LINES)

    async def head(self, request: Request) -> Response:
        """GET where the chain is, or was at `revision`, signed: {head, keyId, publicKey, signature}."""
        query = query_of(request, "revision")
        return answer(await self._audit.head(number(query, "revision")))

    async def _begin(self, since: str) -> Place:
        if not since:
            return await self._audit.since_beginning()
        if since.isdecimal() and since.isascii():
            return await self._audit.since(number({"since": since}, "since") or 0)
        try:
            return await self._audit.since_time(read_time(since))
        except ValueError as error:
            raise RefusedError(400, f"query parameter 'since': is no revision, and {error}") from None


async def _not_empty(lines: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    async for some in lines:
        if some:
            yield some
