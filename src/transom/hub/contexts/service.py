"""Contexts at the hub, put together: the store's part, the builder, the gate, and a part for each region.

Next on the data's way: `roads` of a region publishes from its `RegionContexts`.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

import msgspec

from transom.hub.config import ContextsConfig
from transom.hub.contexts.beats import Beats
from transom.hub.contexts.builder import ContextBuilder, Options
from transom.hub.contexts.gates import Gates, Grant, Rules, Sight, Soak, looked
from transom.hub.contexts.guards import SHARE, SOAK, Limits
from transom.hub.contexts.row import BULK, FAST, LANES, Row, Told, region_names, told
from transom.hub.contexts.rows import ContextRows
from transom.hub.contexts.state import GATES, SOAK_GRANT, Hold
from transom.hub.contexts.store import ContextStore
from transom.hub.store import Store
from transom.links.lanes import Freeze
from transom.links.publish import PublishState
from transom.logs.protocol import Headers
from transom.model.contexts import ContextKinds
from transom.model.errors import InvalidError, NotFoundError, Problem
from transom.model.kinds import Catalog
from transom.model.records import Record
from transom.model.resources import JsonObject, to_json
from transom.model.roads import GatewayBeat, context_table
from transom.runtime.clock import Clock, rfc3339
from transom.runtime.signals import Level, wait_any
from transom.runtime.signing import Signer
from transom.runtime.tasks import Workers
from transom.runtime.telemetry import get_logger
from transom.tables.seals import seal

log_event = get_logger(__name__)

_LOOK_SECONDS = 1.0
_IDLE_SECONDS = 30.0
_WAITING_SHOWN_MAX = 1_000_000
_PENDING_SHOWN_MAX = 10_000
_DIFF_MAX = 500
_HOLDS_NAMED_MAX = 3
_WHY_CHARACTERS_MAX = 120


def check_subjects(catalog: Catalog, kinds: ContextKinds) -> None:
    """Refuse context kinds that are made of resources there are none of. Raises `InvalidError`."""
    there = {kind.name for kind in catalog}
    wrong = [
        Problem(kind.name, f"its subject {kind.subject!r} is no kind of resource")
        for kind in kinds
        if kind.subject not in there
    ]
    if wrong:
        raise InvalidError("the context kinds", wrong)


def _no_holds(region: str) -> str:
    del region
    return ""


@dataclass
class RegionContexts:
    """What one region's roads need: a source a lane, whether it is frozen, and what its gateways said.

    Who publishes does so for as long as the leases of `store` hold. `published` are the states of the
    publishers, by lane, for whoever wants to know how far they are; `holds` says in a line what guards hold
    back for a region.
    """

    region: str
    store: Store
    sources: dict[str, ContextRows]
    beats: Beats
    config: ContextsConfig
    signer: Signer
    heard: Level
    holds: Callable[[str], str] = _no_holds
    freeze: Freeze = field(default_factory=Freeze)
    published: dict[str, PublishState] = field(
        default_factory=lambda: {lane: PublishState() for lane in LANES}
    )

    def seal(self, records: Sequence[Record]) -> Sequence[Headers]:
        """The headers that prove that records are for this region."""
        return seal(records, self.region, self.signer)

    def tables(self) -> list[str]:
        """The tables to sweep: one of each gateway that is there."""
        return [context_table(beat.gateway) for beat in self.beats.lately()]

    def hear(self, beat: GatewayBeat, sent: float) -> None:
        """A gateway's beat, sent at wall time `sent`."""
        if self.beats.hear(beat, sent):
            self.heard.rise()


@dataclass
class Contexts:
    """All of a hub's contexts. `region` gives the part of one; `start` runs the workers."""

    contexts: ContextStore
    builder: ContextBuilder
    config: ContextsConfig
    signer: Signer
    clock: Clock
    gates: Gates = field(default_factory=Gates)
    grant: Grant = field(default_factory=lambda: Grant("", 0, 0))
    regions: dict[str, RegionContexts] = field(default_factory=dict[str, RegionContexts])
    _heard: Level = field(default_factory=Level)
    _soak_region_known: bool = True
    _tasks: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])

    @classmethod
    async def open(
        cls, store: Store, kinds: ContextKinds, config: ContextsConfig, signer: Signer, clock: Clock
    ) -> Self:
        """Read what was remembered. Raises what the store raises."""
        contexts = ContextStore(store)
        limits = Limits(config.max_share, config.min_rows, config.share_seconds)
        builder = ContextBuilder(contexts, kinds, clock, Options(config.bulk_rows, limits))
        self = cls(contexts, builder, config, signer, clock)
        builder.heard = self.heard
        builder.approved = lambda: self.gates.approved
        try:
            await contexts.open()
            await builder.load()
            kept = await contexts.remembered(GATES)
            granted = await contexts.remembered(SOAK_GRANT)
        except BaseException:
            await contexts.close()
            raise
        self.gates = msgspec.json.decode(kept, type=Gates) if kept else Gates()
        self.grant = msgspec.json.decode(granted, type=Grant) if granted else self.grant
        return self

    @property
    def kinds(self) -> ContextKinds:
        """The kinds of contexts there are."""
        return self.builder.kinds

    def start(self, workers: Workers) -> None:
        """Run the builder and the gate."""
        self._tasks = [
            workers.start("contexts", self.builder.run),
            workers.start("context gate", self.keep_gates),
        ]

    async def close(self) -> None:
        """End the workers and let go of the store's file."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.contexts.close()

    # --- regions ---

    def region(self, name: str) -> RegionContexts:
        """The part of one region. What was heard stays when its roads are laid anew."""
        found = self.regions.get(name)
        if found is None:
            sources = {
                lane: ContextRows(self.contexts, name, lane, lambda: self.builder.known) for lane in LANES
            }
            beats = Beats(name, self.clock)
            found = RegionContexts(
                name, self.contexts.store, sources, beats, self.config, self.signer, self._heard, self.held
            )
            self.regions[name] = found
            self._apply(found)
        return found

    def forget(self, name: str) -> None:
        """A region is not there any more."""
        self.regions.pop(name, None)

    def heard(self) -> dict[str, list[GatewayBeat]]:
        """The newest beats of the gateways that are there, by region."""
        return {name: region.beats.lately() for name, region in self.regions.items()}

    # --- the gate ---

    async def keep_gates(self) -> None:
        """Look after gate and freezes, for ever: a worker."""
        while True:
            levels = (self.contexts.changed[BULK], self.builder.controls, self._heard)
            seen = [(level, level.value) for level in levels]
            await self.look_at_gates()
            waiting = _IDLE_SECONDS if self.gates.soak is None else _LOOK_SECONDS
            await wait_any(seen, waiting)

    async def look_at_gates(self) -> None:
        """Bring gate and freezes up to date, once."""
        if self.builder.moving:
            self.builder.poked.rise()
        before, self.gates = self.gates, looked(self.gates, await self._sight(), self._rules())
        if self.gates.kept() != before.kept():
            await self.contexts.remember(GATES, to_json(self.gates.kept()))
        self._tell(before.soak)
        self._check_soak_region()
        for region in self.regions.values():
            self._apply(region)

    def _rules(self) -> Rules:
        return Rules(self.config.soak_seconds, self.config.soak_region)

    async def _sight(self) -> Sight:
        newest, approved = self.contexts.changed[BULK].value, self.gates.approved
        writing = any(job.writing and job.bulk for job in self.builder.state.jobs)
        allowed = self.builder.allowed().get(SOAK, 0)
        upto = await self._granted(newest, writing=writing)
        waiting = await self.contexts.waiting(BULK, approved, allowed + 1, upto) if upto > approved else 0
        return Sight(
            newest=newest,
            writing=writing,
            waiting=waiting,
            regions=self.builder.declared,
            frozen=self.builder.frozen,
            heard=self.heard(),
            epoch=self.contexts.store.epoch,
            known={
                name: [heard.beat.gateway for heard in region.beats.known()]
                for name, region in self.regions.items()
            },
            allowed=allowed,
            allowed_upto=upto,
            now=self.clock.monotonic(),
        )

    async def _granted(self, newest: int, *, writing: bool) -> int:
        """Up to which revision people let bulk rows pass (0: to none): the newest that waited when their
        override was looked at first, so that what comes later soaks as ever.
        """
        override = self.builder.override(SOAK)
        if override is None:
            return 0
        meta = override.metadata
        if (meta.uid, meta.generation) != (self.grant.uid, self.grant.generation):
            if newest <= self.gates.approved or writing:
                return 0  # it is for what is to come, or is still being written
            self.grant = Grant(meta.uid, meta.generation, newest)
            await self.contexts.remember(SOAK_GRANT, to_json(self.grant))
        return self.grant.upto

    def _check_soak_region(self) -> None:
        """Say, once, that the region where bulk contexts were to go first is not there."""
        name, declared = self.config.soak_region, self.builder.declared
        known = not name or not declared or name in declared
        if self._soak_region_known and not known:
            log_event.warning(
                "the soak region is not declared; another region is tried first",
                soak_region=name,
                regions=sorted(declared),
            )
        self._soak_region_known = known

    def _apply(self, region: RegionContexts) -> None:
        region.freeze.set(region.region in self.builder.frozen)
        region.sources[BULK].open_to(self.gates.upto(region.region))

    def _tell(self, before: Soak | None) -> None:
        soak = self.gates.soak
        if soak is None:
            if before is not None:
                log_event.info("bulk contexts go to every region", upto=self.gates.approved)
        elif soak.failed and not (before and before.failed):
            log_event.error(
                "bulk contexts stay in one region",
                region=soak.region,
                why=soak.failed,
                hint=f"publish better ones, then let them go with 'transom contexts allow {SOAK}'",
            )
        elif before is None or before.trouble != soak.trouble:
            log_event.info("bulk contexts soak", region=soak.region, upto=soak.target, waits_for=soak.trouble)

    # --- what can be said ---

    def held(self, region: str) -> str:
        """What guards hold back for a region, in a line for people; empty when nothing is."""
        holds = [f"{hold.id} ({_rows_held(hold)} rows)" for hold in self._holds(region)]
        soak = self.gates.soak
        if soak is not None and (soak.failed or soak.trouble):
            holds.insert(0, f"{SOAK} ({soak.failed or soak.trouble}"[:_WHY_CHARACTERS_MAX] + ")")
        more = len(holds) - _HOLDS_NAMED_MAX
        named = ", ".join(holds[:_HOLDS_NAMED_MAX]) + (f" and {more} more" if more > 0 else "")
        return f"{named}; see 'transom contexts holds'" if holds else ""

    def _holds(self, region: str) -> list[Hold]:
        everywhere = frozenset((region,))
        return [hold for hold in self.builder.state.holds if region in region_names(hold.regions, everywhere)]

    async def describe(self) -> JsonObject:
        """What `GET /hub/contexts` says."""
        items = [await self._region_described(region) for _, region in sorted(self.regions.items())]
        holds: list[JsonObject] = [
            {
                "id": hold.id,
                "guard": hold.guard,
                "kind": hold.scope.kind,
                "tenant": hold.scope.tenant,
                "changes": hold.changes,
                "deletes": hold.deletes,
                "of": hold.of,
                "examples": list(hold.examples),
                "since": rfc3339(hold.since),
                "content": hold.content if hold.guard == SHARE else None,
            }
            for hold in self.builder.state.holds
        ]
        refused = [
            {"subject": each.subject, "kind": each.kind, "why": each.why}
            for each in self.builder.state.refused
        ]
        return {"items": items, "holds": [*holds, *await self._soak_described()], "refused": refused}

    async def _region_described(self, region: RegionContexts) -> JsonObject:
        fast, bulk = region.published[FAST], region.published[BULK]
        gate = self.gates.upto(region.region)
        pending = {
            lane: await self.contexts.waiting(lane, region.published[lane].revision, _PENDING_SHOWN_MAX)
            for lane in LANES
        }
        return {
            "region": region.region,
            "frozen": region.freeze.on,
            "fastRevision": fast.revision,
            "bulkRevision": bulk.revision,
            "gate": gate,
            "soaking": self.gates.soak is not None and self.gates.soak.region == region.region,
            "verified": bulk.verified,
            "gateways": region.beats.described(),
            "pendingFast": pending[FAST],
            "pendingBulk": pending[BULK],
            "sweepDifferences": bulk.differences_found,
        }

    async def _soak_described(self) -> list[JsonObject]:
        soak = self.gates.soak
        if soak is None:
            return []
        waiting = await self.contexts.waiting(BULK, self.gates.approved, _WAITING_SHOWN_MAX)
        why = soak.failed or soak.trouble or "it serves well; waiting for the time to pass"
        return [
            {
                "id": SOAK,
                "guard": SOAK,
                "kind": "",
                "tenant": "",
                "changes": waiting,
                "deletes": 0,
                "of": waiting,
                "examples": [f"tried in {soak.region or 'no region'}: {why}"],
                "since": None,
            }
        ]

    async def diff(self, region: str) -> JsonObject:
        """What `GET /hub/contexts/diff` says: what would go out to `region` and has not, and how many rows
        guards hold back for it. Raises `NotFoundError`.
        """
        found = self.regions.get(region)
        if found is None:
            raise NotFoundError(f"there is no road to a region {region!r}")
        items: list[JsonObject] = []
        more = False
        for lane in LANES:
            after = found.published[lane].revision
            page = await self.contexts.lane_rows(lane, after, _DIFF_MAX)
            more = more or page.more
            items += [_difference(row, what, after) for row in page.rows if (what := told(row, region))]
        return {"items": items, "more": more, "held": sum(map(_rows_held, self._holds(region)))}


def _rows_held(hold: Hold) -> int:
    return hold.changes + hold.deletes


def _difference(row: Row, what: Told, after: int) -> JsonObject:
    added = "add" if row.added > after else "change"
    return {
        "key": row.key,
        "change": "delete" if what is Told.MARKER else added,
        "lane": row.lane,
        "revision": row.revision,
        "tenant": row.tenant,
    }
