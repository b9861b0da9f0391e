"""What is decided about a request, and who decides: the seam between the server and the rules.

Statuses as in RFC 9110 and RFC 6750: 401 the key is missing or invalid, 403 it is valid but not allowed, 404
the tenant has no such app, 429 too many requests, 503 cannot tell now (never 401 for want of knowledge).
"""

from typing import NamedTuple, Protocol


class Identity(NamedTuple):
    """Whose request it is. `limits` are requests a second for the key and for its tenant; 0 for none."""

    tenant: str
    key: str
    scopes: tuple[str, ...]
    virtual_cluster: str = ""
    key_limit: float = 0.0
    tenant_limit: float = 0.0


class Decision(NamedTuple):
    """`status` 200, or why not: `error` is a short code ("invalid_token", "insufficient_scope", ...) and
    `message` a sentence for people, neither of which holds anything of the key.
    """

    status: int
    identity: Identity | None = None
    error: str = ""
    message: str = ""
    retry_after_seconds: int = 0


class Decider(Protocol):
    """Decides about requests. Neither method raises."""

    def decide_now(self, key: bytes, app: str, method: str) -> Decision | None:
        """The decision, if everything it needs is at hand; None: ask `decide`. `key` is what the client
        sent, empty for none; `app` is empty when the request is for no app.
        """
        ...

    async def decide(self, key: bytes, app: str, method: str) -> Decision:
        """The decision, looked up where it must be."""
        ...


class Endpoint(NamedTuple):
    """Where an instance of an app listens."""

    instance: str
    host: str
    port: int


class Endpoints(Protocol):
    """Knows the healthy instances in this region."""

    def healthy(self, tenant: str, app: str) -> tuple[Endpoint, ...]:
        """Those of one app, in a stable order; empty when there is none now."""
        ...
