"""A hub, its regions and their gateways in one process, to reproduce outages: the real parts on real roads.

The hub's store is a file, the regions' logs are in memory. Time stands still for whatever waits on purpose
(soaks, beats, ages, caches) until a test lets it pass; the roads carry as soon as there is anything to carry.
Neither engine is under it, so the scenarios made of it run once.
A guard is taken away by giving a part other settings, or a class without the guard in its place.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest

from hub_contexts_parts import catalog, tenant
from hub_parts import REGIONS, put, region, remove
from transom.catalog.contexts import shipped_contexts
from transom.hub.config import ContextsConfig
from transom.hub.contexts.roads import ContextRoads
from transom.hub.contexts.row import BULK, FAST
from transom.hub.contexts.service import Contexts
from transom.hub.store import Store
from transom.links import sweep, sweeping
from transom.logs.memory import MemoryLog
from transom.logs.protocol import TopicPartition
from transom.model.api_keys import hash_of
from transom.model.contexts import ContextKinds
from transom.model.names import Key
from transom.model.records import Record
from transom.model.resources import Metadata, Resource
from transom.model.roads import CONTEXTS, CONTEXTS_BULK, GatewayBeat, context_table
from transom.region.contexts.door import Door
from transom.region.contexts.table import ContextTable
from transom.region.gateway.decider import KeyDecider
from transom.region.gateway.heartbeat import GatewayHeart
from transom.region.topics import TOPICS
from transom.runtime.clock import ManualClock, SystemClock
from transom.runtime.randomness import Randomness
from transom.runtime.signing import Signer, Trust, new_signer
from transom.tables.keeper import keep
from transom.tables.memory import MemoryTable
from transom.tables.protocol import Table
from transom.tables.seals import Seals
from transom.tables.sqlite import SqliteTable
from transom.tables.sweeps import answer_sweeps

ROAD_CLOCK = SystemClock()
SIGNER = new_signer()
SELDOM = 1e6
BOTH = (CONTEXTS, CONTEXTS_BULK)
PATIENCE_SECONDS = 10
SOAK_FIRST = REGIONS[0]


def api_key(name: str, key: bytes, **spec: Any) -> Resource:
    """The resource that declares `key` of acme."""
    return Resource("ApiKey", Metadata(name, "acme"), spec={"hash": hash_of(key).hex(), **spec})


class Consumer(Protocol):
    """What a service in a region makes of the contexts its gateway holds."""

    def take(self, records: Sequence[Record]) -> None:
        """Take in what is there at the start, and then whatever comes; what it raises ends its process."""
        ...


def door_of(region: str, kinds: ContextKinds, *trusted: Signer) -> Door:
    """The door of a region that trusts these signers."""
    return Door(Seals(region, Trust([signer.public_text for signer in trusted])), kinds)


class Deadlocking(MemoryTable):
    """A table with a latent fault: when it has taken in a value of a certain shape, it waits for a lock that
    it holds itself. Killed with its process, it has taken in nothing.
    """

    def __init__(self, shape: bytes) -> None:
        super().__init__()
        self.stuck, self.killed = asyncio.Event(), asyncio.Event()
        self._shape = shape
        self._lock = asyncio.Lock()

    async def apply(
        self, records: Sequence[Record], positions: Mapping[TopicPartition, int]
    ) -> Sequence[Record]:
        async with self._lock:
            changed = await super().apply(records, positions)
            if any(self._shape in record.value for record in changed):
                self.stuck.set()
                await self.killed.wait()
                raise RuntimeError("killed")
            return changed

    async def get(self, key: str) -> Record | None:
        async with self._lock:
            return await super().get(key)

    async def until_stuck(self) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.stuck.wait()


@dataclass
class Gateway:
    """One gateway: its door, its table, its decider, and its feed."""

    region: str
    log: MemoryLog
    clock: ManualClock
    kinds: ContextKinds
    door: Door
    inner: Table
    decider_class: type[KeyDecider] = KeyDecider
    consumer: Consumer | None = None
    rows_max: int = 1000
    disk: Path | None = None
    """Its table's file; without one the table is in memory, and `inner` outlives it."""
    crashed: Exception | None = None
    behind: bool = True
    _stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])

    async def start(self) -> None:
        """Start it, on what its table holds."""
        self.crashed, self.behind = None, True
        if self.disk is not None:
            self.inner = await SqliteTable.open(self.disk)
            self._stack.push_async_callback(self.inner.close)
        self.table = await ContextTable.open(self.inner, self.door, self.clock, self.rows_max)
        decider = self.decider_class(self.table, self.door, self.clock, Randomness(1))
        self.decider = await self._stack.enter_async_context(decider)
        answers = answer_sweeps(context_table(self.region), self.table, self.log)
        self._tasks = [asyncio.create_task(self._feed()), asyncio.create_task(answers)]

    async def stop(self) -> None:
        if isinstance(self.inner, Deadlocking):
            self.inner.killed.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()

    async def restart(self, **parts: Any) -> None:
        """End it and start it again, with other parts if any are given."""
        await self.stop()
        for name, part in parts.items():
            setattr(self, name, part)
        await self.start()

    async def _feed(self) -> None:
        try:
            if self.consumer is not None:
                self.consumer.take(await self.table.scan())
                self.table.listen(self.consumer.take)
            await keep(self.table, self.log, BOTH, self.door.read, tell=self._tell)
        except Exception as error:  # noqa: BLE001  # this is what a crash looks like
            self.crashed = error
            self.table.moved.rise()

    def _tell(self, behind: bool) -> None:  # noqa: FBT001  # as `keep` says it
        self.table.set_behind(behind)
        self.behind = behind
        self.table.moved.rise()

    async def complete(self) -> None:
        """Wait until it has read the log as it was when it started, and knows that it has all."""
        await self.until(lambda: not self.behind and self.table.knows.complete)

    async def status(self, key: bytes, app: str = "") -> int:
        """What a request is answered."""
        return (await self.decider.decide(key, app, "GET")).status

    async def beat(self) -> GatewayBeat:
        heart = GatewayHeart(
            region=self.region,
            gateway=self.region,
            epoch=1,
            table=self.table,
            door=self.door,
            ready=lambda: self.table.knows.complete,
            errors=lambda: self.decider.errors,
            address=lambda: "",
            states=dict,
            clock=self.clock,
            randomness=Randomness(1),
            period_seconds=2,
        )
        return await heart.now()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds; it is looked at whenever the gateway has come to know more."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not condition():
                await self.table.moved.above(self.table.moved.value)


class OpenGates(Contexts):
    """The hub's contexts with no gate before any region."""

    def _apply(self, region):
        super()._apply(region)
        region.sources[BULK].open_to(None)


@dataclass
class Hub:
    """A running hub: what is declared is built, and goes out on the roads."""

    store: Store
    contexts: Contexts
    gateways: dict[str, Gateway]
    clock: ManualClock
    silent: set[str] = field(default_factory=set[str])
    """Regions whose gateways hang: their beats never come."""

    async def declare(self, *resources: Resource) -> int:
        """Declare, build and send; returns the store's revision before."""
        before = self.store.changed.value
        for outcome in await self.store.write_all([put(resource) for resource in resources]):
            assert not isinstance(outcome, Exception), outcome
        await self.build()
        return before

    async def delete(self, *keys: Key) -> None:
        for outcome in await self.store.write_all([remove(key) for key in keys]):
            assert outcome is None, outcome
        await self.build()

    async def build(self) -> None:
        while await self.contexts.builder.do_some():
            pass
        await self.look()

    async def look(self) -> None:
        """Hear every gateway that can be heard, and look after the gates."""
        for name, gateway in self.gateways.items():
            if name not in self.silent:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    self.contexts.region(name).hear(await gateway.beat(), self.clock.wall())
        await self.contexts.look_at_gates()

    async def arrived(self, *regions: str) -> None:
        """Wait until the gateways have read all that may go to them now."""
        for name in regions or sorted(self.gateways):
            await self._arrived(name)
        await self.look()

    async def _arrived(self, name: str) -> None:
        newest = {lane: self.contexts.contexts.changed[lane].value for lane in (FAST, BULK)}
        gate = self.contexts.region(name).sources[BULK].gate
        bulk = newest[BULK] if gate is None else min(newest[BULK], gate)
        gateway = self.gateways[name]

        def read() -> bool:
            knows = gateway.table.knows
            return gateway.crashed is not None or (
                knows.revision >= newest[FAST] and knows.bulk_revision >= bulk
            )

        await gateway.until(read)

    async def sent(self, name: str) -> None:
        """Wait until all that may go in bulk to a region is in its log, read or not."""
        state = self.contexts.region(name).published[BULK]
        async with asyncio.timeout(PATIENCE_SECONDS):
            while state.revision < self.contexts.contexts.changed[BULK].value:
                await state.moved.above(state.moved.value)

    async def pass_time(self, seconds: float, every: float = 10.0) -> None:
        """Let time pass; gateways beat and the gates are looked after all the while."""
        for _ in range(int(seconds / every)):
            self.clock.advance(every)
            for _ in range(20):  # looking may wait for nothing: the others must have their turn
                await asyncio.sleep(0)
            await self.look()

    async def verified(self) -> None:
        """Wait until every gateway's table is known to be complete."""
        await self.look()
        for gateway in self.gateways.values():
            await gateway.complete()
        await self.look()

    async def all_crashed(self) -> None:
        """Wait until every gateway has."""
        for gateway in self.gateways.values():
            await gateway.until(lambda gateway=gateway: gateway.crashed is not None)

    async def refused(self, key: str) -> None:
        """Wait until every gateway's door has refused a record of `key`."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while any(key not in gateway.door.refused for gateway in self.gateways.values()):
                await asyncio.sleep(0)

    async def statuses(self, key: bytes) -> dict[str, int]:
        return {name: await gateway.status(key) for name, gateway in self.gateways.items()}


@contextlib.asynccontextmanager
async def running(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run `works` beside the block; when one of them raises, the block is left with that."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in works]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


@dataclass
class Globe:
    """Regions with a log each, and a store for the hub: what outlives processes."""

    store: Store
    clock: ManualClock
    logs: dict[str, MemoryLog]

    def gateway(
        self,
        name: str,
        kinds: ContextKinds | None = None,
        *,
        trusted: Sequence[Signer] = (SIGNER,),
        door: Door | None = None,
        inner: Table | None = None,
        **parts: Any,
    ) -> Gateway:
        """The gateway of a region, not running yet."""
        kinds = kinds or shipped_contexts()
        door = door or door_of(name, kinds, *trusted)
        return Gateway(name, self.logs[name], self.clock, kinds, door, inner or MemoryTable(), **parts)

    @contextlib.asynccontextmanager
    async def hub(
        self,
        gateways: Sequence[Gateway],
        kinds: ContextKinds | None = None,
        *,
        signer: Signer = SIGNER,
        contexts_class: type[Contexts] = Contexts,
        sweep_seconds: float = SELDOM,
        **settings: Any,
    ) -> AsyncIterator[Hub]:
        """A hub that runs inside the block, and hears these gateways."""
        config = ContextsConfig(canary_seconds=0.1, **settings)
        contexts = await contexts_class.open(
            self.store, kinds or shipped_contexts(), config, signer, self.clock
        )
        hub = Hub(self.store, contexts, {each.region: each for each in gateways}, self.clock)
        roads = [self._roads(contexts, name, sweep_seconds) for name in hub.gateways]
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(sweeping, "_LISTEN_SECONDS", 0.01)
            patched.setattr(sweep, "_ANSWER_SECONDS", 1.0)  # who asked a gateway that ended asks again
            try:
                async with running(*(lane.run() for road in roads for lane in (road.fast, road.bulk))):
                    await hub.build()
                    yield hub
            finally:
                await contexts.close()

    def _roads(self, contexts: Contexts, name: str, sweep_seconds: float) -> ContextRoads:
        return ContextRoads(
            contexts=contexts.region(name),
            hub_log=MemoryLog(ROAD_CLOCK),
            region_log=self.logs[name],
            topic=f"gateways.{name}",
            clock=ROAD_CLOCK,
            randomness=Randomness(1),
            sweep_seconds=sweep_seconds,
        )


@contextlib.asynccontextmanager
async def a_globe(folder: Path) -> AsyncIterator[Globe]:
    """A globe of three regions and one tenant."""
    clock = ManualClock()
    store = await Store.open(folder / "store.db", catalog(), clock, Randomness(7))
    declared = [tenant("acme"), *(region(name) for name in REGIONS)]
    try:
        for outcome in await store.write_all([put(each) for each in declared]):
            assert not isinstance(outcome, Exception), outcome
        logs = {name: MemoryLog(ROAD_CLOCK) for name in REGIONS}
        for log in logs.values():
            await log.create(TOPICS)
        yield Globe(store, clock, logs)
    finally:
        await store.close()


@contextlib.asynccontextmanager
async def serving(*gateways: Gateway) -> AsyncIterator[None]:
    """The gateways run inside the block."""
    async with contextlib.AsyncExitStack() as stack:
        for gateway in gateways:
            await gateway.start()
            stack.push_async_callback(gateway.stop)
        yield
