"""The relay: carries the outbox into the hub's log, in revision order, each row once.

The position is appended together with the events, under a fence, so the relay killed anywhere goes on with
exactly the next row. Headers are CloudEvents' in Kafka's binary mode
(https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md).
Next on the data's way: `controllers`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from prometheus_client import Counter

from transom.hub.store import OutboxRow, Store
from transom.links.positions import POSITIONS, position_message, read_position
from transom.links.publish import SourcePosition
from transom.logs.protocol import Log, Message, Topic
from transom.runtime.steps import step
from transom.runtime.telemetry import get_logger, metrics
from transom.runtime.tracing import TRACEPARENT

log_event = get_logger(__name__)

CHANGES = Topic("changes", retention_seconds=7 * 86_400)

_LINK = "relay"
_BATCH = 1000
_FORGET_EVERY = 1000

_relayed = Counter("transom_relay_rows_total", "Outbox rows appended to the hub's log", registry=metrics)


async def check_incarnation(store: Store, log: Log) -> None:
    """Begin a new epoch when the log knows more of the store than the store itself: it was restored.

    What was lost had versions that new writes would get again. In a new epoch all that the store has is newer
    than what anybody was told before.
    """
    held = await read_position(log, _LINK, SourcePosition)
    # Behind the position: another process may write and relay meanwhile.
    epoch, revision = await store.standing()
    if held is not None and (held.epoch, held.revision) > (epoch, revision):
        log_event.error(
            "the store was restored from an older copy; a new epoch begins",
            store_revision=revision,
            log_revision=held.revision,
            store_epoch=epoch,
            log_epoch=held.epoch,
        )
        await store.begin_epoch(held.epoch)


@dataclass
class Relay:
    """Appends the store's outbox to `log`'s topic `changes`."""

    store: Store
    log: Log

    async def run(self) -> None:
        """Relay for ever. Raises what store and log raise; `FencedError` when another relay took over."""
        await self.log.create([POSITIONS, CHANGES])
        fence = await self.log.take_fence(_LINK)
        await self.store.confirm()
        held = await read_position(self.log, _LINK, SourcePosition)
        after = held.revision if held and held.epoch == self.store.epoch else 0
        forgotten = 0
        while True:
            seen = self.store.changed.value
            # What was appended last is mostly the newest there is: looking again would keep others waiting.
            rows = await self.store.outbox(after, _BATCH) if seen > after else ()
            if not rows:
                await self.store.changed.above(seen)
                continue
            step("relay.read")
            after = rows[-1].revision
            position = position_message(_LINK, SourcePosition(self.store.epoch, after))
            await self.log.append([*event_messages(rows), position], fence=fence)
            step("relay.appended")
            _relayed.inc(len(rows))
            if after - forgotten > _FORGET_EVERY:
                await self.store.forget_outbox(after)
                forgotten = after


def event_messages(rows: Sequence[OutboxRow]) -> list[Message]:
    """The CloudEvents that stand for outbox rows: the key is the resource's, the value its `ChangeEvent`."""
    return [
        Message(
            CHANGES.name,
            row.aggregateid.encode(),
            row.payload,
            (
                ("ce_specversion", b"1.0"),
                ("ce_id", row.id.encode()),
                ("ce_source", b"transom/hub"),
                ("ce_type", f"transom.dev.{row.aggregatetype}.{row.type}".encode()),
                ("ce_partitionkey", row.aggregateid.encode()),
                ("content-type", b"application/json"),
                (TRACEPARENT, row.traceparent.encode()),
            ),
        )
        for row in rows
    ]
