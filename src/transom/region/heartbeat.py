"""What a region says of itself every few seconds, so that the hub can tell how old its knowledge is.

Only link workers read it. Next on the data's way: the mirror carries `heartbeats` to the hub.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from transom.logs.protocol import Fence, Log, TopicPartition
from transom.logs.records import from_entry, to_message
from transom.model import roads
from transom.model.errors import InvalidError
from transom.model.records import Record
from transom.model.resources import to_json
from transom.model.roads import DESIRED, HEARTBEATS
from transom.model.version import Version
from transom.runtime.clock import Clock, timestamp
from transom.runtime.randomness import Randomness
from transom.runtime.tasks import WorkerState
from transom.runtime.telemetry import get_logger
from transom.tables.protocol import Table

log_event = get_logger(__name__)


@dataclass
class Heartbeat:
    """The heartbeat of one region; `states` are its workers'. Of several processes, who beats has `fence`."""

    region: str
    log: Log
    desired: Table
    states: Callable[[], Mapping[str, WorkerState]]
    clock: Clock
    randomness: Randomness
    period_seconds: float
    fence: Fence | None = None

    async def run(self) -> None:
        """Beat for ever; a worker. The epoch is above that of the last beat, whatever the clock says."""
        epoch = max(int(self.clock.wall()), await self._last_epoch() + 1)
        counter = 0
        while True:
            counter += 1
            value = to_json(await self.now())
            record = Record(self.region, Version(epoch, counter, self.region), value)
            await self.log.append([to_message(HEARTBEATS, record)], fence=self.fence)
            await self.clock.sleep(self.randomness.jitter(self.period_seconds))

    async def now(self) -> roads.Heartbeat:
        """What is said: the time, how far the desired table has read, its newest version, ailing workers."""
        newest = await self.desired.latest()
        ailing = {name: state for name, state in self.states().items() if state.state != "running"}
        return roads.Heartbeat(
            region=self.region,
            time=timestamp(self.clock),
            desired={
                str(at.partition): offset
                for at, offset in (await self.desired.positions()).items()
                if at.topic == DESIRED
            },
            version=str(newest.version) if newest else "",
            workers={name: f"{state.state}: {state.error}" for name, state in ailing.items()},
        )

    async def _last_epoch(self) -> int:
        (bounds,) = (await self.log.bounds(HEARTBEATS)).values()
        if bounds.end == bounds.start:
            return 0
        last = await self.log.read({TopicPartition(HEARTBEATS, 0): bounds.end - 1})
        try:
            return from_entry(last[-1]).version.epoch if last else 0
        except InvalidError as error:
            log_event.warning("the last heartbeat cannot be read", error=str(error))
            return 0
