"""The hub's duties, kept in its store beside what is written for them (`runtime.duties`, `store_duties`).

A log's fence shuts a former holder out where there is no store. Next on the data's way: `works` says what
each duty is.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from transom.hub import store_duties
from transom.hub.store import Store
from transom.model.errors import FencedError
from transom.runtime.clock import Clock
from transom.runtime.duties import Lease, Member, Roster

_RIVAL_SECONDS = 60.0


class StoreRegistry:
    """`Registry` in the hub's store."""

    is_shared = True

    def __init__(self, store: Store) -> None:
        self._store = store

    async def roster(self) -> Roster:
        """See `Registry.roster`."""
        return await self._store.read(store_duties.roster)

    async def beat(self, holder: str, member: Member, names: Sequence[str]) -> Roster:
        """See `Registry.beat`."""
        work = partial(store_duties.beat, holder=holder, member=member, names=names)
        return await self._store.within(work)

    async def take(self, seen: Lease, beat_of_holder: int | None, holder: str) -> Lease | None:
        """See `Registry.take`."""
        work = partial(store_duties.take, seen=seen, beat_of_holder=beat_of_holder, holder=holder)
        return await self._store.within(work)

    async def give_up(self, lease: Lease) -> None:
        """See `Registry.give_up`."""
        await self._store.within(partial(store_duties.give_up, lease=lease))

    async def leave(self, holder: str) -> None:
        """See `Registry.leave`."""
        await self._store.within(partial(store_duties.leave, holder=holder))

    async def bury(self, holder: str, last_beat: int) -> None:
        """See `Registry.bury`."""
        await self._store.within(partial(store_duties.bury, holder=holder, last_beat=last_beat))


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
