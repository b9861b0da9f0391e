"""Between an agent and the kinds it knows: what a plan is made from, and what is in it.

A planner decides and does nothing: equal inputs give equal plans. `catalog.deployment.driver` is one; the
agent (`agent`) makes the inputs and carries the plan out.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from transom.model.resources import JsonObject, Resource
from transom.region.driver import Launch, Observed


class Place(NamedTuple):
    """Which zone of which region."""

    region: str
    zone: str

    def __str__(self) -> str:
        return f"{self.region}/{self.zone}"


class Wanted(msgspec.Struct, frozen=True):
    """What is asked for under one key.

    `newest` is the version of the newest record, `version` that of the one in force, whose `resource` and
    `spec` (what the planner's `parse` made of it) are here; None when there was no good one yet. `refused`
    says why the newest record is not in force. `deleted`: the newest record is a delete marker.
    """

    key: str
    version: str
    newest: str
    resource: Resource | None = None
    spec: Any = None
    refused: str = ""
    deleted: bool = False


class Made(msgspec.Struct, frozen=True):
    """What came of the orders for one thing.

    `version` is that of the record it was last made from, successfully or not, `result` what its driver said
    last. `reason` and `message` say why the last call failed, `failures` how many in a row; empty when it did
    not. `finished` is when it ended (monotonic seconds), `busy` says that another is on its way, `removing`
    that the last call was a removal, and `gone` that it worked.
    """

    version: str = ""
    result: JsonObject = {}
    reason: str = ""
    message: str = ""
    failures: int = 0
    finished: float = 0.0
    busy: bool = False
    removing: bool = False
    gone: bool = False


class Situation(NamedTuple):
    """All that a plan is made from. `wanted` None: nothing is known of this key, which is never a delete.

    `reported` holds what was last reported of it, by record key. `now` is the wall time (RFC 3339),
    `seconds` the monotonic one. `new_suffix` gives a name's random ending. `made` is what came of `Make` and
    `Remove`; None when this process has given no such order.
    """

    place: Place
    wanted: Wanted | None
    instances: Sequence[Observed]
    reported: Mapping[str, JsonObject]
    now: str
    seconds: float
    new_suffix: Callable[[], str]
    made: Made | None = None


class Start(NamedTuple):
    """Start an instance, or a dead one again."""

    launch: Launch


class Stop(NamedTuple):
    """End an instance and forget it."""

    name: str


class End(NamedTuple):
    """End an instance's process; it is started again later."""

    name: str


class Make(NamedTuple):
    """Have a driver of somebody's own make a thing of the record of this version, or make it again."""

    key: str
    version: str
    spec: Any


class Remove(NamedTuple):
    """Have it removed."""

    key: str


class Forget(NamedTuple):
    """It was removed, and nothing is left to be said of it."""

    key: str


Action = Start | Stop | End | Make | Remove | Forget


class Plan(NamedTuple):
    """What to do, what to report (by record key; None: a delete marker), and in how many seconds to look
    again if nothing happens before.
    """

    actions: Sequence[Action] = ()
    reports: Mapping[str, JsonObject | None] = {}
    look_again_seconds: float | None = None


class Planner(Protocol):
    """What a kind decides in a zone."""

    def parse(self, resource: Resource) -> Any:
        """The spec in the planner's own type. Raises `InvalidError`: the record is then refused."""
        ...

    def plan(self, situation: Situation) -> Plan:
        """What to do for one key."""
        ...

    def owner_of(self, report: str, value: JsonObject) -> str:
        """Which desired key the reported record `report` is about; empty when it is not this planner's."""
        ...
