"""Keeps the hub's roads as the declared Regions say: one set a region, opened and closed as they come and go.

Level-based like everything else: a change of a Region is a reason to look, not what is acted on. A region
whose key is missing is shown with its problem and does not disturb the others.
"""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from transom.catalog.region.kind import REGION, RegionSpec
from transom.hub.contexts.service import Contexts
from transom.hub.relay import CHANGES
from transom.hub.roads import Roads
from transom.hub.store import Store
from transom.logs.opening import LogPlace, open_log
from transom.logs.protocol import Log, TopicPartition
from transom.model.errors import InvalidError, OutOfRangeError
from transom.model.names import Key
from transom.model.resources import JsonObject, Resource
from transom.runtime.clock import Clock
from transom.runtime.randomness import Randomness
from transom.runtime.tasks import Workers
from transom.runtime.telemetry import get_logger

log_event = get_logger(__name__)

_WAIT_SECONDS = 30.0


@dataclass
class RoadNetwork:
    """All roads of a hub. `link_keys` is the folder that holds `<region>.key` for each region."""

    store: Store
    log: Log
    clock: Clock
    randomness: Randomness
    link_keys: Path
    sweep_seconds: float
    trust: Path | None = None
    contexts: Contexts | None = None
    roads: dict[str, Roads] = field(default_factory=dict[str, Roads])
    _built_from: dict[str, RegionSpec] = field(default_factory=dict[str, RegionSpec])
    _refused: dict[str, str] = field(default_factory=dict[str, str])

    async def run(self, workers: Workers) -> None:
        """Keep the roads as declared, for ever."""
        offsets = {
            TopicPartition(CHANGES.name, number): bounds.end
            for number, bounds in (await self.log.bounds(CHANGES.name)).items()
        }
        await self._arrange(workers)
        while True:
            try:
                entries = await self.log.read(offsets, wait_seconds=_WAIT_SECONDS)
            except OutOfRangeError as gap:
                offsets[TopicPartition(gap.topic, gap.partition)] = gap.end
                await self._arrange(workers)
                continue
            offsets.update({entry.position: entry.offset + 1 for entry in entries})
            declared = any(Key.parse((entry.key or b"").decode()).kind == REGION.name for entry in entries)
            # A key that was missing may have been put in its place meanwhile.
            if declared or (self._refused and not entries):
                await self._arrange(workers)

    async def close(self) -> None:
        """Close every road."""
        for name in list(self.roads):
            await self._close(name)

    async def describe(self) -> list[JsonObject]:
        """What can be said of every region's roads, by name; asks the regions, for a second at most."""
        reports = await asyncio.gather(*(roads.report() for roads in self.roads.values()))
        described: list[JsonObject] = [msgspec.to_builtins(report) for report in reports]
        for name, why in self._refused.items():
            described.append({"region": name, "reachable": False, "problems": {"link": why}})
        return sorted(described, key=lambda told: told["region"])

    async def _arrange(self, workers: Workers) -> None:
        declared = {region.metadata.name: region for region in await self.store.all_of(REGION.name)}
        for name in [name for name in self.roads if name not in declared]:
            await self._close(name)
            if self.contexts is not None:
                self.contexts.forget(name)
        self._refused = {name: why for name, why in self._refused.items() if name in declared}
        for name, region in declared.items():
            spec: RegionSpec = REGION.parse(region)
            if self._built_from.get(name) == spec:
                continue
            if name in self.roads:
                await self._close(name)
            try:
                await self._open(region, spec, workers)
            except InvalidError as error:
                if self._refused.get(name) != str(error):
                    log_event.warning("no road to a region", region=name, error=str(error))
                self._refused[name] = str(error)

    async def _open(self, region: Resource, spec: RegionSpec, workers: Workers) -> None:
        name = region.metadata.name
        place = LogPlace(spec.log, trust=self.trust)
        if place.needs_key:
            place = place._replace(key_file=self.link_keys / f"{name}.key")
        roads = Roads(
            region=name,
            environment=spec.environment,
            store=self.store,
            hub_log=self.log,
            region_log=await open_log(place, self.clock, self.randomness),
            clock=self.clock,
            randomness=self.randomness,
            sweep_seconds=self.sweep_seconds,
            contexts=self.contexts.region(name) if self.contexts is not None else None,
        )
        await roads.open()
        roads.start(workers)
        self.roads[name] = roads
        self._built_from[name] = spec
        self._refused.pop(name, None)

    async def _close(self, name: str) -> None:
        await self.roads.pop(name).stop()
        self._built_from.pop(name, None)
