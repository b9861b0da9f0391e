"""What a gateway says of itself every few seconds, and soon after it came to know more.

Soaks, moves and the age of what a region knows are judged by it at the hub. When it cannot be said, the log
being gone, serving goes on. Next on the data's way: the mirror carries `gateways` to the hub.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from transom.logs.protocol import Log
from transom.logs.records import to_message
from transom.model.records import Record
from transom.model.resources import to_json
from transom.model.roads import CONTEXTS, CONTEXTS_BULK, GATEWAYS, GatewayBeat
from transom.model.version import Version
from transom.region.contexts.door import Door
from transom.region.contexts.table import ContextTable
from transom.runtime.clock import Clock, timestamp
from transom.runtime.randomness import Randomness
from transom.runtime.secret_files import write_private
from transom.runtime.tasks import WorkerState
from transom.runtime.telemetry import get_logger
from transom.tables.sweeps import partition_name

log_event = get_logger(__name__)

_APART_SECONDS = 0.25
"""Between two beats at least: a storm of changes is told of four times a second."""


@dataclass
class GatewayHeart:
    """The beat of one gateway; `epoch` is above that of its last life (`next_epoch`).

    `ready` says whether it answers all requests, `errors` counts look-ups that failed, `address` is where it
    listens, `states` are its workers'.
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

    async def run(self, log: Log) -> None:
        """Beat to `log` for ever; raises what it raises, and can be run again then."""
        while True:
            seen = self.table.moved.value
            self.counter += 1
            version = Version(self.epoch, self.counter, f"{self.region}/{self.gateway}")
            record = Record(self.gateway, version, to_json(await self.now()))
            await log.append([to_message(GATEWAYS, record)])
            await self._pause(seen)

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
