"""`transom drill`: take the hub or a region away on purpose, keep asking the gateways, and say what it cost.

It works on what `transom up` runs: the processes are killed (SIGKILL), stay away for a while, and are started
again. Meanwhile every gateway is asked at a steady rate with a key of the drill's own. Noticed is: for the
hub, that every gateway's knowledge has become old; for a region, that the hub calls it unreachable. Recovered
is: all gateways serve, know what the hub knows now, and the hub reaches every region. Ctrl-C cuts it short:
then too it brings back what it took away, waits until that has recovered, and reports what it saw.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import aiohttp
import msgspec

from transom.catalog.api_key.kind import API_KEY
from transom.client.hub import HubClient
from transom.model.api_keys import hash_of, new_api_key
from transom.model.errors import ConflictError, InvalidError, Problem, TransomError
from transom.model.resources import API_VERSION, JsonObject
from transom.processes.parts import Part
from transom.processes.up import parts_of
from transom.processes.up_files import Setup, address, read, region_names
from transom.runtime.clock import Clock, SystemClock, rfc3339
from transom.runtime.randomness import choose_secret
from transom.runtime.tasks import to_its_end

OLD_SECONDS = 6.0
"""Knowledge that is older than three canaries of the hub is old."""

_ASK_SECONDS = 2.0
_LOOK_SECONDS = 0.1
_GONE_SECONDS = 10.0
_BEFORE_SECONDS = 2.0
_PATIENCE_SECONDS = 60.0
_KEY_SECONDS = 2 * 3600.0
_SHOWN_CHARACTERS = 200


class HopelessError(InvalidError):
    """A gateway answers what no waiting mends: there is no such app, or the key has no right to it."""


class DrillReport(msgspec.Struct, frozen=True):
    """What a drill found; times in seconds, from the kill and from the new start.

    `cut_short`: somebody ended it before its time; what was not noticed by then is None.
    """

    taken_away: str
    away_seconds: float
    noticed_after_seconds: float | None
    recovered_after_seconds: float
    requests: dict[str, int]
    failed: dict[str, int]
    failed_elsewhere: int
    cut_short: bool = False


@dataclass
class Load:
    """Asks one gateway at a steady rate; `failed` are answers but 200, and none at all."""

    name: str
    url: str
    headers: dict[str, str]
    asked: int = 0
    failed: int = 0
    age_seconds: float | None = None
    served: bool = False
    last: str = "no answer"
    """The last answer, for people."""
    hopeless: bool = False
    """Whether waiting cannot mend the last answer: a 4xx, but 401, which a new key gets until it arrived."""

    async def run(self, http: aiohttp.ClientSession, clock: Clock, rate: float) -> None:
        """Ask for ever. An answer that takes long does not hold up the next question."""
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task(self._ask(http))
                await clock.sleep(1 / rate)

    async def _ask(self, http: aiohttp.ClientSession) -> None:
        self.asked += 1
        self.served = False
        try:
            async with http.get(self.url, headers=self.headers) as answer:
                body = await answer.read()
                self.served = answer.ok
                self.age_seconds = _age(answer.headers.get("transom-knows", ""))
            self.last = f"{answer.status} {body[:_SHOWN_CHARACTERS].decode(errors='replace')}".strip()
            wrong = HTTPStatus.BAD_REQUEST <= answer.status < HTTPStatus.INTERNAL_SERVER_ERROR
            self.hopeless = wrong and answer.status != HTTPStatus.UNAUTHORIZED
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.age_seconds, self.last, self.hopeless = None, f"no answer ({type(error).__name__})", False
        self.failed += not self.served


@dataclass
class Drill:
    """One drill on the parts of `setup`: takes `region` away (None: the hub). `tell` hears what happens."""

    setup: Setup
    parts: Sequence[Part]
    region: str | None
    tell: Callable[[str], None]
    clock: Clock = field(default_factory=SystemClock)

    async def run(self, tenant: str, app: str, away_seconds: float, rate: float) -> DrillReport:
        """Raises `InvalidError` when not all parts run, a gateway refuses the app, or something does not come
        within a minute.
        """
        idle = [part.name for part in self.parts if not part.pid()]
        if idle:
            raise InvalidError("drill", [Problem("", f"{', '.join(idle)}: not running; start `transom up`")])
        async with (
            self.setup.client() as hub,
            self._key(hub, tenant) as key,
            self._loads(app, key, rate) as loads,
        ):
            await self._until("all gateways to serve", lambda: _all_served(loads), lambda: _told(loads))
            await self.clock.sleep(_BEFORE_SECONDS)
            return await self._take_away(hub, loads, away_seconds)

    async def _take_away(self, hub: HubClient, loads: Sequence[Load], away_seconds: float) -> DrillReport:
        victims = [part for part in self.parts if self._hit(part)]
        for load in loads:
            load.asked = load.failed = 0
        began = self.clock.monotonic()
        noticed: float | None = None
        cut_short = False
        try:
            for part in victims:
                self.tell(f"killing {part.name} (pid {part.pid()})")
                os.kill(part.pid(), signal.SIGKILL)
            await self._until("it to be noticed", lambda: self._noticed(hub, loads), lambda: _told(loads))
            noticed = round(self.clock.monotonic() - began, 2)
            self.tell(f"noticed after {noticed:.1f} s")
            await self.clock.sleep(max(0.0, away_seconds - noticed))
        except asyncio.CancelledError:
            cut_short = self._cut_short()
        finally:
            # Also when the drill fails or is cut short: what it took away it brings back.
            away = self.clock.monotonic() - began
            try:
                await to_its_end(self._bring_back(victims))
            except asyncio.CancelledError:
                cut_short = self._cut_short()
        again = self.clock.monotonic()
        try:
            await self._recovery(hub, loads)
        except asyncio.CancelledError:
            cut_short = self._cut_short()
            await self._recovery(hub, loads)
        recovered = self.clock.monotonic() - again
        self.tell(f"recovered after {recovered:.1f} s")
        return DrillReport(
            taken_away=self._called,
            away_seconds=round(away, 1),
            noticed_after_seconds=noticed,
            recovered_after_seconds=round(recovered, 2),
            cut_short=cut_short,
            requests={load.name: load.asked for load in loads},
            failed={load.name: load.failed for load in loads},
            failed_elsewhere=sum(load.failed for load in loads if load.name != self.region),
        )

    async def _bring_back(self, victims: Sequence[Part]) -> None:
        """Start parts again. One that was killed a moment ago may not be gone yet."""
        until = self.clock.monotonic() + _GONE_SECONDS
        waiting = list(victims)
        for part in victims:
            self.tell(f"starting {part.name}")
        while waiting:
            await waiting[0].reap()
            try:
                waiting[0].start()
            except ConflictError:
                if self.clock.monotonic() >= until:
                    raise
                await self.clock.sleep(_LOOK_SECONDS)
            else:
                waiting.pop(0)

    def _cut_short(self) -> bool:
        """Take note that somebody wants the end; what was taken away is brought back all the same."""
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
        self.tell(f"cut short; {self._called} is brought back first (Ctrl-C again: do not wait for it)")
        return True

    async def _recovery(self, hub: HubClient, loads: Sequence[Load]) -> None:
        await self._until("it to recover", lambda: self._recovered(hub, loads), lambda: _told(loads))

    def _hit(self, part: Part) -> bool:
        if self.region is None:
            return part.name == "hub"
        return part.name in (f"region {self.region}", f"gateway {self.region}")

    @property
    def _called(self) -> str:
        return "the hub" if self.region is None else f"region {self.region}"

    async def _noticed(self, hub: HubClient, loads: Sequence[Load]) -> bool:
        if self.region is None:
            return all(load.age_seconds is not None and load.age_seconds > OLD_SECONDS for load in loads)
        return any(item["region"] == self.region and not item["reachable"] for item in await hub.regions())

    async def _recovered(self, hub: HubClient, loads: Sequence[Load]) -> bool:
        fresh = all(
            load.served and load.age_seconds is not None and load.age_seconds < OLD_SECONDS for load in loads
        )
        return fresh and all(item["reachable"] for item in await hub.regions())

    async def _until(self, what: str, so: Callable[[], Awaitable[bool]], told: Callable[[], str]) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while True:
                    try:
                        if await so():
                            return
                    except HopelessError:
                        raise
                    except TransomError:
                        pass  # the hub may be away
                    await self.clock.sleep(_LOOK_SECONDS)
        except TimeoutError:
            wrong = f"waited {_PATIENCE_SECONDS:.0f} s for {what}, in vain; last answers: {told()}"
            raise InvalidError("drill", [Problem("", wrong)]) from None

    @contextlib.asynccontextmanager
    async def _key(self, hub: HubClient, tenant: str) -> AsyncGenerator[str]:
        """A key of the drill's own, deleted afterwards; if that fails it expires by itself."""
        key = new_api_key(choose_secret)
        hashed = hash_of(key.encode()).hex()
        name = f"drill-{hashed[:8]}"
        manifest: JsonObject = {
            "apiVersion": API_VERSION,
            "kind": API_KEY.name,
            "metadata": {"name": name, "namespace": tenant},
            "spec": {"hash": hashed, "expiresAt": rfc3339(self.clock.wall() + _KEY_SECONDS)},
        }
        await hub.create(API_KEY, manifest, tenant, why=f"drill: {self._called}")
        try:
            yield key
        finally:
            try:
                await hub.delete(API_KEY, name, tenant, why=f"drill: {self._called}, ended")
            except TransomError as error:
                # What went wrong before is what matters.
                self.tell(f"the key {name} of {tenant} could not be deleted, it expires by itself: {error}")

    @contextlib.asynccontextmanager
    async def _loads(self, app: str, key: str, rate: float) -> AsyncGenerator[list[Load]]:
        headers = {"X-Api-Key": key, "X-Transom-Knows": "1"}
        loads = [
            Load(name, f"{address(config)}/apps/{app}/", headers)
            for name, config in self.setup.gateways.items()
        ]
        timeout = aiohttp.ClientTimeout(total=_ASK_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as http, asyncio.TaskGroup() as group:
            tasks = [group.create_task(load.run(http, self.clock, rate)) for load in loads]
            yield loads
            for task in tasks:
                task.cancel()


async def run_drill(
    folder: Path,
    region: str | None,
    *,
    tenant: str,
    app: str,
    away_seconds: float,
    rate: float,
    tell: Callable[[str], None],
) -> DrillReport:
    """Take a region (None: the hub) of the folder of `transom up` away, and bring it back.

    `rate` is questions a second to each gateway. Raises `InvalidError`.
    """
    names = region_names(folder)
    if region is not None and region not in names:
        known = ", ".join(names) or "none"
        raise InvalidError(f"region {region!r}", [Problem("", f"is not in {folder}; there is {known}")])
    setup = read(folder, names)
    drill = Drill(setup, parts_of(setup, SystemClock()), region, tell)
    return await drill.run(tenant, app, away_seconds, rate)


async def _all_served(loads: Sequence[Load]) -> bool:
    """Whether all serve. Raises `HopelessError` when one never will."""
    hopeless = [load for load in loads if load.hopeless]
    if hopeless:
        raise HopelessError("drill", [Problem("", f"nothing was taken away; {_told(hopeless)}")])
    return all(load.served for load in loads)


def _told(loads: Sequence[Load]) -> str:
    """What gateways answered last, for people."""
    return "; ".join(f"gateway {load.name}: {load.last}" for load in loads)


def _age(knows: str) -> float | None:
    """The age in a header of the form `…; age=1.5; …`."""
    for part in knows.split(";"):
        name, _, value = part.strip().partition("=")
        if name == "age":
            with contextlib.suppress(ValueError):
                return float(value)
    return None
