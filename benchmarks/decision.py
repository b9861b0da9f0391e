"""A gateway's decision about a key in its cache: how long it takes in the process, and what a key costs.

Times are medians of rounds over keys in random order, so that the processor's caches are as cold as they are
in a gateway with many clients.
"""

import asyncio
import gc
import random
import statistics
import time
import tracemalloc
from collections.abc import Sequence

from benchmarks.report import figure
from transom.catalog.contexts import shipped_contexts
from transom.model.access import ApiKeyValue, RouteValue
from transom.model.api_keys import hash_of, new_api_key
from transom.model.records import Record
from transom.model.resources import to_json
from transom.model.version import Version
from transom.region.contexts.door import Door
from transom.region.contexts.table import ContextTable
from transom.region.gateway.decider import KeyDecider
from transom.runtime.clock import SystemClock
from transom.runtime.randomness import Randomness
from transom.tables.memory import MemoryTable

KEYS = 100_000
TENANTS = 500
ROUNDS = 7
ASKED = 50_000
CHECKED = 1000


class Generated(MemoryTable):
    """Makes the record of a key when it is asked for, so that only the cache's own memory is counted.

    `limit` is how many requests a second two keys in three may make.
    """

    def __init__(self, keys: Sequence[bytes], tenants: int = TENANTS, limit: float | None = 100.0) -> None:
        super().__init__()
        self._number_of = {f"api_key/{hash_of(key).hex()}": number for number, key in enumerate(keys)}
        self._tenants = tenants
        self._limit = limit

    async def get(self, key: str) -> Record | None:
        """See `Table.get`."""
        if key.startswith("route/"):
            _, tenant, app = key.split("/")
            return Record(key, Version(1, 1, "hub"), to_json(RouteValue(tenant=tenant, app=app)))
        number = self._number_of.get(key)
        if number is None:
            return await super().get(key)
        value = ApiKeyValue(
            name=f"key-{number}",
            tenant=f"tenant-{number % self._tenants}",
            scopes=("*",) if number % 2 else ("app:shop",),
            expires_at=4e9 + number,
            revoked=False,
            suspended=False,
            requests_per_second=self._limit if number % 3 else None,
        )
        return Record(key, Version(1, number + 1, "hub"), to_json(value))


async def measure() -> None:
    """Fill the cache, then time warm decisions and count the memory."""
    clock = SystemClock()
    choose = random.Random(7).choice  # keys of a benchmark  # noqa: S311
    keys = [new_api_key(choose).encode() for _ in range(KEYS)]
    table = Generated(keys)
    door = Door(None, shipped_contexts())
    contexts = await ContextTable.open(table, door, clock, 10 * KEYS)
    async with KeyDecider(contexts, door, clock, Randomness(1), cache_entries=KEYS) as decider:
        for key in keys[:CHECKED]:  # routes and rights are there before memory is counted
            await decider.decide(key, "shop", "GET")
        gc.collect()
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        for key in keys[CHECKED:]:
            await decider.decide(key, "shop", "GET")
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        bytes_a_key = (after - before) / (KEYS - CHECKED)
        gc.freeze()
        # Copied one after another: in a gateway the key comes from the request that was just read.
        asked = [bytes(bytearray(key)) for key in random.Random(8).sample(keys, ASKED)]  # noqa: S311
        assert all(decider.decide_now(key, "shop", "GET") is not None for key in asked[:CHECKED])
        decide = decider.decide_now
        runs: list[float] = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            for key in asked:
                decide(key, "shop", "GET")
            runs.append((time.perf_counter() - began) / ASKED * 1e6)
    figure("decision about a warm key", statistics.median(runs), "µs", target="<= 3", runs=runs)
    figure("memory of a cached key", bytes_a_key, "bytes", target="<= 400")


if __name__ == "__main__":
    asyncio.run(measure())
