"""A decider and endpoints that are told what to say: for tests, and for measuring everything but deciding."""

from collections.abc import Callable

from transom.region.gateway.decision import Decision, Endpoint, Refusal
from transom.region.gateway.grants import Grant

UNKNOWN_KEY = Refusal(401, None, "invalid_token", "the key is not known")
NO_KEY = Refusal(401, None, "unauthorized", "a key is needed")


class FakeDecider:
    """Knows the keys in `grants` and whose each app is (`owners`); `later` has it take the slow way."""

    def __init__(self, grants: dict[bytes, Grant], owners: dict[str, str]) -> None:
        self.grants = grants
        self.owners = owners
        self.later = False
        self.asked: list[tuple[bytes, str, str]] = []
        self.listeners: list[Callable[[bytes], None]] = []

    def listen(self, told: Callable[[bytes], None]) -> None:
        """`told` is kept in `listeners`, for tests to call."""
        self.listeners.append(told)

    def decide_now(self, key: bytes, app: str, method: str) -> Decision | None:
        """What `decide` says, unless told to be slow."""
        self.asked.append((key, app, method))
        return None if self.later else self._decision(key, app)

    async def decide(self, key: bytes, app: str, method: str) -> Decision:  # noqa: ARG002
        """401 without a known key, 404 for another tenant's app or none, else 200."""
        return self._decision(key, app)

    def _decision(self, key: bytes, app: str) -> Decision:
        grant = self.grants.get(key)
        if grant is None:
            return UNKNOWN_KEY if key else NO_KEY
        if app and self.owners.get(app) != grant.rights.tenant:
            return Refusal(404, grant, "not_found", "there is no such app")
        return grant


class FakeEndpoints:
    """The instances in `instances`, by tenant and app."""

    def __init__(self) -> None:
        self.instances: dict[tuple[str, str], tuple[Endpoint, ...]] = {}

    def healthy(self, tenant: str, app: str) -> tuple[Endpoint, ...]:
        """Those of one app."""
        return self.instances.get((tenant, app), ())
