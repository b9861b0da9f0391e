"""What happened to a resource, in words for people: who changed it, when, why, and which fields of the spec.

Pure: from the store's events to the items of the API's answer.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from transom.hub.store_history import Event
from transom.model.resources import JsonObject


def told_history(events: Sequence[Event]) -> list[JsonObject]:
    """An item for each event, newest first as the events are.

    {revision, generation, event, who, role, why, at, changed}: `changed` lists the paths in the spec that
    differ from the event before; it is empty when only status or metadata changed.
    """
    items: list[JsonObject] = []
    for number, event in enumerate(events):
        before = events[number + 1] if number + 1 < len(events) else None
        meta = event.resource.metadata
        same = before is not None and before.resource.metadata.uid == meta.uid
        items.append(
            {
                "revision": event.revision,
                "generation": meta.generation,
                "event": event.event,
                "who": event.who,
                "role": event.role,
                "why": event.why,
                "at": event.at,
                "changed": sorted(changed_paths(before.resource.spec, event.resource.spec, "spec"))
                if same and before is not None
                else [],
            }
        )
    return items


def changed_paths(before: Any, after: Any, path: str) -> Iterator[str]:
    """The paths below `path` at which two JSON values differ; lists are compared as a whole."""
    if before == after:
        return
    if not (isinstance(before, Mapping) and isinstance(after, Mapping)):
        yield path
        return
    old, new = cast("Mapping[str, Any]", before), cast("Mapping[str, Any]", after)
    for name in old.keys() | new.keys():
        if name not in old or name not in new:
            yield f"{path}.{name}"
        else:
            yield from changed_paths(old[name], new[name], f"{path}.{name}")
