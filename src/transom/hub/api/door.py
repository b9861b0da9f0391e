"""Who comes in: whoever shows a good key or token; all others get one and the same 401.

Only `/healthz`, `/livez` and `/readyz` are open, and say nothing but whether the hub works. Paths that are no
resource are decided on here, all others by `gate`. Who asks too much gets 429, and what a stranger costs is a
hash and a look into a `dict`. Next on the data's way: `app`.
"""

import contextlib
import math
import re
from collections.abc import Generator, Sequence
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response

from transom.hub.access.callers import Caller, remember
from transom.hub.access.identity import Identity, Known
from transom.hub.access.limits import Limits, TooManyError
from transom.hub.api.errors import answer, failure, refuse
from transom.hub.api.gate import Gate
from transom.model.errors import ForbiddenError, TransomError, UnauthorizedError
from transom.runtime import tracing
from transom.runtime.http import AsgiApp, Receive, Scope, Send

_OPEN = ("/healthz", "/livez", "/readyz")
_RESOURCE = re.compile(r"/api/[^/]+/.+|/apis/[^/]+/[^/]+/.+", re.DOTALL)
"""Paths that `gate` decides on once it is known which kind they are about."""
_TRUE = ("true", "1")


class Door:
    """`app` for those who are known (RFC 6750) and ask no more than they may."""

    def __init__(self, app: AsgiApp, identity: Identity, gate: Gate, limits: Limits) -> None:
        self._app = app
        self._identity = identity
        self._gate = gate
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        # For this request's task alone.
        tracing.current.set(tracing.valid(_header(scope, tracing.TRACEPARENT)))
        if scope["path"] in _OPEN:
            await self._app(scope, receive, send)
            return
        try:
            known = await self._known(scope)
            if known is None:
                await _unauthorized(given=bool(_shown(scope)))(scope, receive, send)
                return
            remember(scope, known.caller, self._tell_again, fresh=known.fresh)
            self._check(scope, known.caller)
            with self._place(scope, known.caller):
                await self._app(scope, receive, send)
        except TooManyError as error:
            await _too_many(error)(scope, receive, send)
        except TransomError as error:
            # Refused here: what the app refuses it has answered itself.
            await refuse(Request(scope), error)(scope, receive, send)

    async def _known(self, scope: Scope) -> Known | None:
        shown, source = _shown(scope), _source(scope)
        if len(shown) != 1:
            return None
        if self._identity.is_token(shown[0]):
            self._limits.check_stranger(source)
        known = await self._identity.known(shown[0], source)
        if known is None:
            self._limits.check_stranger(source)
            self._limits.failed(source)
        return known

    async def _tell_again(self, scope: Scope) -> None:
        known = await self._identity.known(_shown(scope)[0], _source(scope))
        if known is None:
            raise UnauthorizedError(
                "the key or token this began with was revoked or has expired; begin again with a good one"
            )
        remember(scope, known.caller, self._tell_again, fresh=known.fresh)

    def _check(self, scope: Scope, caller: Caller) -> None:
        if any(name.startswith(b"impersonate-") for name, _ in scope["headers"]):
            raise ForbiddenError("impersonation is not supported: ask with a key or token of that user")
        if not _RESOURCE.fullmatch(scope["path"]):
            self._gate.check_path(scope, caller)

    @contextlib.contextmanager
    def _place(self, scope: Scope, caller: Caller) -> Generator[None]:
        if self._gate.rights.is_operator(caller):
            yield
            return
        with self._limits.one(caller.name, watch=_is_watch(scope)):
            yield


def _too_many(error: TooManyError) -> Response:
    """The 429 that says when to ask again."""
    seconds = math.ceil(error.seconds)
    status = failure(429, "TooManyRequests", str(error))
    status["details"] = {"retryAfterSeconds": seconds}
    return answer(status, 429, {"Retry-After": str(seconds)})


def _unauthorized(*, given: bool) -> Response:
    challenge = 'Bearer realm="transom"' + (', error="invalid_token"' if given else "")
    message = "a key or token is missing or not good; send one as 'Authorization: Bearer KEY'"
    return answer(failure(401, "Unauthorized", message), 401, {"WWW-Authenticate": challenge})


def _header(scope: Scope, wanted: str) -> str:
    headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
    return next((value.decode("latin-1") for name, value in headers if name == wanted.encode()), "")


def _shown(scope: Scope) -> list[str]:
    """What is shown as a key or token (RFC 6750, 2.1)."""
    headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
    given = [value.decode("latin-1").partition(" ") for name, value in headers if name == b"authorization"]
    return [key.strip() for scheme, _, key in given if scheme.lower() == "bearer"]


def _is_watch(scope: Scope) -> bool:
    query = parse_qsl(scope["query_string"].decode("latin-1"))
    return scope["method"] == "GET" and any(
        word == "watch" and value.lower() in _TRUE for word, value in query
    )


def _source(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""
