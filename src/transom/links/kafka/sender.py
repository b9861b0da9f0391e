"""Sending for all lanes: to each broker of the target a few requests are under way, each with a batch of
every partition that has one. Maps grow in the ledger first. Next on the data's way: the target's brokers.
"""

import asyncio
from collections.abc import Sequence

from transom.links.kafka.joining import Joining
from transom.links.kafka.lane import Lane, Outcome, Sent, Way
from transom.links.kafka.lanes import Lanes, leader_of
from transom.links.kafka.producing import Produced, produce
from transom.links.kafka.shard import Shard
from transom.links.kafka.telling import Telling
from transom.logs import kafka_api as api
from transom.logs.kafka_cluster import KafkaCluster, TransientError
from transom.logs.kafka_produce import ProducerLostError, is_lost
from transom.model.errors import TransomError
from transom.runtime.clock import Clock
from transom.runtime.steps import step
from transom.runtime.telemetry import get_logger

log_event = get_logger(__name__)

_REQUEST_BYTES = 2 << 20
_REQUESTS_MAX = 5
_FEW = 2
_REST_SECONDS = 0.1
_CONNECTION = 1 << 17
_KEYLESS = "; a compacted topic takes no record without a key"


class Sender:
    """Sends what `lanes` have ready to `target`."""

    def __init__(self, lanes: Lanes, target: KafkaCluster, clock: Clock, telling: Telling) -> None:
        self.joining = Joining()
        self._lanes, self._target, self._clock, self._telling = lanes, target, clock, telling
        self._under_way: dict[int, int] = {}
        self._turn = 0

    async def run(self) -> None:
        """Send, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep())
            while True:
                self._lanes.work.clear()
                while sent := await self._gather():
                    for node, each in sent.items():
                        self._under_way[node] = self._under_way.get(node, 0) + 1
                        group.create_task(self._send(node, each))
                    await asyncio.sleep(0)  # let what is ready go out
                await self._lanes.work.wait()

    async def _gather(self) -> dict[int, list[Sent]]:
        """What goes out next, by broker; lanes take turns at being first."""
        found: dict[int, list[Sent]] = {}
        for node, ready in (await self._ready()).items():
            size = 0
            for lane, shard in ready:
                if size < _REQUEST_BYTES and lane.sendable:
                    sent = self._take(lane, shard)
                    found.setdefault(node, []).append(sent)
                    size += len(sent.data)
        return found

    async def _ready(self) -> dict[int, list[tuple[Lane, Shard]]]:
        """The lanes that have something to send now, by broker; for brokers that may be sent something."""
        found: dict[int, list[tuple[Lane, Shard]]] = {}
        busy: dict[int, int] = {}
        now = self._clock.monotonic()
        for shard in list(self._lanes.shards.values()):
            for lane in shard.lanes.values():
                if lane.is_idle or lane.rest_until > now:
                    continue
                node, why = await leader_of(self._target, lane.target)
                if node < 0:
                    self._rest(lane, why or "it has no leader")
                    continue
                busy[node] = busy.get(node, 0) + 1
                if lane.sendable:
                    found.setdefault(node, []).append((lane, shard))
        self._turn += 1
        return {
            node: [*ready[self._turn % len(ready) :], *ready[: self._turn % len(ready)]]
            for node, ready in found.items()
            if self._may_send(node, len(ready), busy[node])
        }

    def _may_send(self, node: int, ready: int, busy: int) -> bool:
        """Whether to send to a broker now. With something under way, better one request of many lanes a
        little later than many requests of few.
        """
        under_way = self._under_way.get(node, 0)
        return under_way < _FEW or (under_way < _REQUESTS_MAX and 2 * ready >= busy)

    def _take(self, lane: Lane, shard: Shard) -> Sent:
        began = self._clock.monotonic()
        sent = lane.take(shard.producer, join=self.joining.is_better(lane))
        if sent.way is Way.JOINED:
            self.joining.joined(sent.count, self._clock.monotonic() - began)
        return sent

    async def _send(self, node: int, sent: Sequence[Sent]) -> None:
        began = self._clock.monotonic()
        try:
            told = await produce(
                self._target, node, [(each.lane.target, each.data) for each in sent], _CONNECTION
            )
        except (TransientError, TransomError) as error:
            for each in sent:
                self._rest(each.lane, str(error))
                self._answered(each, Outcome.AGAIN)
        else:
            step("carry.produced")
            now = self._clock.monotonic()
            self.joining.answered(now - began, now)
            for each in sent:
                self._digest(each, told[each.lane.target])
        finally:
            self._under_way[node] -= 1
            self._lanes.sent(each.lane for each in sent)

    def _digest(self, sent: Sent, told: Produced) -> None:
        lane, code = sent.lane, told.error
        if code == api.NONE:
            lane.trouble = ""
            self._answered(sent, Outcome.WRITTEN, told.base)
        elif is_lost(code):
            self._answered(
                sent, Outcome.LOST, told=f"the target refuses this producer: {api.code_name(code)}"
            )
        elif api.is_transient(code) or api.is_forbidden(code) or code == api.UNKNOWN:
            self._target.forget_layouts()
            self._rest(lane, api.code_name(code))
            self._answered(sent, Outcome.AGAIN)
        else:
            why = api.code_name(code) + (_KEYLESS if code == api.INVALID_RECORD else "")
            self._answered(sent, Outcome.REFUSED, told=f"is refused by the target: {why}")

    def _answered(self, sent: Sent, outcome: Outcome, base: int = -1, told: str = "") -> None:
        strangers = sent.lane.strangers
        wall = self._clock.wall()
        for written in sent.lane.answered(sent, outcome, base, told):
            self._telling.wrote(written, wall)
        if sent.lane.strangers > strangers:
            log_event.error(
                "somebody else writes to a copy",
                topic=sent.lane.target.topic,
                partition=sent.lane.target.partition,
            )
        if sent.lane.lost:
            self._lanes.ended.set()

    def _rest(self, lane: Lane, trouble: str) -> None:
        lane.trouble = f"{lane.target.topic}/{lane.target.partition} cannot be written: {trouble}"
        lane.rest_until = self._clock.monotonic() + _REST_SECONDS

    async def _keep(self) -> None:
        """Keep maps as they grow."""
        while True:
            self._lanes.unkept.clear()
            grown = [
                shard
                for shard in list(self._lanes.shards.values())
                if any(lane.unkept for lane in shard.lanes.values())
            ]
            if grown:
                await asyncio.gather(*map(self._keep_one, grown))
                step("carry.kept")
                self._lanes.work.set()
            await self._lanes.unkept.wait()

    async def _keep_one(self, shard: Shard) -> None:
        try:
            await shard.keep()
        except (ProducerLostError, TransomError) as error:
            for lane in shard.lanes.values():
                lane.lost = f"its map cannot be kept: {error}"
            self._lanes.ended.set()
