"""What a zone does about a RegionalDeployment: pure planning, from what is wanted and observed to actions.

A new version is rolled out one instance at a time: one more than asked for is started, and only when it is
healthy one of the old is stopped. When a new one fails the roll stops there and the old ones go on serving.
What keeps a roll safe, whatever dies meanwhile:

- an old instance that serves is stopped only while as many as asked for serve without it;
- while old ones run, at most one more than asked for runs;
- equal fingerprints never replace each other, so nothing of transom's own life restarts an app.

`region.agent` makes the inputs, carries the plan out and reports. The hub's controller folds the reports.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from transom.catalog.deployment.kind import REGIONAL_DEPLOYMENT, RegionalDeploymentSpec
from transom.catalog.instance.kind import INSTANCE
from transom.model.names import Key
from transom.model.resources import Condition, JsonObject, Resource, to_json, with_conditions
from transom.region.driver import HealthCheck, Launch, Observed
from transom.region.planning import Action, End, Plan, Situation, Start, Stop, Wanted

RESTART_FIRST_SECONDS = 0.25
RESTART_MOST_SECONDS = 60.0
UNHEALTHY_MOST_SECONDS = 30.0
"""An instance that was unhealthy for this long is ended and started again."""

_CRASHES_OF_A_LOOP = 2
_MESSAGE_BYTES_MAX = 2048
_WORST_FIRST = {"Dead": 0, "Unhealthy": 1, "Starting": 2, "Healthy": 3}
_IN_PROGRESS = ("Complete", "RollingOut", "Starting", "Restarting")


class Orders(NamedTuple):
    """What to do with a zone's instances: end for good, end and keep, start again, and how many new ones."""

    stop: Sequence[Observed] = ()
    end: Sequence[Observed] = ()
    restart: Sequence[Observed] = ()
    new: int = 0
    look_again_seconds: float | None = None


class RegionalDeploymentPlanner:
    """The planner of `region.planning.Planner` for RegionalDeployments."""

    def parse(self, resource: Resource) -> RegionalDeploymentSpec:
        """The typed spec. Raises `InvalidError`."""
        return REGIONAL_DEPLOYMENT.parse(resource)

    def owner_of(self, report: str, value: JsonObject) -> str:
        """The RegionalDeployment that a zone's status or an Instance is about."""
        kind, tenant, _ = Key.parse(report)
        if kind == INSTANCE.name:
            return str(Key(REGIONAL_DEPLOYMENT.name, tenant, str(value["owner"])))
        return report.rpartition("@")[0] if kind == REGIONAL_DEPLOYMENT.name else ""

    def plan(self, situation: Situation) -> Plan:
        """What to do and report for one RegionalDeployment in one zone."""
        wanted = situation.wanted
        instances = _instance_reports(situation)
        if wanted is None:
            return Plan(reports=instances)
        if wanted.deleted or (wanted.resource and wanted.resource.deleting):
            actions = [Stop(i.name) for i in situation.instances if i.phase != "Stopping"]
            return Plan(actions, instances | _ending_report(situation, wanted))
        if wanted.resource is None:
            return Plan(reports=instances | _refusal(situation, wanted))
        zones = wanted.spec.zones
        desired = zones.get(situation.place.zone, 0)
        mark = fingerprint(wanted.spec)
        orders = give_orders(desired, mark, situation.instances, situation.seconds)
        reports: dict[str, JsonObject | None] = dict(instances)
        if situation.place.zone in zones or situation.instances:
            reports |= _status_report(situation, wanted, desired, mark)
        elif _status_key(situation) in situation.reported:
            reports[_status_key(situation)] = None
        return Plan(list(_actions(situation, wanted, mark, orders)), reports, orders.look_again_seconds)


def fingerprint(spec: RegionalDeploymentSpec) -> str:
    """Equal for specs whose instances need not replace each other (SHA-256, hexadecimal, 16 digits)."""
    parts = spec.model_dump(by_alias=True, include={"version", "command", "env", "health_check"})
    return hashlib.sha256(to_json(parts)).hexdigest()[:16]


def give_orders(desired: int, mark: str, instances: Sequence[Observed], now: float) -> Orders:
    """Bring `instances` one step nearer to `desired` of fingerprint `mark`; `now` in monotonic seconds."""
    live = sorted((i for i in instances if i.phase != "Stopping"), key=lambda i: _WORST_FIRST[i.phase])
    new = [i for i in live if i.launch.fingerprint == mark]
    old = [i for i in live if i.launch.fingerprint != mark]
    surplus_new = max(0, len(new) - desired)
    stop, new = new[:surplus_new], new[surplus_new:]
    # The worst go first, and only as many as healthy new ones have replaced: where one that serves is
    # stopped, all that stay serve too, and they are as many as asked for.
    surplus_old = max(0, sum(i.phase == "Healthy" for i in new) + len(old) - desired)
    stop, old = [*stop, *old[:surplus_old]], old[surplus_old:]

    # What was told to stop runs until it is gone, and counts until then.
    running = sum(i.phase != "Dead" for i in instances)
    rolling = any(i.launch.fingerprint != mark for i in instances)
    room = desired + 1 - running if rolling else desired + len(instances)
    restart: list[Observed] = []
    look_again: list[float] = []
    for dead in (i for i in (*old, *new) if i.phase == "Dead"):
        due_in = dead.since + restart_after_seconds(dead.failures) - now
        if due_in > 0:
            look_again.append(due_in)
        elif room > len(restart):
            restart.append(dead)
    end = [i for i in live if i.phase == "Unhealthy" and now - i.since >= UNHEALTHY_MOST_SECONDS]
    look_again.extend(
        UNHEALTHY_MOST_SECONDS - (now - i.since) for i in live if i.phase == "Unhealthy" and i not in end
    )
    missing = min(desired - len(new), room - len(restart))
    if old:
        missing = min(missing, int(all(i.phase == "Healthy" for i in new)))
    gone = {i.name for i in stop}
    return Orders(
        stop,
        [i for i in end if i.name not in gone],
        restart,
        max(0, missing),
        min(look_again, default=None),
    )


def restart_after_seconds(failures: int) -> float:
    """How long a dead instance waits before it is started again: doubles with every failure, capped."""
    return min(RESTART_MOST_SECONDS, RESTART_FIRST_SECONDS * 2.0 ** min(max(failures - 1, 0), 30))


def _actions(situation: Situation, wanted: Wanted, mark: str, orders: Orders) -> Iterator[Action]:
    yield from (Stop(instance.name) for instance in orders.stop)
    yield from (End(instance.name) for instance in orders.end)
    yield from (Start(instance.launch) for instance in orders.restart)
    if wanted.resource is not None:
        for _ in range(orders.new):
            yield Start(_launch(situation, wanted, wanted.resource, mark))


def _launch(situation: Situation, wanted: Wanted, resource: Resource, mark: str) -> Launch:
    place, spec = situation.place, wanted.spec
    deployment = resource.owner.name if resource.owner else resource.metadata.name
    name = f"{deployment}.{place.zone}.{situation.new_suffix()}"
    environment = {
        "TRANSOM_REGION": place.region,
        "TRANSOM_ZONE": place.zone,
        "TRANSOM_TENANT": resource.metadata.namespace,
        "TRANSOM_APP": spec.app,
        "TRANSOM_VERSION": spec.version,
        "TRANSOM_INSTANCE": name,
    }
    return Launch(
        name=name,
        owner=wanted.key,
        uid=resource.metadata.uid,
        app=spec.app,
        version=spec.version,
        fingerprint=mark,
        command=tuple(spec.command),
        env=spec.env | environment,
        check=HealthCheck(**spec.health_check.model_dump()),
    )


def _status_key(situation: Situation) -> str:
    wanted = situation.wanted
    return f"{wanted.key if wanted else ''}@{situation.place.zone}"


def _status_report(situation: Situation, wanted: Wanted, desired: int, mark: str) -> dict[str, JsonObject]:
    live = [i for i in situation.instances if i.phase != "Stopping"]
    new = [i for i in live if i.launch.fingerprint == mark]
    reason, message = _reason(desired, new, old=len(live) > len(new))
    ready = "True" if reason == "Complete" else "False"
    conditions = [
        Condition("Ready", ready, "AllHealthy" if ready == "True" else reason, message),
        Condition("Progressing", "True" if reason in _IN_PROGRESS else "False", reason, message),
    ]
    if wanted.refused:
        conditions.append(_refused(wanted))
    status = _status(situation, wanted, desired) | {
        "ready": sum(i.phase == "Healthy" for i in live),
        "updated": len(new),
    }
    return _with_conditions(situation, status, conditions)


def _reason(desired: int, new: Sequence[Observed], *, old: bool) -> tuple[str, str]:
    healthy = sum(i.phase == "Healthy" for i in new)
    counts = f"{healthy} of {desired} instances are healthy"
    trouble = next((i for i in new if i.phase == "Unhealthy" or (i.failures and i.phase != "Healthy")), None)
    if trouble is None:
        if healthy >= desired and not old:
            return "Complete", counts
        return ("RollingOut" if old else "Starting"), counts
    if old:
        reason = "RolloutHalted"
    elif not trouble.served:
        reason = "CannotStart"
    elif trouble.phase == "Unhealthy":
        reason = "Unhealthy"
    else:
        reason = "CrashLoop" if trouble.failures >= _CRASHES_OF_A_LOOP else "Restarting"
    text = f"{counts}; {trouble.name}: {trouble.output}".encode()[:_MESSAGE_BYTES_MAX]
    return reason, text.decode(errors="ignore")


def _ending_report(situation: Situation, wanted: Wanted) -> dict[str, JsonObject | None]:
    key = _status_key(situation)
    if wanted.resource is None or wanted.deleted:
        # Deleted at the hub: nothing is left to be said once nothing is left.
        return {key: None} if key in situation.reported and not situation.instances else {}
    concerned = situation.place.zone in wanted.resource.spec.get("zones", {})
    if not (concerned or situation.instances or key in situation.reported):
        return {}
    gone = not situation.instances
    reason, message = (
        ("Terminated", "all instances are gone")
        if gone
        else ("Terminating", f"{len(situation.instances)} instances are being stopped")
    )
    status = _status(situation, wanted, 0) | {"terminated": gone}
    return dict(_with_conditions(situation, status, [Condition("Ready", "False", reason, message)]))


def _refusal(situation: Situation, wanted: Wanted) -> dict[str, JsonObject]:
    key = _status_key(situation)
    held = situation.reported.get(key)
    if held is None:
        return {}  # nothing it says, not even whether this zone is meant, can be trusted
    others = [Condition(**_snake(c)) for c in held.get("conditions", []) if c["type"] != "Accepted"]
    return _with_conditions(situation, dict(held), [*others, _refused(wanted)])


def _snake(condition: JsonObject) -> JsonObject:
    return {name: condition.get(name, "") for name in ("type", "status", "reason", "message")}


def _refused(wanted: Wanted) -> Condition:
    message = f"version {wanted.newest} is refused, the last good one stays: {wanted.refused}"
    return Condition("Accepted", "False", "InvalidSpec", message[:_MESSAGE_BYTES_MAX])


def _status(situation: Situation, wanted: Wanted, desired: int) -> JsonObject:
    metadata = wanted.resource.metadata if wanted.resource else None
    return {
        "zone": situation.place.zone,
        "uid": metadata.uid if metadata else "",
        "observedGeneration": metadata.generation if metadata else 0,
        "specVersion": wanted.version,
        "desired": desired,
        "ready": 0,
        "updated": 0,
        "terminated": False,
    }


def _with_conditions(
    situation: Situation, status: JsonObject, conditions: Sequence[Condition]
) -> dict[str, JsonObject]:
    key = _status_key(situation)
    held = situation.reported.get(key, {})
    return {key: status | {"conditions": with_conditions(held, conditions, situation.now)}}


def _instance_reports(situation: Situation) -> dict[str, JsonObject | None]:
    reports: dict[str, JsonObject | None] = {
        key: None for key in situation.reported if key.startswith(f"{INSTANCE.name}/")
    }
    for instance in situation.instances:
        launch = instance.launch
        _, tenant, owner = Key.parse(launch.owner)
        serving = instance.phase in ("Starting", "Healthy")
        value: dict[str, Any] = {
            "region": situation.place.region,
            "zone": situation.place.zone,
            "app": launch.app,
            "owner": owner,
            "uid": launch.uid,
            "version": launch.version,
            "host": instance.host,
            "port": instance.port,
            "health": instance.phase if serving else "Unhealthy",
            "startedAt": instance.started_at,
        }
        reports[str(Key(INSTANCE.name, tenant, launch.name))] = value
    return reports
