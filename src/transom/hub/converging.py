"""From what a resource wants made for it, and what there is, to changes: what controllers that fan out share.

Pure. Next on the data's way: `controllers` writes the changes.
"""

from collections.abc import Iterator, Mapping

from transom.hub.changes import Actor, Change, creating, deleting, dropping_finalizer, replacing
from transom.model.resources import Resource


def converge(
    wanted: Mapping[str, Resource], children: Mapping[str, Resource], actor: Actor
) -> Iterator[Change]:
    """Create, change and delete until `children` are as `wanted`; both by region."""
    for region, target in wanted.items():
        child = children.get(region)
        if child is None:
            yield Change(target.key, creating(target), actor)
        elif not child.deleting and (
            child.spec != target.spec or child.metadata.labels != target.metadata.labels
        ):
            # Only if it is still what was read (invariant 8).
            version, uid = child.metadata.resource_version, child.metadata.uid
            change = replacing(target.with_metadata(resource_version=version, uid=uid))
            yield Change(target.key, change, actor)
    for region, child in children.items():
        if region not in wanted and not child.deleting:
            yield Change(child.key, deleting(child.key, uid=child.metadata.uid), actor)


def unwind(primary: Resource, children: Mapping[str, Resource], actor: Actor) -> Iterator[Change]:
    """Delete what was made for it, and let it go once nothing of it is left anywhere."""
    yield from converge({}, children, actor)
    if not children:
        drop = dropping_finalizer(primary.key, primary.metadata.uid, actor.role)
        yield Change(primary.key, drop, actor)
