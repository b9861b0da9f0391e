"""What runs controllers: woken by a change or by the clock, they read state, plan purely, and write.

A controller never sees an event: it is told which key to look at, and looks (level-based). Keys wait in a
fair queue, each once; a batch of them is read, planned and written together. A controller never plans on
state older than its own last write. Next on the data's way: `rows`.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from prometheus_client import Counter

from transom.hub.changes import Change
from transom.hub.relay import CHANGES
from transom.hub.shards import Shards
from transom.hub.store import Store
from transom.logs.protocol import Log, TopicPartition
from transom.model.errors import Advice, FencedError, InvalidError, OutOfRangeError, Problem, TransomError
from transom.model.kinds import Catalog
from transom.model.names import Key
from transom.model.resources import Resource
from transom.runtime.clock import Clock, timestamp
from transom.runtime.duties import LOOK_SECONDS
from transom.runtime.queues import FairQueue
from transom.runtime.randomness import Randomness
from transom.runtime.telemetry import get_logger, metrics
from transom.runtime.tracing import TRACEPARENT

log_event = get_logger(__name__)

RESYNC_SECONDS = 600.0
_WAIT_SECONDS = 30.0
_KEYS_AT_ONCE = 200

_planned = Counter("transom_controller_plans_total", "Resources looked at", ["controller"], registry=metrics)
_written = Counter("transom_controller_writes_total", "Changes asked for", ["controller"], registry=metrics)


@dataclass(frozen=True)
class Inputs:
    """All a controller may look at: a resource, what was made for it, and the other kinds its owner reads."""

    primary: Resource
    children: Sequence[Resource]
    others: Mapping[str, Sequence[Resource]]
    now: str


class Controller(Protocol):
    """Owns one kind, and folds its status into the one above (`primary`). Pure: no I/O, no clock."""

    name: str
    primary: str
    owns: str

    def wakes(self, changed: Key) -> Key | None:
        """Which primary resource to look at when `changed` has changed; None for all of them."""
        ...

    def plan(self, inputs: Inputs) -> list[Change]:
        """What must be written now; nothing when all is as it should be."""
        ...


def check_controllers(catalog: Catalog, controllers: Iterable[Controller]) -> None:
    """Refuse controllers that do not fit the catalog. Raises `InvalidError` with every mistake."""
    problems: list[Problem] = []
    owners: dict[str, str] = {}
    for controller in controllers:
        first = owners.setdefault(controller.owns, controller.name)
        if first != controller.name:
            problems.append(Problem(controller.owns, f"owned twice, by {first!r} and by {controller.name!r}"))
        kind = catalog[controller.owns]
        if kind.owner != controller.name:
            problems.append(Problem(kind.name, f"is owned by {kind.owner!r}, not by {controller.name!r}"))
        if controller.primary not in kind.reads:
            problems.append(
                Problem(kind.name, f"its owner looks at {controller.primary}, which it does not read")
            )
    problems.extend(
        Problem(kind.name, f"its owner {kind.owner!r} is not there")
        for kind in catalog
        if kind.reads and kind.owner not in ("api", "region") and kind.name not in owners
    )
    if problems:
        raise InvalidError("the controllers", problems)


@dataclass
class ControllerRunner:
    """Runs one controller."""

    controller: Controller
    store: Store
    log: Log
    clock: Clock
    randomness: Randomness
    shards: Shards = field(default_factory=Shards.everything)
    resync_seconds: float = RESYNC_SECONDS
    queue: FairQueue[Key] = field(default_factory=lambda: FairQueue[Key](lambda key: key.namespace))
    traces: dict[Key, str] = field(default_factory=dict[Key, str])
    """The trace of the newest event that woke a key which waits."""
    _seen: int = 0

    async def run(self) -> None:
        """Reconcile for ever. Raises what store and log raise."""
        self.queue = FairQueue(lambda key: key.namespace)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            group.create_task(self._follow())
            group.create_task(self._resync())
            group.create_task(self._work())

    async def _listen(self) -> None:
        """Wake on every change of a kind that the controller reads or owns."""
        kind = self.store.catalog[self.controller.owns]
        kinds = {*kind.reads, kind.name}
        offsets = {
            TopicPartition(CHANGES.name, number): bounds.end
            for number, bounds in (await self.log.bounds(CHANGES.name)).items()
        }
        await self._add_all()  # what changed before we listened
        while True:
            try:
                entries = await self.log.read(offsets, most=_KEYS_AT_ONCE * 5, wait_seconds=_WAIT_SECONDS)
            except OutOfRangeError as gap:
                offsets[TopicPartition(gap.topic, gap.partition)] = gap.end
                await self._add_all()
                continue
            for entry in entries:
                offsets[entry.position] = entry.offset + 1
                changed = Key.parse((entry.key or b"").decode())
                if changed.kind in kinds:
                    await self._wake(changed, dict(entry.headers).get(TRACEPARENT, b"").decode())

    async def _wake(self, changed: Key, trace: str) -> None:
        primary = self.controller.wakes(changed)
        if primary is None:
            await self._add_all()
        elif self.shards.here(primary):
            self.traces[primary] = trace
            self.queue.add(primary)

    async def _follow(self) -> None:
        """Look at all that came with a shard."""
        seen = self.shards.changed.value
        while True:
            seen = await self.shards.changed.above(seen)
            await self._add_all()

    async def _resync(self) -> None:
        while True:
            await self.clock.sleep(self.randomness.jitter(self.resync_seconds))
            await self._add_all()

    async def _add_all(self) -> None:
        for resource in await self.store.all_of(self.controller.primary):
            if self.shards.here(resource.key):
                self.queue.add(resource.key)

    async def _work(self) -> None:
        while True:
            keys = await self.queue.take(_KEYS_AT_ONCE)
            again = await self.look_at(keys)
            for key in keys:
                self.queue.done(key)
            for key in again:
                self.queue.add(key)

    async def look_at(self, keys: Sequence[Key]) -> set[Key]:
        """Plan and write for each of `keys`; returns those to look at again.

        A conflict means that somebody else got on: looking again at once sees what they did. What is refused
        for good is said, and looked at again when something changes.
        """
        traces = {key: self.traces.pop(key, "") for key in keys}
        # Before anything is read: what is read after a lease was lost is not written.
        keys = [key for key in keys if self.shards.here(key)]
        store = self.store.under(*self.shards.leases_of(keys))
        planned = await self.plan(keys)
        changes = [
            (key, replace(change, trace=traces[key]))
            for key, changes in planned.items()
            for change in changes
        ]
        if not changes:
            return set()
        try:
            outcomes = await store.write_all([change for _, change in changes])
        except FencedError as error:
            # Of all that was to be written together: what is still here is looked at again.
            log_event.info("writes refused", controller=self.controller.name, error=str(error))
            await self.clock.sleep(LOOK_SECONDS)
            return set(keys)
        self._seen = self.store.changed.value
        _written.labels(self.controller.name).inc(len(changes))
        again: set[Key] = set()
        for (key, change), outcome in zip(changes, outcomes, strict=True):
            if isinstance(outcome, TransomError):
                log_event.info(
                    "write refused", controller=self.controller.name, key=str(change.key), error=str(outcome)
                )
                if outcome.advice is Advice.RETRY:
                    again.add(key)
        return again

    async def plan(self, keys: Sequence[Key]) -> dict[Key, list[Change]]:
        """What would be written now for each of `keys` (a dry run)."""
        reads = self.store.catalog[self.controller.owns].reads
        beside = [kind for kind in reads if kind != self.controller.primary]
        found, children, others = await self.store.families(keys, beside, at_least=self._seen)
        by_uid = {resource.metadata.uid: key for key, resource in found.items()}
        mine: dict[Key, list[Resource]] = {key: [] for key in found}
        for child in children:
            if child.owner is not None and child.key.kind == self.controller.owns:
                mine[by_uid[child.owner.uid]].append(child)
        now = timestamp(self.clock)
        _planned.labels(self.controller.name).inc(len(found))
        return {
            key: self.controller.plan(Inputs(resource, mine[key], others, now))
            for key, resource in found.items()
        }
