"""A queue of keys to look at: each key once, groups in turn, a bounded number handed out at a time.

A storm in one group (a tenant) never starves another: groups take turns, key by key. A key added while it
is being worked on is handed out again afterwards, never twice at once. There is nothing to bound but the
number of keys: a key waits at most once, however often it is added.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class FairQueue(Generic[K]):
    """Keys waiting for a worker; `group_of` names the group a key takes its turn in."""

    def __init__(self, group_of: Callable[[K], Hashable]) -> None:
        self._group_of = group_of
        self._groups: dict[Hashable, OrderedDict[K, None]] = {}
        self._turns: deque[Hashable] = deque()
        self._working: set[K] = set()
        self._again: set[K] = set()
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        return sum(len(keys) for keys in self._groups.values()) + len(self._again)

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is being worked on."""
        return not self._groups and not self._working

    def add(self, key: K) -> None:
        """Have `key` looked at, once."""
        if key in self._working:
            self._again.add(key)
            return
        group = self._group_of(key)
        if group not in self._groups:
            self._groups[group] = OrderedDict()
            self._turns.append(group)
        self._groups[group][key] = None
        self._filled.set()

    async def take(self, most: int) -> list[K]:
        """Wait for keys and take up to `most`, groups in turn. Each must be given back with `done`."""
        while not self._turns:
            self._filled.clear()
            await self._filled.wait()
        taken: list[K] = []
        while self._turns and len(taken) < most:
            group = self._turns.popleft()
            keys = self._groups[group]
            key, _ = keys.popitem(last=False)
            taken.append(key)
            self._working.add(key)
            if keys:
                self._turns.append(group)
            else:
                del self._groups[group]
        return taken

    def done(self, key: K) -> None:
        """Give back a key that was taken; it waits again if it was added meanwhile."""
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)
