"""What a gateway says of itself every few seconds, and soon after it came to know more.

Soaks, moves and the age of what a region knows are judged by it at the hub. When it cannot be said, the log
being gone, serving goes on. Next on the data's way: the mirror carries `gateways` to the hub.

Two gateways that are given one name would both answer what the hub asks one of them. The one that began later
finds the other's beats beside its own: it serves on, but says and answers nothing until it is alone.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from transom.logs.protocol import Entry, Log, TopicPartition
from transom.logs.records import from_entry, to_message
from transom.model.errors import UNREADABLE, ConflictError, InvalidError, members_of
from transom.model.records import Record
from transom.model.resources import to_json
from transom.model.roads import CONTEXTS, CONTEXTS_BULK, GATEWAYS, GatewayBeat
from transom.model.version import Version
from transom.region.contexts.door import Door
from transom.region.contexts.table import ContextTable
from transom.runtime.clock import Clock, timestamp
from transom.runtime.randomness import Randomness
from transom.runtime.secret_files import write_private
from transom.runtime.signals import Level
from transom.runtime.tasks import WorkerState
from transom.runtime.telemetry import get_logger
from transom.tables.sweeps import partition_name

log_event = get_logger(__name__)

_APART_SECONDS = 0.25
"""Between two beats at least: a storm of changes is told of four times a second."""
_LISTEN_SECONDS = 15.0
"""Whoever has met another of its name listens for so long before it speaks again."""


@dataclass
class GatewayHeart:
    """The beat of one gateway; `epoch` is above that of its last life (`next_epoch`).

    `ready` says whether it answers all requests, `errors` counts look-ups that failed, `address` is where it
    listens, `states` are its workers'. `instance` tells it from another of its name; `taken`: who that is.
    """

    region: str
    gateway: str
    epoch: int
    table: ContextTable
    door: Door
    ready: Callable[[], bool]
    errors: Callable[[], int]
    address: Callable[[], str]
    states: Callable[[], Mapping[str, WorkerState]]
    clock: Clock
    randomness: Randomness
    period_seconds: float
    counter: int = 0
    instance: str = ""
    taken: str = ""
    met: Level = field(default_factory=Level)

    def __post_init__(self) -> None:
        self.instance = self.randomness.uid()

    async def run(self, log: Log) -> None:
        """Beat to `log` for ever; raises what it raises, and can be run again then.

        Raises `ConflictError` when another gateway has this name: `taken` says so and `met` rises, until it
        was not heard for a while.
        """
        positions = {
            TopicPartition(GATEWAYS, number): bounds.end
            for number, bounds in (await log.bounds(GATEWAYS)).items()
        }
        if self.taken:
            await self._meet(log, positions, _LISTEN_SECONDS)
            self.taken = ""
        while True:
            await self._meet(log, positions)
            seen = self.table.moved.value
            self.counter += 1
            version = Version(self.epoch, self.counter, f"{self.region}/{self.gateway}")
            record = Record(self.gateway, version, to_json(await self.now()))
            await log.append([to_message(GATEWAYS, record)])
            await self._pause(seen)

    async def alone(self, work: Coroutine[None, None, None]) -> None:
        """Do `work` while no other gateway has this name. Raises `ConflictError` when one has."""
        seen = self.met.value
        try:
            async with asyncio.TaskGroup() as group:
                working = group.create_task(work)
                while not self.taken:
                    seen = await self.met.above(seen)
                working.cancel()
        except ExceptionGroup as failed:
            raise members_of(failed)[0] from None
        raise ConflictError(self.taken)

    async def _meet(
        self, log: Log, positions: dict[TopicPartition, int], listen_seconds: float = 0.0
    ) -> None:
        """Look for beats of another of this name that began earlier, since `positions`."""
        until = self.clock.monotonic() + listen_seconds
        while True:
            left = max(0.0, until - self.clock.monotonic())
            entries = await log.read(positions, wait_seconds=left)
            for entry in entries:
                positions[entry.position] = entry.offset + 1
                other = self._earlier(entry)
                if other is not None:
                    self.taken = (
                        f"another gateway of region {self.region!r} is called {self.gateway!r}, at "
                        f"{other.address or 'an address it did not say'}; give one of them another name"
                    )
                    self.met.rise()
                    raise ConflictError(self.taken)
            if not entries:
                return

    def _earlier(self, entry: Entry) -> GatewayBeat | None:
        """The beat in an entry, if it is of another of this name that began before this one."""
        if entry.key != self.gateway.encode():
            return None
        try:
            record = from_entry(entry)
            beat = msgspec.json.decode(record.value, type=GatewayBeat)
        except (InvalidError, *UNREADABLE):
            return None
        # One of an earlier release does not say which it is.
        other = (record.version.epoch, beat.instance)
        return beat if beat.instance and other < (self.epoch, self.instance) else None

    async def now(self) -> GatewayBeat:
        """What is said."""
        knows = self.table.knows
        read, rows = await self._stored()
        ailing = {name: state for name, state in self.states().items() if state.state != "running"}
        return GatewayBeat(
            region=self.region,
            gateway=self.gateway,
            time=timestamp(self.clock),
            ready=self.ready(),
            epoch=knows.epoch,
            revision=knows.revision,
            bulk_revision=knows.bulk_revision,
            age_seconds=knows.age_seconds(self.clock),
            rows=rows,
            read=read,
            refused=dict(self.door.refused),
            refused_count=self.door.refused_count,
            errors=self.errors(),
            address=self.address(),
            instance=self.instance,
            workers={name: f"{state.state}: {state.error}" for name, state in ailing.items()},
        )

    async def _stored(self) -> tuple[dict[str, int], int]:
        """How far the table has read, and its rows; nothing of a table that cannot be read."""
        try:
            held = await self.table.positions()
            read = {
                partition_name(at): offset
                for at, offset in held.items()
                if at.topic in (CONTEXTS, CONTEXTS_BULK)
            }
            return read, await self.table.count()
        except Exception as error:  # noqa: BLE001  # whatever ails the table, this is how the hub hears of it
            log_event.debug("the table cannot be read", error=str(error))
            return {}, 0

    async def _pause(self, seen: int) -> None:
        """Until the period is over, or the knowledge moved beyond `seen`; never shorter than a moment."""
        await self.clock.sleep(_APART_SECONDS)
        async with asyncio.TaskGroup() as race:
            period = self.clock.sleep(self.randomness.jitter(self.period_seconds))
            over = race.create_task(period)
            moved = race.create_task(self.table.moved.above(seen))
            await asyncio.wait({over, moved}, return_when=asyncio.FIRST_COMPLETED)
            over.cancel()
            moved.cancel()


def next_epoch(folder: Path, clock: Clock) -> int:
    """A number above all that this gateway's lives before had, whatever the clock says; kept in `folder`."""
    file = folder / "incarnation"
    before = 0
    with contextlib.suppress(OSError, ValueError):
        before = int(file.read_text(encoding="utf-8"))
    epoch = max(int(clock.wall()), before + 1)
    try:
        write_private(file, f"{epoch}\n")
    except OSError as error:
        log_event.warning("the number of this life cannot be written", file=str(file), error=str(error))
    return epoch
