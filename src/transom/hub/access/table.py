"""Keys and bindings in memory, never older than what was acknowledged when a request came.

What is held is read from the store: at first all of it, then what was described since. A revocation that any
process of the hub has acknowledged holds for every request that begins afterwards, at every process:

- The only process of a store (SQLite) knows every commit before it is acknowledged (`Store.described`), so
  nothing is asked until a binding or a key changes.
- Processes that share a store (PostgreSQL) hear of each other's commits too late for that. So each request
  waits for a reading that began after it came: one small query, shared by all who wait. No cheaper way
  keeps the promise: a notification may be late or lost.

When the store does not answer, what is held goes on telling who somebody is; that it may be too old is said
(`fresh` is False), and then nothing is refused as unknown, and nothing is read or written for anybody.
Next on the data's way: `hub.api.door` asks who it is, `hub.api.gate` what they may do.
"""

import asyncio
from functools import partial

import msgspec

from transom.catalog.hub_key.kind import HUB_KEY
from transom.catalog.role_binding.kind import HUB_ROLE_BINDING, ROLE_BINDING
from transom.hub.access.keys import HubKeys
from transom.hub.access.rights import Rights
from transom.hub.store import Store
from transom.hub.store_described import described_after
from transom.model.errors import TransomError
from transom.model.resources import Resource
from transom.runtime.telemetry import get_logger

log = get_logger(__name__)

BINDINGS = (ROLE_BINDING.name, HUB_ROLE_BINDING.name)
ACCESS_KINDS = (HUB_KEY.name, *BINDINGS)
"""What says who comes in, and what they may do."""
_ANSWER_SECONDS = 5.0


class AccessTable:
    """`keys` and `rights` as the store has them. To be used on one event loop."""

    def __init__(self, store: Store) -> None:
        self.keys = HubKeys()
        self.rights = Rights(store.catalog)
        self._store = store
        self._levels = [store.described(kind) for kind in ACCESS_KINDS]
        self._known = -1
        self._turn = asyncio.Lock()
        self._begun = self._ended = 0
        self._fresh = False

    async def fresh(self) -> bool:
        """Bring it to where the store is now, or beyond. False: the store does not answer."""
        if not self._store.database.is_shared and max(level.value for level in self._levels) <= self._known:
            return True
        came = self._begun
        try:
            async with asyncio.timeout(_ANSWER_SECONDS), self._turn:
                # Another who waited may have had it read since: one reading serves all who came before it.
                if self._ended <= came:
                    self._begun += 1
                    self._fresh = False
                    await self._read()
                    self._fresh, self._ended = True, self._begun
        except TimeoutError:
            return False
        except TransomError as error:
            self._ended = self._begun
            log.warning("keys and bindings cannot be read", error=str(error))
            return False
        return self._fresh

    async def _read(self) -> None:
        described = await self._store.read(partial(described_after, kinds=ACCESS_KINDS, after=self._known))
        for key in described.gone:
            self.keys.drop(key)
            self.rights.drop(key)
        for resource in described.held:
            self._take(resource)
        self._known = described.upto

    def _take(self, resource: Resource) -> None:
        try:
            if resource.kind == HUB_KEY.name:
                self.keys.put(resource)
            elif resource.deleting:
                self.rights.drop(resource.key)
            else:
                self.rights.put(resource)
        except (ValueError, KeyError, TypeError, msgspec.ValidationError) as error:
            # What a later release wrote: it gives nothing here. What it gave before is gone already.
            self.keys.drop(resource.key)
            self.rights.drop(resource.key)
            log.warning("gives no rights: it cannot be read", resource=str(resource.key), error=str(error))
