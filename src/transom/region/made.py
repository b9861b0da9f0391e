"""What a zone does about a resource that a driver of somebody's own makes: pure planning.

A thing is made when the region's record of it is new, again after a while (so that what was changed or broken
beside us becomes whole), and again, later and later, when that failed. It is removed only on an explicit word
(invariant 5): its deletion, or that another zone makes it now. The finalizer goes when the driver's `remove`
has returned. `region.making` calls the driver; `region.agent` makes the inputs and reports.
"""

from dataclasses import dataclass
from typing import Any

from transom.model.kinds import Kind
from transom.model.names import Key
from transom.model.resources import Condition, JsonObject, Resource, with_conditions
from transom.region.planning import Forget, Made, Make, Plan, Remove, Situation, Wanted

CHECK_SECONDS = 60.0
"""How long after it was made a thing is made again."""
_AGAIN_FIRST_SECONDS = 1.0
_AGAIN_MOST_SECONDS = 60.0
_MESSAGE_CHARACTERS_MAX = 2048


@dataclass(frozen=True)
class MadePlanner:
    """The planner of `region.planning.Planner` for one kind that has a driver of its own."""

    kind: Kind

    def parse(self, resource: Resource) -> Any:
        """The typed spec. Raises `InvalidError`."""
        return self.kind.parse(resource)

    def owner_of(self, report: str, value: JsonObject) -> str:
        """The resource that a zone's status is about."""
        del value
        return report.rpartition("@")[0] if Key.parse(report).kind == self.kind.name else ""

    def plan(self, situation: Situation) -> Plan:
        """What to do and report for one resource in one zone."""
        wanted, key = situation.wanted, _status_key(situation)
        if wanted is None:
            return Plan()
        resource = wanted.resource
        if wanted.deleted or resource is None:
            # Of what was refused ever since, nothing is known: it stays, if there is any of it.
            return _unmake(situation, None) if wanted.deleted else Plan()
        mine = resource.spec.get("zone") == situation.place.zone
        if resource.deleting and (mine or situation.made or key in situation.reported):
            return _unmake(situation, resource)
        if mine:
            return _make(situation, wanted, resource)
        return _unmake(situation, None) if situation.made or key in situation.reported else Plan()


def again_after_seconds(failures: int) -> float:
    """How long after so many failures in a row it is tried again: doubles each time, capped."""
    return min(_AGAIN_MOST_SECONDS, _AGAIN_FIRST_SECONDS * 2.0 ** min(max(failures - 1, 0), 30))


def _make(situation: Situation, wanted: Wanted, resource: Resource) -> Plan:
    made = situation.made
    order = Make(wanted.key, wanted.version, wanted.spec)
    if made is None or made.gone:
        return Plan([order], _unless_told(situation, resource, "being made"))
    if made.version != wanted.version or made.removing:
        actions = [] if made.busy else [order]
        return Plan(actions, _unless_told(situation, resource, "being changed"))
    actions, again = _in_time(order, made, CHECK_SECONDS, situation.seconds)
    condition = _failed(made) or Condition("Ready", "True", "Made", "")
    return Plan(actions, _report(situation, resource, condition, made.result), again)


def _unmake(situation: Situation, resource: Resource | None) -> Plan:
    """Have it removed, and say so of a resource that waits for it; None when none does any more."""
    made, key = situation.made, _status_key(situation)
    told = situation.reported.get(key)
    if made is not None and made.gone:
        if resource is None:
            return Plan([Forget(_key(situation))], {key: None})
        removed = Condition("Ready", "False", "Removed", "")
        return Plan((), _report(situation, resource, removed, {}, gone=True))
    if made is None and told is None and resource is None:
        return Plan()
    order = Remove(_key(situation))
    if made is None or not made.removing:
        actions, again = ([] if made is not None and made.busy else [order]), None
    else:
        actions, again = _in_time(order, made, 0.0, situation.seconds)
    if resource is None:
        return Plan(actions, {}, again)
    failed = _failed(made) if made is not None and made.removing else None
    removing = failed or Condition("Ready", "False", "Removing", "being removed")
    return Plan(actions, _report(situation, resource, removing, {}), again)


def _in_time(
    order: Make | Remove, made: Made, after_seconds: float, now: float
) -> tuple[list[Make | Remove], float | None]:
    """The order once it is due, so long after the last call, or later when that failed; else in how many
    seconds. While a call is on its way, its end is waited for.
    """
    if made.busy:
        return [], None
    wait = again_after_seconds(made.failures) if made.failures else after_seconds
    due_in = made.finished + wait - now
    return ([order], None) if due_in <= 0 else ([], due_in)


def _failed(made: Made) -> Condition | None:
    if not made.reason:
        return None
    return Condition("Ready", "False", made.reason, made.message[:_MESSAGE_CHARACTERS_MAX])


def _unless_told(situation: Situation, resource: Resource, message: str) -> dict[str, JsonObject | None]:
    """A report, unless this generation was reported on: a process that begins anew takes nothing back."""
    told = situation.reported.get(_status_key(situation), {})
    meta = resource.metadata
    if told.get("uid") == meta.uid and told.get("observedGeneration") == meta.generation:
        return {}
    result: JsonObject = situation.made.result if situation.made else {}
    return _report(situation, resource, Condition("Ready", "False", "Making", message), result)


def _report(
    situation: Situation, resource: Resource, condition: Condition, result: JsonObject, *, gone: bool = False
) -> dict[str, JsonObject | None]:
    key = _status_key(situation)
    held = situation.reported.get(key, {})
    status = {
        **result,
        "zone": situation.place.zone,
        "uid": resource.metadata.uid,
        "observedGeneration": resource.metadata.generation,
        "desired": 0 if gone else 1,
        "terminated": gone,
        "conditions": with_conditions(held, [condition], situation.now),
    }
    return {key: status}


def _key(situation: Situation) -> str:
    return situation.wanted.key if situation.wanted else ""


def _status_key(situation: Situation) -> str:
    return f"{_key(situation)}@{situation.place.zone}"
