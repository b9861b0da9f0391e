"""Which resources this process's controllers look at: each key is in one of a few shards, each shard a duty.

Two processes that planned for the same resource would plan on different states; so one at a time does, and
what a former one still writes is refused (`store_duties`). Next on the data's way: `controllers`.
"""

import contextlib
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Self

from transom.logs.partitioner import partition_for
from transom.model.names import Key
from transom.runtime.duties import Lease
from transom.runtime.signals import Level

COUNT = 8
"""Into how many parts keys are divided: what several processes share, and no more of them than this can."""


class Shards:
    """The shards that are here, and the lease of each. `changed` rises when one comes or goes."""

    def __init__(self, leases: Mapping[int, Lease | None] | None = None) -> None:
        self._leases = dict(leases or {})
        self.changed = Level()

    @classmethod
    def everything(cls) -> Self:
        """All shards, without any lease: for where there is one process."""
        return cls(dict.fromkeys(range(COUNT)))

    def here(self, key: Key) -> bool:
        """Whether `key` is looked at in this process."""
        return _shard(key) in self._leases

    def leases_of(self, keys: Iterable[Key]) -> set[Lease]:
        """The leases under which is written for `keys`, which are here."""
        return {lease for key in keys if (lease := self._leases.get(_shard(key))) is not None}

    @contextlib.asynccontextmanager
    async def held(self, number: int, lease: Lease | None) -> AsyncGenerator[None]:
        """Have the shard here inside the block."""
        self._leases[number] = lease
        self.changed.rise()
        try:
            yield
        finally:
            del self._leases[number]
            self.changed.rise()


def _shard(key: Key) -> int:
    return partition_for(str(key).encode(), COUNT)
