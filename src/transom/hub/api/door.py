"""Who comes in: only the administrator's key opens the API; all others get one and the same 401.

Only `/healthz`, `/livez` and `/readyz` are open, and say nothing but whether the hub works.
Next on the data's way: `app`.
"""

from collections.abc import Sequence

from transom.hub.access.callers import Caller, remember
from transom.hub.api.errors import answer, failure
from transom.runtime import tracing
from transom.runtime.http import AsgiApp, Receive, Scope, Send
from transom.runtime.secret_files import matches

ADMINISTRATOR = "administrator"
_OPEN = ("/healthz", "/livez", "/readyz")


class Door:
    """`app` for those who bear the administrator's key (RFC 6750); one and the same 401 for all others."""

    def __init__(self, app: AsgiApp, admin_key_hash: str) -> None:
        self._app = app
        self._admin_key_hash = admin_key_hash

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        keys = _keys(scope)
        if scope["path"] in _OPEN or (len(keys) == 1 and matches(keys[0], self._admin_key_hash)):
            remember(scope, Caller(ADMINISTRATOR, source=_source(scope)))
            # For this request's task alone.
            tracing.current.set(tracing.valid(_header(scope, tracing.TRACEPARENT)))
            await self._app(scope, receive, send)
            return
        message = "the administrator's key is missing or wrong; send it as 'Authorization: Bearer KEY'"
        challenge = 'Bearer realm="transom"' + (', error="invalid_token"' if keys else "")
        response = answer(failure(401, "Unauthorized", message), 401, {"WWW-Authenticate": challenge})
        await response(scope, receive, send)


def _header(scope: Scope, wanted: str) -> str:
    headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
    return next((value.decode("latin-1") for name, value in headers if name == wanted.encode()), "")


def _keys(scope: Scope) -> list[str]:
    headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
    given = [value.decode("latin-1").partition(" ") for name, value in headers if name == b"authorization"]
    return [key.strip() for scheme, _, key in given if scheme.lower() == "bearer"]


def _source(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""
