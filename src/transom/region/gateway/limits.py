"""What a gateway bears: sizes, times and numbers, and how many requests a second a key or a tenant may make.

Whoever sends more than this gets a clear answer and costs no more memory. Times are seconds; they are looked
at a few times a second (`server`), so none is exact.
"""

from dataclasses import dataclass

THIS_MACHINE = ("127.0.0.0/8", "::1/128")


@dataclass(frozen=True)
class GatewayLimits:
    """The limits of one gateway. The defaults suit a gateway that faces the internet."""

    head_bytes: int = 16 * 1024
    """A request's line and headers; more is 431. Also what may surround a body's data (trailers and such)."""
    headers_max: int = 100
    """Header lines of a request; more is 431."""
    body_bytes: int = 64 * 1024 * 1024
    """A request's body; more is 413. An answer's body has no limit: it is streamed."""
    answer_head_bytes: int = 64 * 1024
    """The line and headers of an app's answer; more is 502."""
    head_seconds: float = 10.0
    """From the first byte of a head (or from connecting) to its last; longer is 408."""
    body_idle_seconds: float = 30.0
    """Between two pieces of a request's body, and for a client to take some of its answer."""
    idle_seconds: float = 75.0
    """How long a connection may wait for its next request."""
    connect_seconds: float = 2.0
    """For an instance to accept a connection; then another is tried."""
    answer_seconds: float = 60.0
    """From the end of a request to its answer's head, and between two pieces of the answer; longer is 504."""
    tunnel_idle_seconds: float = 600.0
    """How long neither side of an upgraded connection (WebSocket) may say anything."""
    linger_seconds: float = 2.0
    """How long a connection that is given up is still read, so that its client sees the answer."""
    drain_seconds: float = 10.0
    """How long requests under way may go on when the gateway stops."""
    connections_max: int = 4096
    """Connections of clients at once; more get 503 and are closed. One address may hold a quarter of them."""
    fronts: tuple[str, ...] = THIS_MACHINE
    """Addresses and networks of which each may hold all: proxies, which hold connections for others."""
    pipelined_max: int = 64
    """Requests that one read may hold; the connection is closed after so many."""
    drained_bytes: int = 64 * 1024
    """A refused request's body up to this size is read away, so that its connection can be used again."""
    buffer_bytes: int = 64 * 1024
    """What may wait for a slow reader in each direction before the other side is paused."""
    upstream_idle_seconds: float = 4.0
    """How long a connection to an app is kept without use; shorter than what common servers keep theirs."""
    upstream_idle_max: int = 32
    """Unused connections kept for each instance."""
    upstream_idle_total: int = 1024
    """Unused connections kept altogether."""
    aside_seconds: float = 2.0
    """How long an instance that failed is passed over while there are others."""
    tries_max: int = 3
    """How many connections a request may be tried on."""


_SLACK_SECONDS = 1e-6
"""Sums of times are not exact: what they are out by must not cost the last token of a bucket."""


class Rate:
    """So many requests a second: the seconds that one token takes to come, and that a whole bucket does."""

    __slots__ = ("bucket_seconds", "token_seconds")

    def __init__(self, a_second: float) -> None:
        self.token_seconds = 1 / a_second
        self.bucket_seconds = max(1.0, self.token_seconds) + _SLACK_SECONDS


class Bucket:
    """A token bucket: holds one second's worth, and one token at least.

    What is kept of it is one number, when it will be full again (monotonic seconds): a token taken moves
    that by the time one takes to come, and there is none where that would be further away than a whole bucket
    takes. As the generic cell rate algorithm of ITU-T I.371 counts ("virtual scheduling").
    """

    __slots__ = ("__weakref__", "full_at")

    def __init__(self) -> None:
        self.full_at = 0.0
