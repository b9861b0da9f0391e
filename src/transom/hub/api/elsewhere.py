"""Questions that only one process of the hub can answer, asked of it by the process they came to.

The API is the same at every process. What regions, roads and contexts are like is known where the roads are,
so a question about them goes there as it came, the asker's own key included, over TLS unless it stays on this
machine. Next on the data's way: the other process's `api`.
"""

import ssl
from collections.abc import Awaitable, Callable
from typing import Protocol

import aiohttp
from starlette.requests import Request
from starlette.responses import Response

from transom.hub.api.errors import answer
from transom.model.errors import UnreachableError
from transom.model.resources import JsonObject
from transom.runtime.connecting import cause_of

Endpoint = Callable[[Request], Awaitable[Response]]

_HEADER = "transom-asked-by"
_ANSWER_SECONDS = 10.0


class Processes(Protocol):
    """What the API asks about the hub's processes."""

    def holds(self, duty: str) -> bool:
        """Whether this process does `duty`."""
        ...

    def holder(self, duty: str) -> str:
        """Where the process that does it is reached; "" when nobody is known to do it."""
        ...

    def describe(self) -> list[JsonObject]:
        """Each process, whether it is alive, and what it does."""
        ...


class Elsewhere:
    """Asks the process that does `duty`. `tls` says whom to trust there."""

    def __init__(self, processes: Processes, duty: str, tls: ssl.SSLContext | None) -> None:
        self._processes = processes
        self._duty = duty
        self._tls = tls

    def or_there(self, endpoint: Endpoint) -> Endpoint:
        """`endpoint` where the duty is done; elsewhere, what that process answers.

        Raises `UnreachableError` when nobody does it now, or does not answer.
        """

        async def asked(request: Request) -> Response:
            if self._processes.holds(self._duty):
                return await endpoint(request)
            address = self._processes.holder(self._duty)
            # Who was asked by a process that is behind the times does not pass it on.
            if not address or _HEADER in request.headers:
                raise UnreachableError(f"no process of the hub has {self._duty!r} just now; ask again")
            return await self._ask(address, request)

        return asked

    async def processes(self, _request: Request) -> Response:
        """GET {items: [{id, address, here, alive, duties}]}: the hub's processes, as this one sees them."""
        return answer({"items": self._processes.describe()})

    async def _ask(self, address: str, request: Request) -> Response:
        url = f"{address}{request.url.path}?{request.url.query}"
        headers = {"Authorization": request.headers["authorization"], _HEADER: "another process of the hub"}
        limit = aiohttp.ClientTimeout(total=_ANSWER_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(timeout=limit) as session,
                session.get(url, headers=headers, ssl=self._tls or True, allow_redirects=False) as reply,
            ):
                return Response(await reply.read(), reply.status, media_type=reply.content_type)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            why = (
                f"no answer within {_ANSWER_SECONDS:.0f} s"
                if isinstance(error, TimeoutError)
                else cause_of(error)
            )
            raise UnreachableError(
                f"process {address} of the hub, which has {self._duty!r}, cannot be asked: {why}"
            ) from None
