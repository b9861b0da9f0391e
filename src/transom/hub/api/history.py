"""What happened to a resource: who changed it, when, from where, why, and what; and how two states differ.

Pure: from the store's events to the API's answers. Next on the data's way: `resources` answers with them.
"""

from collections.abc import Sequence

from transom.hub.differences import differences
from transom.hub.store_history import Event
from transom.hub.store_schema import PURGED
from transom.model.resources import JsonObject


def told_history(events: Sequence[Event]) -> list[JsonObject]:
    """An item for each event, newest first as the events are: what `told_event` says, and `changes`, which
    are the `differences` from the event before.
    """
    items: list[JsonObject] = []
    for number, event in enumerate(events):
        older = events[number + 1] if number + 1 < len(events) else None
        # A name may have had several lives; each begins with all that was declared of it.
        same = older is not None and older.resource.metadata.uid == event.resource.metadata.uid
        before = older.resource if older and same else None
        # What was before the oldest that is remembered, nobody can say; of what was purged nothing is left.
        unknown = event.event == PURGED or (before is None and event.event != "ADDED")
        changes = [] if unknown else differences(before, event.resource)
        items.append({**told_event(event), "changes": changes})
    return items


def told_event(event: Event) -> JsonObject:
    """{revision, generation, uid, event, who, role, source, why, at}.

    `event` is "ADDED", "MODIFIED", "DELETED", "RESTORED" or "PURGED".
    """
    meta = event.resource.metadata
    # Whoever is made anew begins at generation 1; what is brought back goes on where it was.
    restored = event.event == "ADDED" and meta.generation > 1
    return {
        "revision": event.revision,
        "generation": meta.generation,
        "uid": meta.uid,
        "event": "RESTORED" if restored else event.event,
        "who": event.who,
        "role": event.role,
        "source": event.source,
        "why": event.why,
        "at": event.at,
    }


def told_diff(before: Event, after: Event) -> JsonObject:
    """{from, to, changes}: what `told_event` says of both, and how they differ."""
    changes = differences(before.resource, after.resource)
    return {"from": told_event(before), "to": told_event(after), "changes": changes}
