"""The loading cache: what a hit costs beside a `dict`, and what memory it needs a key beside key and value.

100,000 values are held; their keys are SHA-256 digests, as a gateway makes them from what clients send, and
each look-up has one that was not hashed before. A hit is `peek` of 1,000 of them, over and over, loop and
call included. The comparison asks for each of the 100,000 once a round, so that most of it is waiting for
memory, and is a method against a built-in function. Memory is what `tracemalloc` counts once the values have
been loaded, less the keys and values themselves.
"""

import asyncio
import gc
import hashlib
import time
import tracemalloc
from collections.abc import Callable

from benchmarks.report import figure
from transom import Found, LoadingCache
from transom.runtime.clock import SystemClock
from transom.runtime.randomness import Randomness

_KEYS = 100_000
_HOT = 1_000
_ROUNDS = 7


def keys(count: int) -> list[bytes]:
    """As many keys as are held, `count` different ones, each an object of its own."""
    return [hashlib.sha256(str(number % count).encode()).digest() for number in range(_KEYS)]


def nanoseconds(look: Callable[[bytes], object], count: int) -> list[float]:
    """What one call costs, by round, when `count` of the keys are asked for over and over."""
    runs: list[float] = []
    for _ in range(_ROUNDS):
        asked = keys(count)
        began = time.perf_counter()
        for key in asked:
            look(key)
        runs.append((time.perf_counter() - began) / _KEYS * 1e9)
    return sorted(runs)


async def main() -> None:
    """Print the figures."""
    values = {key: Found(str(number), number) for number, key in enumerate(keys(_KEYS))}

    async def load(key: bytes) -> Found[str]:
        return values[key]

    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    cache = LoadingCache(load, clock=SystemClock(), randomness=Randomness(), fresh_seconds=600)
    async with cache:
        for key in values:
            await cache.get(key)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        figure("cache_memory_per_key", (after - before) / _KEYS, "bytes", target="<= 250")
        hot, every = nanoseconds(cache.peek, _HOT), nanoseconds(cache.peek, _KEYS)
        plain = nanoseconds(values.get, _KEYS)
        assert cache.stats().hits >= 2 * _ROUNDS * _KEYS, "not all were fresh"
    middle = _ROUNDS // 2
    figure("cache_hit", hot[middle] / 1000, "µs", target="<= 0.4", runs=[run / 1000 for run in hot])
    ratios = [mine / theirs for mine, theirs in zip(every, plain, strict=True)]
    figure("cache_hit_over_dict", ratios[middle], "times", target="<= 3", runs=ratios)


if __name__ == "__main__":
    asyncio.run(main())
