"""What one process at a time does, shared by all that are there: the hub's relay and roads, a zone's agent.

Every process beats in a registry and looks at who else does. What nobody does is taken by whoever has less
than its share; who has more gives up the rest, one by one, each brought to its end first. A process whose
beats stopped for `SILENT_LOOKS` looks is dead to the others: they take what it did. It is the look that
counts and not the time alone, so nobody is dead because the registry was away, or because the one who looks
stood still. A wrong verdict costs a hand-over and nothing else: what a former holder writes is refused where
it is stored, by the token of its lease.
Source: leases with fencing tokens (Gray and Cheriton, 1989; Kleppmann, "How to do distributed locking").

Where no other process can be, everything is taken at the start and nobody beats (`Alone`).
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

from prometheus_client import Gauge

from transom.model.errors import Advice, ConflictError, FencedError, InvalidError, Problem, TransomError
from transom.model.resources import JsonObject
from transom.runtime.clock import Clock
from transom.runtime.randomness import Randomness
from transom.runtime.secret_files import write_private
from transom.runtime.tasks import Workers
from transom.runtime.telemetry import get_logger, metrics

log_event = get_logger(__name__)

LOOK_SECONDS = 1.0
SILENT_LOOKS = 5
_LOOKS_ALONE = 3
_BURIED_LOOKS = 60

_held = Gauge("transom_duty_held", "Whether this process does a duty", ["duty"], registry=metrics)


class Lease(NamedTuple):
    """The right of the process `holder` to do `duty`, for as long as nobody has taken it since."""

    duty: str
    holder: str
    token: int


Work = Callable[[Lease], AbstractAsyncContextManager[None]]
"""Does a duty inside its block, for as long as the lease holds."""


class Member(NamedTuple):
    """A process: where the others reach it, how often it has beaten, and what must be the same in all that
    have it: names, and fingerprints of what stands under them.
    """

    address: str
    beat: int
    alike: Mapping[str, str] = {}


class Roster(NamedTuple):
    """The processes by id, and the newest lease of each duty by name (`holder` "": nobody has it)."""

    members: Mapping[str, Member]
    leases: Mapping[str, Lease]


class Registry(Protocol):
    """Where processes show that they live, and who does what. All methods raise what its storage raises."""

    is_shared: bool
    """Whether other processes can be there."""

    async def roster(self) -> Roster:
        """Who is there, and who does what."""
        ...

    async def beat(self, holder: str, member: Member, names: Sequence[str]) -> Roster:
        """Show that `holder` lives; returns who is there then, with a lease for each duty of `names`."""
        ...

    async def take(self, seen: Lease, beat_of_holder: int | None, holder: str) -> Lease | None:
        """Have `holder` take the duty of the lease `seen`; None when somebody else did, or its holder has
        beaten beyond `beat_of_holder` (None: it has none, or is not there any more).
        """
        ...

    async def give_up(self, lease: Lease) -> None:
        """Leave a duty to whoever wants it. Nothing happens when it was taken already."""
        ...

    async def leave(self, holder: str) -> None:
        """Have `holder` leave every duty, and be gone."""
        ...

    async def bury(self, holder: str, last_beat: int) -> None:
        """Forget a process that is dead, unless it has beaten since."""
        ...


class Alone:
    """The `Registry` of a process that shares nothing with any other."""

    is_shared = False

    async def roster(self) -> Roster:
        """See `Registry.roster`."""
        return Roster({}, {})

    async def beat(self, holder: str, member: Member, names: Sequence[str]) -> Roster:
        """See `Registry.beat`."""
        return Roster({holder: member}, {name: Lease(name, "", 0) for name in names})

    async def take(self, seen: Lease, beat_of_holder: int | None, holder: str) -> Lease | None:
        """See `Registry.take`."""
        del beat_of_holder
        return seen._replace(holder=holder, token=1)

    async def give_up(self, lease: Lease) -> None:
        """See `Registry.give_up`."""

    async def leave(self, holder: str) -> None:
        """See `Registry.leave`."""

    async def bury(self, holder: str, last_beat: int) -> None:
        """See `Registry.bury`."""


class _Watched(NamedTuple):
    """At which beat another process was seen last, and how often in a row."""

    beat: int
    looks: int = 1

    def once_more(self) -> "_Watched":
        return _Watched(self.beat, self.looks + 1)


@dataclass
class Duties:
    """This process's part of the duties. `begin`, then `run` as a worker.

    `identity` names this process and no other; `predecessor` is the one whose place it takes, and certainly
    dead ("": none). `alike` is what all processes must have in common (`Member`), `address` is where the
    others reach this one. Unless duties are to be `shared_evenly`, who has one keeps it, and the others wait
    for its end.
    """

    registry: Registry
    workers: Workers
    clock: Clock
    randomness: Randomness
    identity: str
    predecessor: str = ""
    alike: Mapping[str, str] = field(default_factory=dict[str, str])
    address: str = ""
    look_seconds: float = LOOK_SECONDS
    shared_evenly: bool = True
    works: Mapping[str, Work] = field(default_factory=dict[str, Work])
    roster: Roster = field(default_factory=lambda: Roster({}, {}))
    _held: dict[str, Lease] = field(default_factory=dict[str, Lease])
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict[str, "asyncio.Task[None]"])
    _watched: dict[str, _Watched] = field(default_factory=dict[str, _Watched])
    _let_go: set[Lease] = field(default_factory=set[Lease])
    _beats: int = 0

    async def begin(self, works: Mapping[str, Work]) -> None:
        """Take what is free of `works`, by the name of each duty, and wait until it was begun with.

        Raises what the registry raises, and `InvalidError` when another process that lives has not in common
        with this one what it must, or has its address.
        """
        self.works = works
        await self._check_alike()
        if self.predecessor:
            await self.registry.leave(self.predecessor)
        try:
            began = await self.look()
        except TransomError as error:
            if not self.registry.is_shared or error.advice is not Advice.RETRY:
                raise
            return  # `run` tries again
        await asyncio.gather(*(each.wait() for each in began))

    async def run(self) -> None:
        """Beat, look, take and give up, for ever; where nobody else can be, there is nothing to do."""
        away = False
        while self.registry.is_shared:
            # Who is alone watches nobody; whoever comes waits for longer than that before it takes anything.
            looks = 1 if len(self.roster.members) > 1 else _LOOKS_ALONE
            await self.clock.sleep(self.randomness.jitter(looks * self.look_seconds))
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
            await self.registry.leave(self.identity)

    async def as_long_as_held(self, lease: Lease, worker: Callable[[], Awaitable[None]]) -> None:
        """Run `worker`, which appends under a fence of the lease. When that is refused, or the log does not
        know of the fence, the duty is let go at the next look, and taken again if nobody else has it.
        """
        try:
            await worker()
        except (FencedError, ConflictError) as error:
            if not self.registry.is_shared:
                raise
            log_event.warning("cannot append for a duty any more", duty=lease.duty, error=str(error))
            self._let_go.add(lease)
            await asyncio.get_running_loop().create_future()  # until the duty is ended

    def holds(self, duty: str) -> bool:
        """Whether this process does `duty`, as far as it knows."""
        return duty in self._held

    def holder(self, duty: str) -> str:
        """Where the process that does `duty` is reached; "" when nobody is known to do it."""
        lease = self.roster.leases.get(duty)
        member = self.roster.members.get(lease.holder) if lease else None
        return member.address if member else ""

    def describe(self) -> list[JsonObject]:
        """For people: each process, whether it beats, and what it does."""
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

    async def _check_alike(self) -> None:
        seen = (await self.registry.roster()).members
        problems = {name: self._unlike(name, member) for name, member in seen.items()}
        for _ in range(SILENT_LOOKS if any(problems.values()) else 0):
            await self.clock.sleep(self.look_seconds)
            for name, member in (await self.registry.roster()).members.items():
                if problems.get(name) and member.beat != seen[name].beat:
                    raise InvalidError("configuration", problems[name])

    def _unlike(self, name: str, member: Member) -> list[Problem]:
        there = f"the process at {member.address}, which is there at the same time"
        wrong = [
            Problem(what, f"is not that of {there}; all of them must have the same")
            for what, value in member.alike.items()
            if self.alike.get(what, value) != value
        ]
        if member.address == self.address and name != self.predecessor:
            wrong.append(Problem("address", f"is that of {there}; give each its own"))
        return wrong

    async def look(self) -> list[asyncio.Event]:
        """Beat, see who is there, and take or give up what follows from it; returns what is set once each
        duty that was taken has begun. Raises what the registry raises.
        """
        self._beats += 1
        member = Member(self.address, self._beats, self.alike)
        self.roster = await self.registry.beat(self.identity, member, list(self.works))
        await self._watch()
        for duty in [duty for duty, lease in self._held.items() if self._is_lost(lease)]:
            log_event.warning("a duty is lost", duty=duty, holder=self.roster.leases[duty].holder)
            await self._end(duty)
        share = self._share()
        for duty in list(self._held)[share:]:
            lease = self._held[duty]
            await self._end(duty)
            await self.registry.give_up(lease)
        free = [duty for duty in self.works if self._is_free(duty)]
        began = [await self._take(duty) for duty in free[: max(0, share - len(self._held))]]
        return [each for each in began if each is not None]

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
                await self.registry.bury(name, watched.beat)

    def _lives(self, name: str) -> bool:
        return name not in self._watched or self._watched[name].looks <= SILENT_LOOKS

    def _share(self) -> int:
        """How many duties this process may have."""
        alive = sum(map(self._lives, self.roster.members)) if self.shared_evenly else 1
        return -(-len(self.works) // alive)

    def _is_lost(self, lease: Lease) -> bool:
        gone = lease in self._let_go or self._tasks[lease.duty].done()
        return gone or self.roster.leases.get(lease.duty) != lease

    def _is_free(self, duty: str) -> bool:
        holder = self.roster.leases[duty].holder
        others = holder != self.identity and holder in self.roster.members and self._lives(holder)
        return duty not in self._held and not others

    async def _take(self, duty: str) -> asyncio.Event | None:
        """Take a duty that is free; None when somebody else did."""
        seen = self.roster.leases[duty]
        watched = self._watched.get(seen.holder)
        beat = watched.beat if watched else None
        lease = await self.registry.take(seen, beat, self.identity)
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
        self._let_go.discard(self._held.pop(duty))
        _held.labels(duty).set(0)


def identity_in(folder: Path, registry: Registry, randomness: Randomness) -> tuple[str, str]:
    """A name for this process, and that of the one that held the data folder before it, which is dead; ""
    when there was none. For whoever holds the folder now. Without others nothing is written: who starts on
    a full disk need not leave its name there.
    """
    if not registry.is_shared:
        return randomness.uid(), ""
    file = folder / "process.id"
    predecessor = file.read_text(encoding="utf-8").strip() if file.exists() else ""
    identity = randomness.uid()
    write_private(file, identity + "\n")
    return identity, predecessor
