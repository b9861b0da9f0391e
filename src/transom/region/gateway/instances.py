"""Where the apps of this region run: the healthy instances, as its own agents report them.

Follows the region's `status` topic into a small table of its own, so that a gateway that starts while the log
is gone still knows where it forwarded to last. Answers come from memory. Next on the data's way: `proxy`.
"""

from collections.abc import Mapping, Sequence

import msgspec

from transom.logs.protocol import Entry, TopicPartition
from transom.logs.records import from_entry
from transom.model.errors import UNREADABLE
from transom.model.names import Key
from transom.model.records import Record
from transom.region.forwarding import ForwardingTable
from transom.region.gateway.decision import Endpoint
from transom.runtime.telemetry import get_logger
from transom.tables.protocol import Table

log_event = get_logger(__name__)

_PREFIX = "Instance/"
_HEALTHY = "Healthy"
_App = tuple[str, str]


class _Status(msgspec.Struct, frozen=True):
    """What is read of an Instance's status; see `catalog.instance.kind`."""

    app: str
    health: str
    host: str = ""
    port: int = 0


class InstanceTable(ForwardingTable):
    """`Endpoints` and the table behind it. Made by `open`."""

    def __init__(self, inner: Table) -> None:
        super().__init__(inner)
        self._apps: dict[_App, tuple[Endpoint, ...]] = {}
        self._app_of: dict[str, _App] = {}
        self._unsure = False

    @classmethod
    async def open(cls, inner: Table) -> "InstanceTable":
        """The table `inner` with the instances it holds already. Raises what `inner` raises."""
        table = cls(inner)
        await table._look_again()
        return table

    def healthy(self, tenant: str, app: str) -> tuple[Endpoint, ...]:
        """See `Endpoints.healthy`."""
        return self._apps.get((tenant, app), ())

    async def apply(
        self, records: Sequence[Record], positions: Mapping[TopicPartition, int]
    ) -> Sequence[Record]:
        """See `Table.apply`."""
        if self._unsure:
            await self._look_again()
        self._unsure = True
        changed = await self.inner.apply(records, positions)
        self._unsure = False
        for record in changed:
            self._take(record)
        return changed

    async def _look_again(self) -> None:
        """Read all instances, in place of those held: what a failed `apply` left on disk cannot be told."""
        held = await self.inner.scan(_PREFIX)
        self._apps.clear()
        self._app_of.clear()
        for record in held:
            self._take(record)

    def _take(self, record: Record) -> None:
        if not record.key.startswith(_PREFIX):
            return
        try:
            found = None if record.deleted else _endpoint(record)
        except (ValueError, *UNREADABLE) as error:
            # Where it listens cannot be told, so nothing is sent to it.
            log_event.warning("an instance cannot be read", key=record.key, error=str(error))
            found = None
        self._drop(record.key)
        if found is not None:
            app, endpoint = found
            others = self._apps.get(app, ())
            self._apps[app] = tuple(sorted((*others, endpoint)))
            self._app_of[record.key] = app

    def _drop(self, key: str) -> None:
        app = self._app_of.pop(key, None)
        if app is None:
            return
        name = key.rpartition("/")[2]
        left = tuple(each for each in self._apps[app] if each.instance != name)
        if left:
            self._apps[app] = left
        else:
            del self._apps[app]


def read_instance(entry: Entry) -> Record | None:
    """The record in an entry of `status` when it is an Instance's. Raises `InvalidError`."""
    if not (entry.key or b"").startswith(_PREFIX.encode()):
        return None
    return from_entry(entry)


def _endpoint(record: Record) -> tuple[_App, Endpoint] | None:
    """Whose it is and where it listens; None when it is not healthy. Raises when that cannot be read."""
    status = msgspec.json.decode(record.value, type=_Status)
    if status.health != _HEALTHY or not status.host or not status.port:
        return None
    key = Key.parse(record.key)
    return (key.namespace, status.app), Endpoint(key.name, status.host, status.port)
