"""Fans a Deployment out into a RegionalDeployment for each region, and folds their status back.

Pure: `hub.controllers` hands in what was read and writes what is planned.
"""

from collections.abc import Mapping, Sequence

from transom.catalog.deployment.kind import (
    CONTROLLER,
    DEPLOYMENT,
    REGIONAL_DEPLOYMENT,
    AppSpec,
)
from transom.hub.changes import Actor, Change, setting_status
from transom.hub.controllers import Inputs
from transom.hub.converging import converge, unwind
from transom.model.names import Key
from transom.model.resources import (
    API_VERSION,
    Condition,
    JsonObject,
    Metadata,
    OwnerReference,
    Resource,
    with_conditions,
)
from transom.model.roads import REGION_SILENT

_ACTOR = Actor(CONTROLLER, CONTROLLER)
_APP_FIELDS = tuple(field.alias or name for name, field in AppSpec.model_fields.items())


class DeploymentController:
    """Owns RegionalDeployment, looks at Deployment. See `hub.controllers.Controller`."""

    name = CONTROLLER
    primary = DEPLOYMENT.name
    owns = REGIONAL_DEPLOYMENT.name

    def wakes(self, changed: Key) -> Key | None:
        """A RegionalDeployment is named after its Deployment; a Region concerns them all."""
        if changed.kind == self.primary:
            return changed
        if changed.kind == self.owns:
            return Key(self.primary, changed.namespace, changed.name.partition(".")[0])
        return None

    def plan(self, inputs: Inputs) -> list[Change]:
        """What to create, change, delete, and the status that follows from what regions say."""
        deployment = inputs.primary
        children = {str(child.spec["region"]): child for child in inputs.children}
        regions = {region.metadata.name: region for region in inputs.others["Region"]}
        if deployment.deleting:
            changes = list(unwind(deployment, children, _ACTOR))
            if not children:
                return changes
            wanted: dict[str, Resource] = {}
        else:
            wanted = {
                name: regional(deployment, regions[name])
                for name in deployment.spec["regions"]
                if name in regions
            }
            changes = list(converge(wanted, children, _ACTOR))
        status = fold(deployment, wanted, children, inputs.now)
        if status != deployment.status:
            uid = deployment.metadata.uid
            changes.append(Change(deployment.key, setting_status(deployment.key, uid, status), _ACTOR))
        return changes


def regional(deployment: Resource, region: Resource) -> Resource:
    """What one region is to make of a Deployment."""
    meta, spec = deployment.metadata, deployment.spec
    zones = [str(zone["name"]) for zone in region.spec["zones"]]
    named = [zone for zone in zones if zone in spec["zones"]] if spec.get("zones") else zones
    return Resource(
        REGIONAL_DEPLOYMENT.name,
        Metadata(
            name=f"{meta.name}.{region.metadata.name}",
            namespace=meta.namespace,
            labels={"transom.dev/deployment": meta.name},
            owner_references=[
                OwnerReference(API_VERSION, DEPLOYMENT.name, meta.name, meta.uid, controller=True)
            ],
        ),
        API_VERSION,
        spec={
            **{field: spec[field] for field in _APP_FIELDS if field in spec},
            "region": region.metadata.name,
            "zones": spread(int(spec["instances"]), named),
        },
    )


def spread(instances: int, zones: Sequence[str]) -> dict[str, int]:
    """So many instances over zones, as evenly as can be, the first ones having one more."""
    if not zones:
        return {}
    each, more = divmod(instances, len(zones))
    return {zone: each + (1 if number < more else 0) for number, zone in enumerate(zones)}


def fold(
    deployment: Resource, wanted: Mapping[str, Resource], children: Mapping[str, Resource], now: str
) -> JsonObject:
    """The status of a Deployment: counts of all regions, what each says, and whether it is ready."""
    parts = {region: _region_part(target, children.get(region)) for region, target in wanted.items()}
    parts.update((region, _leaving_part(child)) for region, child in children.items() if region not in wanted)
    named = () if deployment.deleting else deployment.spec["regions"]
    missing = [region for region in named if region not in parts]
    parts.update(
        (region, _part(0, 0, "NoSuchRegion", f"region {region!r} is not declared")) for region in missing
    )
    waiting = {region: part for region, part in sorted(parts.items()) if part["state"] != "Ready"}
    counts = {
        name: sum(int(part[name]) for part in parts.values()) for name in ("desired", "ready", "updated")
    }
    return {
        "observedGeneration": deployment.metadata.generation,
        **counts,
        "regions": {region: parts[region] for region in sorted(parts)},
        "conditions": with_conditions(deployment.status, [_readiness(waiting, len(parts))], now),
    }


def _readiness(waiting: Mapping[str, JsonObject], regions: int) -> Condition:
    if not waiting:
        return Condition("Ready", "True", "AllRegionsReady", f"ready in {regions} regions")
    said = "; ".join(f"{name}: {part['message'] or part['state']}" for name, part in waiting.items())
    first = next(iter(waiting.values()))
    # Nobody says that it is not ready where it is only not known to be.
    known = any(part["state"] != REGION_SILENT for part in waiting.values())
    return Condition("Ready", "False" if known else "Unknown", first["state"], said)


def _region_part(target: Resource, child: Resource | None) -> JsonObject:
    desired = sum(target.spec["zones"].values())
    if child is None:
        return _part(desired, 0, "Pending", "not declared in the region yet")
    status = child.status
    ready, updated = int(status.get("ready", 0)), int(status.get("updated", 0))
    if child.deleting:
        return _part(desired, 0, "Replacing", "an earlier one is still being removed")
    if child.spec != target.spec or status.get("observedGeneration") != child.metadata.generation:
        return _part(desired, ready, "Progressing", "the region has not taken this up yet")
    if not target.spec["zones"]:
        return _part(0, 0, "NoZone", "the region has none of the zones named")
    condition = child.condition("Ready")
    if condition is None or condition.status != "True":
        reason, message = (condition.reason, condition.message) if condition else ("Progressing", "")
        return _part(desired, ready, reason or "NotReady", message, updated)
    return _part(desired, ready, "Ready", "", updated)


def _leaving_part(child: Resource) -> JsonObject:
    return _part(0, int(child.status.get("ready", 0)), "Removing", "no longer wanted here; being removed")


def _part(desired: int, ready: int, state: str, message: str, updated: int = 0) -> JsonObject:
    return {"desired": desired, "ready": ready, "updated": updated, "state": state, "message": message}
