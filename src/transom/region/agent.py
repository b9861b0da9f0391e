"""A zone's agent: makes what is desired true through a driver, and reports what is true.

Level-based: it is woken by a change of the desired table, of the driver, by a time a plan named, and by the
period. Then it reads, plans purely, and carries the plan out; never does it act on a message. It looks only
at the keys that something happened to, so one change costs the same among ten or ten thousand; the period
looks at all of them.

A record that cannot be read or is refused by its planner is refused alone: the last good one stays in force
(invariant 9). A key that is not in the table is left alone (invariant 5).
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import msgspec
from prometheus_client import Counter

from transom.model.errors import UNREADABLE, InvalidError, Problem
from transom.model.records import Record
from transom.model.resources import JsonObject, from_json, to_json
from transom.region.desired import Inbox
from transom.region.driver import Driver
from transom.region.making import Workshop
from transom.region.planning import Action, End, Place, Planner, Situation, Start, Stop, Wanted
from transom.region.reports import Reports
from transom.runtime.clock import Clock, timestamp
from transom.runtime.randomness import Randomness
from transom.runtime.signals import Level, wait_any
from transom.runtime.telemetry import get_logger, metrics
from transom.tables.protocol import Table

log_event = get_logger(__name__)

PERIOD_SECONDS = 60.0
_ROUNDS_MAX = 3
_BREATH = 100
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_SUFFIX_CHARACTERS = 5

_refused = Counter(
    "transom_agent_refused_records_total", "Desired records refused", ["zone"], registry=metrics
)
_actions = Counter(
    "transom_agent_actions_total", "Orders given to the driver", ["zone", "action"], registry=metrics
)


@dataclass
class Agent:
    """The agent of one zone. `planners` are by kind; `inbox` hears what changes in `desired`. What is not run
    by the driver is made in the workshop.
    """

    place: Place
    desired: Table
    inbox: Inbox
    driver: Driver
    reports: Reports
    planners: Mapping[str, Planner]
    clock: Clock
    randomness: Randomness
    workshop: Workshop
    period_seconds: float = PERIOD_SECONDS
    _wanted: dict[str, Wanted] = field(default_factory=dict[str, Wanted], init=False)
    _reported: dict[str, set[str]] = field(default_factory=dict[str, set[str]], init=False)
    _look_again: dict[str, float] = field(default_factory=dict[str, float], init=False)
    _dirty: set[str] = field(default_factory=set[str], init=False)
    _unsent: dict[str, bytes | None] = field(default_factory=dict[str, "bytes | None"], init=False)

    @property
    def _levels(self) -> tuple[Level, ...]:
        return self.inbox.filled, self.driver.changed, self.workshop.changed

    async def run(self) -> None:
        """Work for ever; a worker. Raises what tables and log raise, and can be run again then."""
        self._unsent.clear()
        self._index_reports()
        full_look_at = self.clock.monotonic()
        while True:
            seen = [(level, level.value) for level in self._levels]
            if self.clock.monotonic() >= full_look_at:
                await self._look_at_all()
                full_look_at = self.clock.monotonic() + self.randomness.jitter(self.period_seconds)
            await self._look_at_changed()
            soonest = min(self._look_again.values(), default=full_look_at)
            pause = min(soonest, full_look_at) - self.clock.monotonic()
            await wait_any(seen, max(pause, 0.0))

    async def _look_at_all(self) -> None:
        for kind in self.planners:
            for record in await self.desired.scan(f"{kind}/"):
                self._read(record)
        self._dirty |= self._wanted.keys() | self._reported.keys()
        self._dirty |= self.driver.changes() | self.workshop.changes()
        for key in self._dirty - self._wanted.keys():
            # Not live: deleted, which its marker says, or unknown, which means nothing.
            marker = await self.desired.get(key)
            if marker is not None:
                self._read(marker)

    async def _look_at_changed(self) -> None:
        # A driver that is done at once has its outcome reported at once, instead of an in-between state.
        for _ in range(_ROUNDS_MAX):
            self._gather()
            if not self._dirty:
                break
            for count, key in enumerate(sorted(self._dirty), start=1):
                self._look_at(key)
                if count % _BREATH == 0:
                    await asyncio.sleep(0)
            self._dirty.clear()
            await asyncio.sleep(0)
        if self._unsent:
            await self.reports.append(self._unsent)
            self._unsent.clear()

    def _gather(self) -> None:
        for record in self.inbox.take():
            self._read(record)
        self._dirty |= self.driver.changes() | self.workshop.changes()
        now = self.clock.monotonic()
        self._dirty |= {key for key, when in self._look_again.items() if when <= now}

    def _read(self, record: Record) -> None:
        planner = self.planners.get(record.key.partition("/")[0])
        held = self._wanted.get(record.key)
        if planner is None or (held and held.newest == str(record.version)):
            return
        self._wanted[record.key] = self._understand(record, planner, held)
        self._dirty.add(record.key)

    def _understand(self, record: Record, planner: Planner, held: Wanted | None) -> Wanted:
        version = str(record.version)
        if record.deleted:
            return Wanted(record.key, version, version, deleted=True)
        try:
            resource = from_json(record.value)
            if str(resource.key) != record.key:
                raise InvalidError(record.key, [Problem("metadata", f"says it is {resource.key}")])  # noqa: TRY301
            spec = None if resource.deleting else planner.parse(resource)
        except (InvalidError, *UNREADABLE) as error:
            _refused.labels(self.place.zone).inc()
            log_event.warning("desired record refused", key=record.key, version=version, error=str(error))
            last_good = held or Wanted(record.key, version, version)
            return msgspec.structs.replace(last_good, newest=version, refused=str(error), deleted=False)
        return Wanted(record.key, version, version, resource, spec)

    def _look_at(self, key: str) -> None:
        planner = self.planners.get(key.partition("/")[0])
        if planner is None:
            return
        try:
            plan = planner.plan(self._situation(key))
        except Exception:
            # One value that a planner stumbles over must not take the whole region down with it.
            log_event.exception("cannot plan; left alone", key=key, zone=str(self.place))
            return
        for action in plan.actions:
            self._carry_out(action)
        for report, value in plan.reports.items():
            self._note(key, report, value)
        if plan.look_again_seconds is None:
            self._look_again.pop(key, None)
        else:
            self._look_again[key] = self.clock.monotonic() + plan.look_again_seconds
        self._forget_if_gone(key)

    def _situation(self, key: str) -> Situation:
        reported = {
            name: _decoded(self._unsent.get(name) or self.reports[name])
            for name in self._reported.get(key, ())
        }
        return Situation(
            self.place,
            self._wanted.get(key),
            self.driver.observe(key),
            reported,
            timestamp(self.clock),
            self.clock.monotonic(),
            self._suffix,
            self.workshop.observe(key),
        )

    def _carry_out(self, action: Action) -> None:
        _actions.labels(self.place.zone, type(action).__name__).inc()
        if isinstance(action, Start):
            log_event.info("start", instance=action.launch.name, version=action.launch.version)
            self.driver.start(action.launch)
        elif isinstance(action, Stop):
            log_event.info("stop", instance=action.name)
            self.driver.stop(action.name)
        elif isinstance(action, End):
            log_event.info("end", instance=action.name)
            self.driver.end(action.name)
        else:
            self.workshop.carry_out(action)

    def _note(self, key: str, report: str, value: JsonObject | None) -> None:
        data = None if value is None else to_json(value)
        if data is None:
            self._reported.get(key, set()).discard(report)
        else:
            self._reported.setdefault(key, set()).add(report)
        if self.reports.differs(report, data):
            self._unsent[report] = data
        else:
            self._unsent.pop(report, None)

    def _suffix(self) -> str:
        number = UUID(self.randomness.uid()).int
        base = len(_ALPHABET)
        return "".join(_ALPHABET[number // base**place % base] for place in range(_SUFFIX_CHARACTERS))

    def _index_reports(self) -> None:
        self._reported.clear()
        for name in self.reports:
            value = _decoded(self.reports[name])
            owners = (planner.owner_of(name, value) for planner in self.planners.values())
            for owner in filter(None, owners):
                self._reported.setdefault(owner, set()).add(name)

    def _forget_if_gone(self, key: str) -> None:
        wanted = self._wanted.get(key)
        there = self.driver.observe(key) or self.workshop.observe(key)
        if wanted and wanted.deleted and not there and not self._reported.get(key):
            del self._wanted[key]
            self._reported.pop(key, None)
            self._look_again.pop(key, None)


def _decoded(value: bytes) -> dict[str, Any]:
    return msgspec.json.decode(value, type=dict[str, Any])
