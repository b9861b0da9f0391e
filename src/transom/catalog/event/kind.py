"""What an Event is: a line that a client writes about a resource, for people to read for an hour.

Stored as core/v1 has it (its fields stand beside `metadata`), and shown as events.k8s.io/v1 has it, where
some fields have other names:
https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/. Nothing in transom acts on
one. They are bounded in number for each tenant and in time: what must be kept is in the history.
"""

import re
from collections.abc import Iterator
from typing import Any

from pydantic import Field

from transom.catalog.rules import MicroTime, Seconds
from transom.model.errors import Problem
from transom.model.kinds import Column, Fleeting, Kind, Spec, View
from transom.model.resources import JsonObject, Resource

EVENTS_OF_A_TENANT_MAX = 1000
KEEP_SECONDS = 3600.0

_NOTE_MAX = 1024
_TEXT_MAX = 128
_COUNT_MAX = 2**31 - 1
_OF_THE_CLUSTER = ("default", "kube-system")
"""Where clients write of what belongs to no namespace."""
_QUALIFIED = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


class ObjectReference(Spec):
    """Which object is meant."""

    api_version: str | None = Field(default=None, max_length=512)
    """Its group and version."""
    kind: str | None = Field(default=None, max_length=512)
    """Its kind."""
    namespace: str | None = Field(default=None, max_length=253)
    """Its namespace; empty for what belongs to none."""
    name: str | None = Field(default=None, max_length=512)
    """Its name."""
    uid: str | None = Field(default=None, max_length=512)
    """Its uid."""
    resource_version: str | None = Field(default=None, max_length=512)
    """Its resourceVersion when this was said."""
    field_path: str | None = Field(default=None, max_length=1024)
    """Which part of it, as spec.containers{app}."""


class EventSource(Spec):
    """Which part said it, and on which host."""

    component: str | None = Field(default=None, max_length=512)
    """The part that said it."""
    host: str | None = Field(default=None, max_length=512)
    """The host that it runs on."""


class EventSeries(Spec):
    """How often the same was seen, and when last."""

    count: int | None = Field(default=None, ge=0, le=_COUNT_MAX)
    """How often it was seen."""
    last_observed_time: MicroTime | None = None
    """When it was seen last."""


class _Common(Spec):
    type: str | None = Field(default=None, max_length=_TEXT_MAX)
    """Normal or Warning."""
    reason: str | None = Field(default=None, max_length=_TEXT_MAX)
    """Why, as one word for machines."""
    action: str | None = Field(default=None, max_length=_TEXT_MAX)
    """What was done or failed, as one word for machines."""
    event_time: MicroTime | None = None
    """When it was seen first."""
    series: EventSeries | None = None
    """That it goes on; none for a single event."""
    related: ObjectReference | None = None
    """A second object that it is about."""
    reporting_instance: str | None = Field(default=None, max_length=512)
    """Which process said it."""


class CoreEvent(_Common):
    """An Event as core/v1 has it."""

    involved_object: ObjectReference
    """The object that it is about."""
    message: str | None = Field(default=None, max_length=8 * _NOTE_MAX)
    """What happened, for people."""
    source: EventSource | None = None
    """Which part said it."""
    first_timestamp: Seconds | None = None
    """When it was seen first."""
    last_timestamp: Seconds | None = None
    """When it was seen last."""
    count: int | None = Field(default=None, ge=0, le=_COUNT_MAX)
    """How often it was seen."""
    reporting_component: str | None = Field(default=None, max_length=512)
    """Which controller said it."""


class GroupEvent(_Common):
    """An Event as events.k8s.io/v1 has it."""

    regarding: ObjectReference | None = None
    """The object that it is about."""
    note: str | None = Field(default=None, max_length=8 * _NOTE_MAX)
    """What happened, for people."""
    reporting_controller: str | None = Field(default=None, max_length=512)
    """Which controller said it."""
    deprecated_source: EventSource | None = None
    """`source` of core/v1."""
    deprecated_first_timestamp: Seconds | None = None
    """`firstTimestamp` of core/v1."""
    deprecated_last_timestamp: Seconds | None = None
    """`lastTimestamp` of core/v1."""
    deprecated_count: int | None = Field(default=None, ge=0, le=_COUNT_MAX)
    """`count` of core/v1."""


_GROUP_NAMES = {
    "involvedObject": "regarding",
    "message": "note",
    "reportingComponent": "reportingController",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
}
_CORE_NAMES = {new: old for old, new in _GROUP_NAMES.items()}


def _renamed(fields: JsonObject, names: dict[str, str]) -> JsonObject:
    return {names.get(name, name): value for name, value in fields.items()}


def _show(event: Resource) -> Resource:
    spec = _renamed(event.spec, _GROUP_NAMES)
    return Resource(GROUP_EVENT.name, event.metadata, GROUP_EVENT.api_version, spec, event.status)


def _read(event: Resource, held: Resource | None) -> Resource:
    spec: JsonObject = {"involvedObject": {}, **_renamed(event.spec, _CORE_NAMES)}
    return Resource(EVENT.name, event.metadata, EVENT.api_version, spec, held.status if held else {})


def _check_core(event: Resource) -> Iterator[Problem]:
    yield from _check_place(event, "involvedObject")
    if event.spec.get("eventTime"):
        yield from _check_new(event, "message", "reportingComponent")


def _check_group(event: Resource) -> Iterator[Problem]:
    yield from _check_place(event, "regarding")
    if not event.spec.get("eventTime") and not event.spec.get("deprecatedFirstTimestamp"):
        yield Problem("eventTime", "is missing")
    if event.spec.get("eventTime"):
        yield from _check_new(event, "note", "reportingController")


def _check_place(event: Resource, about: str) -> Iterator[Problem]:
    """What is said of an object is said in its namespace."""
    place = event.metadata.namespace
    there = event.spec.get(about, {}).get("namespace", "")
    if there != place and (there or place not in _OF_THE_CLUSTER):
        yield Problem(f"{about}.namespace", f"{there!r} is not the event's namespace, {place!r}")


def _check_new(event: Resource, note: str, controller: str) -> Iterator[Problem]:
    """What Kubernetes asks of an event that has an `eventTime`."""
    for field in (controller, "reportingInstance", "action", "reason"):
        if not event.spec.get(field):
            yield Problem(field, "is missing; an event with an eventTime must have it")
        elif field == controller and not _QUALIFIED.fullmatch(event.spec[field]):
            yield Problem(field, "must be a qualified name, as acme.example/backup-operator")
        elif len(event.spec[field]) > _TEXT_MAX:
            yield Problem(field, f"at most {_TEXT_MAX} characters")
    if len(event.spec.get(note, "")) > _NOTE_MAX:
        yield Problem(note, f"at most {_NOTE_MAX} characters")


def _text(event: Resource, *names: str) -> str:
    found: Any = next((event.spec[name] for name in names if event.spec.get(name)), "")
    return str(found)


def _about(event: Resource) -> str:
    about: JsonObject = event.spec.get("involvedObject") or event.spec.get("regarding") or {}
    return f"{about.get('kind', '').lower()}/{about.get('name', '')}"


def _last_seen(event: Resource) -> str:
    series: JsonObject = event.spec.get("series") or {}
    return str(
        series.get("lastObservedTime")
        or _text(event, "lastTimestamp", "deprecatedLastTimestamp", "eventTime")
        or event.metadata.creation_timestamp
    )


_COLUMNS = (
    Column("LAST SEEN", _last_seen),
    Column("TYPE", lambda event: _text(event, "type")),
    Column("REASON", lambda event: _text(event, "reason")),
    Column("OBJECT", _about),
    Column("MESSAGE", lambda event: _text(event, "message", "note").strip()),
)

EVENT = Kind(
    name="Event",
    plural="events",
    group="",
    short_names=("ev",),
    spec=CoreEvent,
    flat=True,
    dotted_names=True,
    fleeting=Fleeting(EVENTS_OF_A_TENANT_MAX, KEEP_SECONDS),
    check=_check_core,
    columns=_COLUMNS,
)

GROUP_EVENT = Kind(
    name="Event",
    plural="events",
    group="events.k8s.io",
    short_names=("ev",),
    spec=GroupEvent,
    flat=True,
    dotted_names=True,
    view=View("Event", _show, _read),
    check=_check_group,
    columns=_COLUMNS,
)
