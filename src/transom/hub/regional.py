"""The controller of every regional kind (`model.regional`): one resource a region, and their status folded.

What each region is asked for is said by the kind's own class (`Kind.expand`); everything else is the same for
all of them. Pure: `hub.controllers` hands in what was read and writes what is planned.
"""

from collections.abc import Iterable, Iterator, Mapping

from transom.hub.changes import Actor, Change, setting_status
from transom.hub.controllers import Inputs
from transom.hub.converging import converge, unwind
from transom.model.kinds import Kind
from transom.model.names import Key
from transom.model.resources import (
    Condition,
    JsonObject,
    Metadata,
    OwnerReference,
    Resource,
    conditions_of,
    with_conditions,
)
from transom.model.roads import REGION_SILENT

_OWN_FIELDS = ("observedGeneration", "conditions", "zones")


class RegionalController:
    """Owns a kind that has `expand`, looks at the one it is made from. See `hub.controllers.Controller`."""

    def __init__(self, kind: Kind) -> None:
        self.name = kind.owner
        self.primary = kind.reads[0]
        self.owns = kind.name
        self._kind = kind
        self._actor = Actor(kind.owner, kind.owner)

    def wakes(self, changed: Key) -> Key | None:
        """What is made for a region is named after what was declared; a Region concerns them all."""
        if changed.kind == self.primary:
            return changed
        if changed.kind == self.owns:
            return Key(self.primary, changed.namespace, changed.name.rpartition(".")[0])
        return None

    def plan(self, inputs: Inputs) -> list[Change]:
        """What to create, change, delete, and the status that follows from what regions say."""
        whole = inputs.primary
        children = {str(child.spec["region"]): child for child in inputs.children}
        if whole.deleting:
            changes = list(unwind(whole, children, self._actor))
            if not children:
                return changes
            wanted: dict[str, Resource] = {}
        else:
            regions = {region.metadata.name: region for region in inputs.others["Region"]}
            wanted = {
                name: self._asked_for(whole, regions[name], children.get(name))
                for name in whole.spec["regions"]
                if name in regions
            }
            changes = list(converge(wanted, children, self._actor))
        status = fold(whole, wanted, children, inputs.now)
        if status != whole.status:
            change = setting_status(whole.key, whole.metadata.uid, status)
            changes.append(Change(whole.key, change, self._actor))
        return changes

    def _asked_for(self, whole: Resource, region: Resource, child: Resource | None) -> Resource:
        """What one region is to make of it; in the zone that has it, as long as there is that zone."""
        assert self._kind.expand is not None  # noqa: S101  # only such kinds come here
        meta, name = whole.metadata, region.metadata.name
        zones = [str(zone["name"]) for zone in region.spec["zones"]]
        held = child.spec.get("zone") if child else None
        zone = held if held in zones else zones[0]
        owner = OwnerReference(whole.api_version, whole.kind, meta.name, meta.uid, controller=True)
        return self._kind.validate(
            Resource(
                self.owns,
                Metadata(f"{meta.name}.{name}", meta.namespace, owner_references=[owner]),
                spec={**self._kind.expand(whole, name), "region": name, "zone": zone},
            )
        )


def regional_controllers(kinds: Iterable[Kind]) -> list[RegionalController]:
    """A controller for each kind that says what one region is asked for."""
    return [RegionalController(kind) for kind in kinds if kind.expand is not None]


def fold(
    whole: Resource, wanted: Mapping[str, Resource], children: Mapping[str, Resource], now: str
) -> JsonObject:
    """The status of the whole: how many regions are ready, what each says, and whether all of them are."""
    parts = {region: _part(target, children.get(region)) for region, target in wanted.items()}
    parts.update(
        (region, {"state": "Removing", "message": "no longer wanted here; being removed"})
        for region in children
        if region not in wanted
    )
    missing = () if whole.deleting else (name for name in whole.spec["regions"] if name not in parts)
    parts.update((name, {"state": "NoSuchRegion", "message": "is not declared"}) for name in missing)
    waiting = {region: part for region, part in sorted(parts.items()) if part["state"] != "Ready"}
    return {
        "observedGeneration": whole.metadata.generation,
        "desired": len(wanted),
        "ready": len(parts) - len(waiting),
        "regions": {region: parts[region] for region in sorted(parts)},
        "conditions": with_conditions(whole.status, [_readiness(waiting, len(parts))], now),
    }


def _readiness(waiting: Mapping[str, JsonObject], regions: int) -> Condition:
    if not waiting:
        return Condition("Ready", "True", "AllRegionsReady", f"ready in {regions} regions")
    said = "; ".join(f"{region}: {part['message'] or part['state']}" for region, part in waiting.items())
    # Nobody says that it is not ready where it is only not known to be.
    known = any(part["state"] != REGION_SILENT for part in waiting.values())
    return Condition("Ready", "False" if known else "Unknown", next(iter(waiting.values()))["state"], said)


def _part(target: Resource, child: Resource | None) -> JsonObject:
    if child is None:
        return {"state": "Pending", "message": "not declared in the region yet"}
    if child.deleting:
        return {"state": "Replacing", "message": "an earlier one is still being removed"}
    said = dict(_said(child.status))
    if child.spec != target.spec or child.status.get("observedGeneration") != child.metadata.generation:
        return {**said, "state": "Progressing", "message": "the region has not taken this up yet"}
    ready = next((each for each in conditions_of(child.status) if each.type == "Ready"), None)
    if ready is None or ready.status != "True":
        reason, message = (ready.reason, ready.message) if ready else ("", "")
        return {**said, "state": reason or "Progressing", "message": message}
    return {**said, "state": "Ready", "message": ""}


def _said(status: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """What the region's driver says."""
    return ((name, value) for name, value in status.items() if name not in _OWN_FIELDS)
