"""What a gateway bears: sizes, times and numbers, and how many requests a second a key or a tenant may make.

Whoever sends more than this gets a clear answer and costs no more memory. Times are seconds; they are looked
at a few times a second (`server`), so none is exact.
"""

from dataclasses import dataclass

from transom.region.gateway.decision import Identity


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
    """Connections of clients at once; more get 503 and are closed."""
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
    buckets_max: int = 65_536
    """Keys and tenants whose rate is remembered."""


class Rates:
    """Token buckets of keys and tenants. Each holds one second's worth, and one token at least.

    Bounded by two generations: when the young one is full the old one, which holds what was not used since,
    is forgotten. A forgotten bucket would begin full again.
    """

    def __init__(self, most: int) -> None:
        self._half = max(1, most // 2)
        self._young: dict[tuple[str, str], list[float]] = {}
        self._old: dict[tuple[str, str], list[float]] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def take(self, identity: Identity, now: float) -> float:
        """Take a token of the key and one of its tenant; 0.0, or the seconds until both have one.

        Nothing is taken unless both have one, so that a tenant at its limit does not use up its keys' own.
        """
        tenant, key, _, _, key_limit, tenant_limit = identity
        own = self._filled((tenant, key), key_limit, now) if key_limit > 0 else None
        shared = self._filled((tenant, ""), tenant_limit, now) if tenant_limit > 0 else None
        wait = 0.0
        if own is not None and own[0] < 1:
            wait = (1 - own[0]) / key_limit
        if shared is not None and shared[0] < 1:
            wait = max(wait, (1 - shared[0]) / tenant_limit)
        if wait <= 0:
            if own is not None:
                own[0] -= 1
            if shared is not None:
                shared[0] -= 1
        return wait

    def _filled(self, name: tuple[str, str], rate: float, now: float) -> list[float]:
        """The bucket, with the tokens it has by now, and when that was."""
        room = rate if rate > 1 else 1.0
        bucket = self._young.get(name)
        if bucket is None:
            bucket = self._old.pop(name, None)
            if bucket is None:
                bucket = [room, now]
            if len(self._young) >= self._half:
                self._old, self._young = self._young, {}
            self._young[name] = bucket
        passed = now - bucket[1]
        if passed > 0:
            tokens = bucket[0] + passed * rate
            bucket[0] = min(room, tokens)
            bucket[1] = now
        return bucket
