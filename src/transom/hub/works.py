"""What each duty of the hub is: the relay, contexts and roads, a part of the controllers' keys, housekeeping.

One process at a time does each (`duties`); several processes share them. Relay and roads append to logs under
fences of their own, and everything that is written to the store for a duty is written under its lease.
Next on the data's way: `service` starts them.
"""

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from transom.hub.audit import Audit
from transom.hub.config import HubConfig
from transom.hub.contexts.service import Contexts
from transom.hub.duties import keeping_its_fence
from transom.hub.fleeting import forget_fleeting
from transom.hub.garbage import GarbageCollector
from transom.hub.network import RoadNetwork
from transom.hub.relay import Relay
from transom.hub.self_check import check_now_and_then
from transom.hub.shards import COUNT, Shards
from transom.hub.store import Store
from transom.hub.undeletion import purge_expired
from transom.logs.protocol import Log
from transom.model.contexts import ContextKinds
from transom.model.errors import UnreachableError
from transom.model.resources import JsonObject
from transom.runtime.clock import Clock, rfc3339
from transom.runtime.duties import Lease, Work
from transom.runtime.randomness import Randomness
from transom.runtime.signing import Signer
from transom.runtime.tasks import Workers

ROADS = "roads"

_DAY_SECONDS = 86_400.0
_STATUS_HISTORY_SECONDS = _DAY_SECONDS


class RoadsHere:
    """Contexts and roads, while this process has them; `describe` is what the API asks of the roads."""

    def __init__(self) -> None:
        self._parts: tuple[Contexts, RoadNetwork] | None = None

    @property
    def contexts(self) -> Contexts:
        """The contexts. Raises `UnreachableError` while they are not here."""
        return self._here()[0]

    @property
    def network(self) -> RoadNetwork:
        """The roads. Raises `UnreachableError` while they are not here."""
        return self._here()[1]

    async def describe(self) -> list[JsonObject]:
        """See `RoadNetwork.describe`."""
        return await self.network.describe()

    @contextlib.contextmanager
    def having(self, contexts: Contexts, network: RoadNetwork) -> Generator[None]:
        """They are here inside the block."""
        self._parts = contexts, network
        try:
            yield
        finally:
            self._parts = None

    def _here(self) -> tuple[Contexts, RoadNetwork]:
        if self._parts is None:
            raise UnreachableError("the hub's roads are being taken over by another process; ask again")
        return self._parts


class ContextsHere(NamedTuple):
    """What the API asks about contexts; `kinds` and the signer are the same in every process."""

    kinds: ContextKinds
    signer: Signer
    roads: RoadsHere

    async def describe(self) -> JsonObject:
        """See `Contexts.describe`."""
        return await self.roads.contexts.describe()

    async def diff(self, region: str) -> JsonObject:
        """See `Contexts.diff`."""
        return await self.roads.contexts.diff(region)

    def signing(self) -> JsonObject:
        """What `GET /hub/signing` says: what regions must trust."""
        return {"keyId": self.signer.key_id, "publicKey": self.signer.public_text}


@dataclass
class Works:
    """The duties of a hub, over its store and log; `clean` is what the log needs done now and then."""

    config: HubConfig
    store: Store
    log: Log
    clean: Callable[[], Awaitable[object]]
    about_contexts: ContextsHere
    roads: RoadsHere
    shards: Shards
    workers: Workers
    clock: Clock
    randomness: Randomness

    def by_duty(self) -> Mapping[str, Work]:
        """What to do for each duty, by its name; what costs most stands first."""
        return {
            ROADS: self.keep_roads,
            "relay": self.relay,
            "housekeeping": self.keep_tidy,
            "garbage": self.collect_garbage,
            **{f"controllers {number}": partial(self._controllers, number) for number in range(COUNT)},
        }

    @contextlib.asynccontextmanager
    async def relay(self, lease: Lease) -> AsyncGenerator[None]:
        """The outbox goes to the hub's log inside the block."""
        store = self._under(lease)
        relay = Relay(store, self.log)
        async with self.workers.running("relay", partial(keeping_its_fence, store, relay.run, self.clock)):
            yield

    @contextlib.asynccontextmanager
    async def keep_roads(self, lease: Lease) -> AsyncGenerator[None]:
        """Contexts are built, and every region has its roads, inside the block."""
        store, config = self._under(lease), self.config
        kinds, signer = self.about_contexts.kinds, self.about_contexts.signer
        contexts = await Contexts.open(store, kinds, config.contexts, signer, self.clock)
        network = RoadNetwork(
            store,
            self.log,
            self.clock,
            self.randomness,
            config.link_keys,
            config.sweep_seconds,
            config.trust,
            contexts,
        )
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(contexts.close)
            contexts.start(self.workers)
            stack.push_async_callback(network.close)
            running = self.workers.running("roads", lambda: network.run(self.workers))
            await stack.enter_async_context(running)
            stack.enter_context(self.roads.having(contexts, network))
            yield

    @contextlib.asynccontextmanager
    async def keep_tidy(self, lease: Lease) -> AsyncGenerator[None]:
        """The log is cleaned, and what was kept long enough purged, now and then, inside the block."""
        store = self._under(lease)

        async def tidy() -> None:
            while True:
                await self.clock.sleep(self.randomness.jitter(self.config.clean_seconds))
                await self.clean()
                now = self.clock.wall()
                days = self.config.retention_days
                kept_since = rfc3339(now - days * _DAY_SECONDS)
                await purge_expired(store, kept_since, days, self.clock)
                await store.prune_history(rfc3339(now - _STATUS_HISTORY_SECONDS), kept_since)
                await forget_fleeting(store, self.clock)

        audit = Audit(store, self.about_contexts.signer, self.clock)
        checks = partial(check_now_and_then, store, audit, self.clock, self.randomness)
        async with (
            self.workers.running("housekeeping", tidy),
            self.workers.running("self-check", checks),
        ):
            yield

    @contextlib.asynccontextmanager
    async def collect_garbage(self, lease: Lease) -> AsyncGenerator[None]:
        """What was made for what is gone goes, too, inside the block."""
        collector = GarbageCollector(self._under(lease), self.clock, self.randomness)
        async with self.workers.running("garbage", collector.run):
            yield

    @contextlib.asynccontextmanager
    async def _controllers(self, number: int, lease: Lease) -> AsyncGenerator[None]:
        async with self.shards.held(number, lease if self.store.database.is_shared else None):
            yield

    def _under(self, lease: Lease) -> Store:
        """The store for whoever holds `lease`; where there is one process, nobody can take it."""
        return self.store.under(lease) if self.store.database.is_shared else self.store
