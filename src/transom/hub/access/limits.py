"""How much one caller, and one stranger, may ask: token buckets and places at work; bounded memory, no I/O.

Operators are not limited: whoever must repair a hub that others overload has to get in. Watches have places
of their own, so that those who watch and those who ask cannot starve each other.
Used by `hub.api.door`.
"""

import contextlib
import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Generator

from pydantic import Field

from transom.model.errors import SaturatedError
from transom.runtime.clock import Clock
from transom.runtime.config import Config

_NAMES_MAX = 10_000
_FAILURES_PER_SECOND = 5.0
_FAILURES_BURST = 50.0
_SHARE = 4
"""One caller takes a quarter of all places at most."""
_IPV6_NETWORK_BITS = 64


class LimitsConfig(Config):
    """What callers that are no operators may ask of one process of the hub.

    Each may ask `requests_per_second`, and `burst` at once after a rest; more is answered 429. In all,
    `requests_at_once` are worked on and `watches_at_once` watched; one caller has a quarter of that at most.
    """

    requests_per_second: float = Field(default=100.0, gt=0)
    burst: int = Field(default=400, ge=1)
    requests_at_once: int = Field(default=400, ge=4)
    watches_at_once: int = Field(default=2000, ge=4)


class TooManyError(SaturatedError):
    """One caller asks too much: ask again after `seconds`."""

    def __init__(self, what: str, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(what)


class Buckets:
    """A token bucket for each name: `rate` tokens a second, `burst` at most.

    The names used least lately are forgotten first, and begin again with full buckets.
    """

    def __init__(self, clock: Clock, rate: float, burst: float) -> None:
        self._clock = clock
        self._rate = rate
        self._burst = burst
        self._filled: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_seconds(self, name: str) -> float:
        """How long until `name` may take a token: 0 when there is one."""
        return max(0.0, (1.0 - self._tokens(name)) / self._rate)

    def take(self, name: str) -> None:
        """Take a token; the bucket may be empty already."""
        self._filled[name] = max(0.0, self._tokens(name) - 1.0), self._clock.monotonic()
        self._filled.move_to_end(name)
        if len(self._filled) > _NAMES_MAX:
            self._filled.popitem(last=False)

    def _tokens(self, name: str) -> float:
        held = self._filled.get(name)
        if held is None:
            return self._burst
        tokens, at = held
        return min(self._burst, tokens + (self._clock.monotonic() - at) * self._rate)


class Places:
    """Places at work, `most` in all."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._each = max(1, most // _SHARE)
        self._taken: Counter[str] = Counter()

    @contextlib.contextmanager
    def one(self, name: str, what: str) -> Generator[None]:
        """A place for `name` while the block runs. Raises `TooManyError`."""
        if self._taken.total() >= self._most or self._taken[name] >= self._each:
            if not self._taken[name]:
                del self._taken[name]
            raise TooManyError(f"too many {what} at once; ask again later, or end some", 1.0)
        self._taken[name] += 1
        try:
            yield
        finally:
            self._taken[name] -= 1
            if not self._taken[name]:
                del self._taken[name]


class Limits:
    """What is left to callers and strangers."""

    def __init__(self, config: LimitsConfig, clock: Clock) -> None:
        self._requests = Buckets(clock, config.requests_per_second, config.burst)
        self._failures = Buckets(clock, _FAILURES_PER_SECOND, _FAILURES_BURST)
        self._working = Places(config.requests_at_once)
        self._watching = Places(config.watches_at_once)

    def check_stranger(self, source: str) -> None:
        """Raise `TooManyError` when too many keys and tokens from there were wrong lately."""
        seconds = self._failures.wait_seconds(network_of(source))
        if seconds > 0:
            raise TooManyError("too many wrong keys and tokens from this address; ask again later", seconds)

    def failed(self, source: str) -> None:
        """A key or token from there was wrong."""
        self._failures.take(network_of(source))

    @contextlib.contextmanager
    def one(self, name: str, *, watch: bool) -> Generator[None]:
        """One request of a caller while the block runs. Raises `TooManyError`."""
        seconds = self._requests.wait_seconds(name)
        if seconds > 0:
            raise TooManyError("too many requests; ask again later", seconds)
        self._requests.take(name)
        places, what = (self._watching, "watches") if watch else (self._working, "requests")
        with places.one(name, what):
            yield


def network_of(source: str) -> str:
    """Whom failures are counted for: an IPv4 address; of IPv6 a network of 64 bits, which one host has."""
    try:
        address = ipaddress.ip_address(source)
    except ValueError:
        return source
    if isinstance(address, ipaddress.IPv4Address):
        return source
    return str(ipaddress.ip_network((address, _IPV6_NETWORK_BITS), strict=False))
