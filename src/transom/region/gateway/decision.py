"""What is decided about a request, and who decides: the seam between the server and the rules.

Statuses as in RFC 9110 and RFC 6750: 401 the key is missing or invalid, 403 it is valid but not allowed, 404
the tenant has no such app, 429 too many requests, 503 cannot tell now (never 401 for want of knowledge).
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias

from transom.region.gateway.grants import Grant

_UNAVAILABLE = 503


class Refusal(NamedTuple):
    """Why a request may not go on: `error` is a short code ("invalid_token", "insufficient_scope", ...) and
    `message` a sentence for people, neither of which holds anything of the key. `grant` is whose request it
    was, where that is known.
    """

    status: int
    grant: Grant | None = None
    error: str = ""
    message: str = ""
    retry_after_seconds: int = 0

    @property
    def is_final(self) -> bool:
        """Whether it is known that this must not go on: "cannot tell" is not that, "too old" is."""
        return self.status != _UNAVAILABLE or self.error in REFUSED_FOR_NOW


STALE = "stale"
WITHHELD = "withheld"
REFUSED_FOR_NOW = frozenset({STALE, WITHHELD})
"""Errors that are answered 503, and yet it is known that nothing is allowed: by the tenant's own wish, or
because rights were taken away that this release cannot read.
"""


Decision: TypeAlias = Grant | Refusal
"""The grant under which the request may go on, or why it may not."""


class Decider(Protocol):
    """Decides about requests. No method raises."""

    def decide_now(self, key: bytes, app: str, method: str) -> Decision | None:
        """The decision, if everything it needs is at hand; None: ask `decide`. `key` is what the client
        sent, empty for none; `app` is empty when the request is for no app.
        """
        ...

    async def decide(self, key: bytes, app: str, method: str) -> Decision:
        """The decision, looked up where it must be."""
        ...

    def listen(self, told: Callable[[bytes], None]) -> None:
        """Have `told` called with the SHA-256 of each key of which something else is known from now on."""
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
