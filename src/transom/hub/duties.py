"""What one process of the hub at a time does, shared by all that are there: relay, roads, parts of the rest.

Every process beats in the store and looks at who else does. What nobody does is taken by whoever has less
than its share; who has more gives up the rest, one by one, each brought to its end first. A process whose
beats stopped for `_SILENT_LOOKS` looks is dead to the others: they take what it did. It is the look that
counts and not the time alone, so nobody is dead because the database was away, or because the one who looks
stood still. A wrong verdict costs a hand-over and nothing else: what a former holder writes is refused where
it is stored (`store_duties`), and what it appends by the log's fence, which its successor takes.

Where no other process can be (a SQLite file), everything is taken at the start and nobody beats.
Next on the data's way: `service` says what each duty is.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from prometheus_client import Gauge

from transom.hub import store_duties
from transom.hub.store import Store
from transom.hub.store_duties import Lease, Member, Roster
from transom.model.errors import Advice, FencedError, InvalidError, Problem, TransomError
from transom.model.resources import JsonObject
from transom.runtime.clock import Clock
from transom.runtime.randomness import Randomness
from transom.runtime.tasks import Workers
from transom.runtime.telemetry import get_logger, metrics

log_event = get_logger(__name__)

LOOK_SECONDS = 1.0
_SILENT_LOOKS = 5
_BURIED_LOOKS = 60
_RIVAL_SECONDS = 60.0

_held = Gauge("transom_hub_duty_held", "Whether this process does a duty", ["duty"], registry=metrics)

Work = Callable[[Lease], AbstractAsyncContextManager[None]]
"""Does a duty inside its block, for as long as the lease holds."""


class _Watched(NamedTuple):
    """At which beat another process was seen last, and how often in a row."""

    beat: int
    looks: int = 1

    def once_more(self) -> "_Watched":
        return _Watched(self.beat, self.looks + 1)


@dataclass
class Duties:
    """This process's part of the `works`, by the name of each duty. `begin`, then `run` as a worker.

    `identity` names this process and no other; `predecessor` is the one whose place it takes, and certainly
    dead ("": none). `log` tells this hub's log from any other, `address` is where other processes reach this
    one.
    """

    store: Store
    works: Mapping[str, Work]
    workers: Workers
    clock: Clock
    randomness: Randomness
    identity: str
    predecessor: str = ""
    log: str = ""
    address: str = ""
    roster: Roster = field(default_factory=lambda: Roster({}, {}))
    _held: dict[str, Lease] = field(default_factory=dict[str, Lease])
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict[str, "asyncio.Task[None]"])
    _watched: dict[str, _Watched] = field(default_factory=dict[str, _Watched])
    _beats: int = 0

    async def begin(self) -> None:
        """Take what is free, and wait until it was begun with.

        Raises what the store raises, and `InvalidError` when a process that lives has another log.
        """
        dead = {self.predecessor} if self.store.database.is_shared else (await self._look_up()).members.keys()
        for name in dead - {""}:
            await self.store.within(partial(store_duties.leave, holder=name))
        await self._check_log()
        began = await self.look()
        await asyncio.gather(*(each.wait() for each in began))

    async def run(self) -> None:
        """Beat, look, take and give up, for ever; where nobody else can be, there is nothing to do."""
        away = False
        while self.store.database.is_shared:
            await self.clock.sleep(self.randomness.jitter(LOOK_SECONDS))
            try:
                await self.look()
            except TransomError as error:
                # At this pace also when the store is away: who backs off passes for dead when it is back.
                if error.advice is not Advice.RETRY:
                    raise
                if not away:
                    log_event.warning("cannot tell other processes that this one lives", error=str(error))
                away = True
            else:
                away = False

    async def close(self) -> None:
        """End what is done here, and leave it to the others."""
        for duty in list(self._held):
            await self._end(duty)
        with contextlib.suppress(TransomError):  # then it falls silent, as if it had been killed
            await self.store.within(partial(store_duties.leave, holder=self.identity))

    def holds(self, duty: str) -> bool:
        """Whether this process does `duty`, as far as it knows."""
        return duty in self._held

    def holder(self, duty: str) -> str:
        """Where the process that does `duty` is reached; "" when nobody is known to do it."""
        lease = self.roster.leases.get(duty)
        member = self.roster.members.get(lease.holder) if lease else None
        return member.address if member else ""

    def describe(self) -> list[JsonObject]:
        """What `GET /hub/processes` says: each process, whether it beats, and what it does."""
        doers = {duty: lease.holder for duty, lease in self.roster.leases.items()}
        doers |= dict.fromkeys(self._held, self.identity)
        return [
            {
                "id": name,
                "address": member.address,
                "here": name == self.identity,
                "alive": self._lives(name),
                "duties": [duty for duty in self.works if doers.get(duty) == name],
            }
            for name, member in sorted(self.roster.members.items())
        ]

    async def look(self) -> list[asyncio.Event]:
        """Beat, see who is there, and take or give up what follows from it; returns what is set once each
        duty that was taken has begun. Raises what the store raises.
        """
        self._beats += 1
        self.roster = await self.store.within(
            partial(
                store_duties.beat,
                holder=self.identity,
                member=Member(self.address, self.log, self._beats),
                names=list(self.works),
            )
        )
        await self._watch()
        for duty in [duty for duty, lease in self._held.items() if self.roster.leases.get(duty) != lease]:
            log_event.warning("another process of the hub has taken over", duty=duty)
            await self._end(duty)
        share = -(-len(self.works) // sum(map(self._lives, self.roster.members)))
        for duty in list(self._held)[share:]:
            lease = self._held[duty]
            await self._end(duty)
            await self.store.within(partial(store_duties.give_up, lease=lease))
        free = [duty for duty in self.works if self._is_free(duty)]
        began = [await self._take(duty) for duty in free[: max(0, share - len(self._held))]]
        return [each for each in began if each is not None]

    async def _check_log(self) -> None:
        """Whoever has another log would relay what this process relays, into nowhere."""
        first = (await self._look_up()).members
        strangers = {name: member.beat for name, member in first.items() if member.log != self.log}
        for _ in range(_SILENT_LOOKS if strangers else 0):
            await self.clock.sleep(LOOK_SECONDS)
            for name, member in (await self._look_up()).members.items():
                if name in strangers and member.beat != strangers[name]:
                    wrong = (
                        f"is not the one of the hub's process at {member.address}, which has the same store; "
                        "all processes of a hub use one log, in Kafka"
                    )
                    raise InvalidError("configuration of the hub", [Problem("log", wrong)])

    async def _look_up(self) -> Roster:
        return await self.store.read(store_duties.roster)

    async def _watch(self) -> None:
        """Count for how many looks each of the others has not beaten, and forget those long dead."""
        others = {name: at.beat for name, at in self.roster.members.items() if name != self.identity}
        known = self._watched
        self._watched = {
            name: known[name].once_more() if name in known and known[name].beat == beat else _Watched(beat)
            for name, beat in others.items()
        }
        for name, watched in self._watched.items():
            if watched.looks > _BURIED_LOOKS:
                await self.store.within(partial(store_duties.bury, holder=name, last_beat=watched.beat))

    def _lives(self, name: str) -> bool:
        return name not in self._watched or self._watched[name].looks <= _SILENT_LOOKS

    def _is_free(self, duty: str) -> bool:
        holder = self.roster.leases[duty].holder
        return duty not in self._held and not (holder in self.roster.members and self._lives(holder))

    async def _take(self, duty: str) -> asyncio.Event | None:
        """Take a duty that is free; None when somebody else did."""
        seen = self.roster.leases[duty]
        watched = self._watched.get(seen.holder)
        beat = watched.beat if watched else None
        take = partial(store_duties.take, seen=seen, beat_of_holder=beat, holder=self.identity)
        lease = await self.store.within(take)
        if lease is None:
            return None
        log_event.info("takes a duty", duty=duty, lease=lease.token)
        self._held[duty] = lease
        began = asyncio.Event()
        self._tasks[duty] = self.workers.start(f"duty {duty}", partial(self._do, lease, began))
        _held.labels(duty).set(1)
        return began

    async def _do(self, lease: Lease, began: asyncio.Event) -> None:
        try:
            async with self.works[lease.duty](lease):
                began.set()
                await asyncio.get_running_loop().create_future()  # until it is cancelled
        finally:
            began.set()

    async def _end(self, duty: str) -> None:
        task = self._tasks.pop(duty)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        del self._held[duty]
        _held.labels(duty).set(0)


async def keeping_its_fence(store: Store, worker: Callable[[], Awaitable[None]], clock: Clock) -> None:
    """Run `worker`, which appends under a log's fence, for as long as the leases of `store` hold.

    A former holder that stood still between looking at its lease and taking the fence has taken it in
    passing, and will not append under it: it is taken back. Who loses it again within a minute has a rival
    of another store, and stops (`FencedError`) rather than fight.
    """
    lost_at: float | None = None
    while True:
        try:
            await worker()
        except FencedError:
            await store.confirm()
            now = clock.monotonic()
            if lost_at is not None and now - lost_at < _RIVAL_SECONDS:
                raise
            lost_at = now
