"""How long a revoked key is still good in three regions, and how long ten thousand of them take.

A real hub, three regions and a gateway in each, on two cores with this process. Each change is a PATCH of one
ApiKey over HTTP. Time runs from the hub's answer (the change is committed) until each of the three gateways
has refused a request with that key. Each gateway is asked on a connection that is kept, again a millisecond
after its last answer; what an answer and the pause take is in the figures, and printed beside them. "From
sending" begins when the PATCH is sent, so that the commit itself is in it, too.

The burst is 10,000 revocations, each of a resource of its own (a cause of many would go in bulk, and soak),
sent by 32 clients at once. It ends when every gateway reports a position beyond the last of them; then every
key is tried at every gateway. How long the hub's API took to take them is printed beside it.
"""

import argparse
import asyncio
import re
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from statistics import median

import uvloop

from benchmarks.plant import Part, Plant, manifest
from benchmarks.report import figure, note, percentile
from transom.catalog.api_key.kind import API_KEY
from transom.client.hub import HubClient
from transom.model.api_keys import hash_of, new_api_key
from transom.runtime.randomness import choose_secret

REGIONS = ("ap", "eu", "us")
TENANT = "acme"
_ROUNDS = 3
_CHANGES = 100
_BURST = 10_000
_CLIENTS = 32
_PAUSE_SECONDS = 0.05  # until what the change set off has come to rest
_POLL_SECONDS = 0.001
_HEAD = b"GET /decide HTTP/1.1\r\nhost: gateway\r\nx-transom-knows: 1\r\nx-api-key: %s\r\n\r\n"
_REVISION = re.compile(rb"transom-knows: epoch=\d+; revision=(\d+);[^\r]*complete=(\d)")


class Asker(asyncio.Protocol):
    """One kept connection to a gateway's decision endpoint; one question at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[bytes] | None = None

    @classmethod
    async def to(cls, part: Part) -> "Asker":
        """Connect to a gateway."""
        _, asker = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", part.port)
        return asker

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The gateway has accepted."""
        self._transport = transport  # pyright: ignore[reportAttributeAccessIssue]

    def data_received(self, data: bytes) -> None:
        """The answer, which is small, comes in one piece."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The gateway has closed the connection."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(exc or ConnectionResetError("the gateway closed the connection"))

    async def ask(self, key: str) -> bytes:
        """The answer about `key`."""
        assert self._transport is not None
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(_HEAD % key.encode())
        return await self._waiting

    async def status(self, key: str) -> int:
        """The status of the answer about `key`."""
        return int((await self.ask(key))[9:12])

    async def knows(self) -> tuple[int, bool]:
        """Up to which revision the gateway knows single changes, and whether its table is complete."""
        answer = await self.ask("")
        found = _REVISION.search(answer)
        assert found is not None, answer
        return int(found[1]), found[2] == b"1"

    def close(self) -> None:
        """Let go of the connection."""
        if self._transport is not None:
            self._transport.close()


async def main(burst: int) -> None:
    """Print the figures."""
    runs: list[tuple[list[float], list[float]]] = []
    with tempfile.TemporaryDirectory(prefix="transom-") as name:
        plant = Plant(Path(name), REGIONS, {"a": "null"}, 'log_level = "warning"', gateways="")
        async with plant.running() as hub:
            keys = [new_api_key(choose_secret) for _ in range(burst + _ROUNDS * _CHANGES)]
            newest = await declare_keys(hub, keys)
            askers = [await Asker.to(part) for part in plant.gateways.values()]
            await until_known(askers, newest)
            polls: list[float] = []
            for turn in range(_ROUNDS):
                mine = range(turn * _CHANGES, (turn + 1) * _CHANGES)
                runs.append(await _revoke_one_by_one(hub, askers, keys, mine, polls))
            _report(runs, polls)
            await _revoke_at_once(hub, askers, keys, range(_ROUNDS * _CHANGES, len(keys)))
            for asker in askers:
                asker.close()


def _report(runs: Sequence[tuple[list[float], list[float]]], polls: Sequence[float]) -> None:
    halves = [percentile(committed, 50) for committed, _ in runs]
    tails = [percentile(committed, 99) for committed, _ in runs]
    sent = [percentile(times, 50) for _, times in runs]
    figure("revocation_refused_in_three_regions_p50", median(halves), "ms", target="<= 20", runs=halves)
    figure("revocation_refused_in_three_regions_p99", median(tails), "ms", target="<= 100", runs=tails)
    note("revocation_refused_p50_from_sending", median(sent), "ms", runs=sent)
    note("revocation_poll_and_pause_p50", percentile(polls, 50), "ms")


async def declare_keys(hub: HubClient, keys: Sequence[str]) -> int:
    """Create an ApiKey for each of `keys`; returns the newest revision among them."""

    async def create(number: int) -> int:
        spec = {"hash": hash_of(keys[number].encode()).hex()}
        key = manifest("ApiKey", {"name": f"key-{number}", "namespace": TENANT}, spec)
        return int((await hub.create(API_KEY, key, TENANT)).metadata.resource_version)

    return await _by_many(create, range(len(keys)))


async def until_known(askers: Sequence[Asker], revision: int) -> None:
    """Wait until every gateway has a complete table, and knows everything up to `revision`."""
    async with asyncio.timeout(120):
        for asker in askers:
            while True:
                reached, complete = await asker.knows()
                if complete and reached >= revision:
                    break
                await asyncio.sleep(0.02)


async def _revoke(hub: HubClient, number: int) -> int:
    revoked = await hub.patch(API_KEY, f"key-{number}", {"spec": {"revoked": True}}, TENANT)
    return int(revoked.metadata.resource_version)


async def _revoke_one_by_one(
    hub: HubClient, askers: Sequence[Asker], keys: Sequence[str], numbers: Iterable[int], polls: list[float]
) -> tuple[list[float], list[float]]:
    """Milliseconds until refused everywhere, from the commit and from sending."""
    from_commit: list[float] = []
    from_sending: list[float] = []
    for number in numbers:
        for asker in askers:  # in every cache before, as a key that is used
            assert await asker.status(keys[number]) == 200
        polling = [asyncio.create_task(_until_refused(asker, keys[number], polls)) for asker in askers]
        sent = time.perf_counter()
        await _revoke(hub, number)
        committed = time.perf_counter()
        refused = max(await asyncio.gather(*polling))
        from_commit.append(1000 * max(0.0, refused - committed))
        from_sending.append(1000 * (refused - sent))
        await asyncio.sleep(_PAUSE_SECONDS)
    return from_commit, from_sending


async def _until_refused(asker: Asker, key: str, polls: list[float]) -> float:
    """When the first refusal was read."""
    while True:
        began = time.perf_counter()
        status = await asker.status(key)
        answered = time.perf_counter()
        if status == 401:
            return answered
        assert status == 200, status
        await asyncio.sleep(_POLL_SECONDS)
        polls.append(1000 * (time.perf_counter() - began))


async def _revoke_at_once(
    hub: HubClient, askers: Sequence[Asker], keys: Sequence[str], numbers: range
) -> None:
    began = time.perf_counter()
    newest = await _by_many(lambda number: _revoke(hub, number), numbers)
    taken = time.perf_counter() - began
    await until_known(askers, newest)
    figure("burst_of_10000_revocations_known_everywhere", time.perf_counter() - began, "s", target="<= 10")
    note("burst_taken_by_the_api", taken, "s")
    for asker in askers:
        for number in numbers:
            assert await asker.status(keys[number]) == 401, "a revoked key is good after its revocation"


async def _by_many(work: Callable[[int], Awaitable[int]], numbers: Iterable[int]) -> int:
    """Do `work` for all numbers, by a few clients at once; returns the greatest result."""
    left, newest = iter(numbers), 0

    async def client() -> None:
        nonlocal newest
        for number in left:
            newest = max(newest, await work(number))

    async with asyncio.TaskGroup() as group:
        for _ in range(_CLIENTS):
            group.create_task(client())
    return newest


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--burst", type=int, default=_BURST)
    uvloop.run(main(parser.parse_args().burst))
