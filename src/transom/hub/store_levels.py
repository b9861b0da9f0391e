"""Who waits for the store is woken here, whichever process committed. Next: `store`."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping

from transom.hub.store_counter import rewound
from transom.hub.store_engine import Database, News, Watch
from transom.model.errors import RewoundError
from transom.runtime.signals import Level


class StoreLevels:
    """How far the store is, as this process knows; `lane_listeners` are told of contexts written elsewhere.

    `known` is the revision up to which all that was described has been told: what this process commits is
    told as it goes, what others commit in between is found by the watch.
    """

    def __init__(self) -> None:
        self.changed = Level()
        self.epoch = 0
        self.known = 0
        self.rewound: RewoundError | None = None
        self.lane_listeners: list[Callable[[Mapping[str, int]], None]] = []
        self._kinds: dict[str, Level] = {}
        self._regions: dict[str, Level] = {}
        self._watch: Watch | None = None

    def begin(self, database: Database, epoch: int, revision: int) -> None:
        """The store is at this epoch and revision; from now on hear what other processes commit."""
        self.epoch, self.known = epoch, revision
        self.changed.rise(revision)
        self._watch = database.watch(_Ear(self, asyncio.get_running_loop()))

    async def close(self) -> None:
        """Hear no more."""
        if self._watch is not None:
            await self._watch.close()

    def region(self, region: str) -> Level:
        """See `Store.changed_for`."""
        return self._regions.setdefault(region, Level(self.changed.value))

    def kind(self, kind: str) -> Level:
        """See `Store.described`."""
        return self._kinds.setdefault(kind, Level(self.changed.value))

    def committed(self, news: News) -> None:
        """This process has committed something: wake who waits for it, here and elsewhere."""
        self._tell(news)
        if self._watch is not None and news.revision > news.since:
            self._watch.ring()

    def hear(self, news: News) -> None:
        """What any process has committed, or that the store is not what it was."""
        self.epoch = max(self.epoch, news.epoch)
        if news.revision < news.since:
            self.rewound = self.rewound or RewoundError(rewound(news.since, news.revision))
            self.changed.rise()  # whoever waits for more learns it by reading
        elif news.revision > self.known:
            self._tell(news)
            for listener in self.lane_listeners:
                listener(news.lanes)

    def _tell(self, news: News) -> None:
        # In the order of who is waited for: a region's publisher reads before the relay, which takes along
        # whatever there is by then.
        for region in news.regions & self._regions.keys():
            self._regions[region].rise(news.revision)
        for kind in news.kinds & self._kinds.keys():
            self._kinds[kind].rise(news.revision)
        self.changed.rise(news.revision)
        if news.since <= self.known:
            self.known = max(self.known, news.revision)


class _Ear:
    """Carries what a watch's thread learns to the event loop."""

    def __init__(self, levels: StoreLevels, loop: asyncio.AbstractEventLoop) -> None:
        self._levels = levels
        self._loop = loop

    def known(self) -> int:
        """See `Watcher.known`."""
        return self._levels.known

    def learn(self, news: News) -> None:
        """See `Watcher.learn`."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._levels.hear, news)
