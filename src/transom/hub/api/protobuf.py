"""What clients in Go send of Kubernetes' own kinds: protobuf.

kubectl (`create namespace`, `auth can-i`, `auth whoami`) and leaders elected by client-go write these kinds
in protobuf and nothing else, since the real server takes it; answers they read in JSON, too. A body is four
bytes, then the message `Unknown` around the object
(https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding). Messages are those of
Kubernetes' `generated.proto` files, by the numbers of their fields
(https://protobuf.dev/programming-guides/encoding/). Fields without a name here are passed over, as protobuf
has it. In JSON, empty values of most fields are left out; where empty differs from absent it is `kept`.
Pure. Next on the data's way: `bodies`.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from transom.hub.api.errors import RefusedError
from transom.model.resources import JsonObject

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"

_MAGIC = b"k8s\0"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LENGTHS = {_FIXED64: 8, _FIXED32: 4}
_VARINT_BYTES_MAX = 10
_SIGN, _ALL = 1 << 63, 1 << 64


class _Field(NamedTuple):
    name: str
    wire_type: int
    read: Callable[[Any], Any]
    kept: bool = False
    sort: type | None = None
    """list and dict for what repeats: values, or entries of a map."""


_Message = Mapping[int, _Field]


def read_protobuf(data: bytes) -> JsonObject:
    """The object in a body, as its JSON would have it.

    Raises `RefusedError`: 400 for what is no such message, 415 for kinds that are not read in protobuf.
    """
    if not data.startswith(_MAGIC):
        raise RefusedError(400, f"a body of {MEDIA_TYPE} begins with the bytes 6b 38 73 00")
    unknown = _decoded(memoryview(data)[len(_MAGIC) :], _UNKNOWN)
    envelope = unknown.get("typeMeta", {})
    api_version, kind = envelope.get("apiVersion", ""), envelope.get("kind", "")
    message = _DELETE_OPTIONS if kind == "DeleteOptions" else _KINDS.get((api_version, kind))
    if message is None:
        what = f"{api_version} {kind}".strip() or "an object of no kind"
        raise RefusedError(415, f"{what} is not read in protobuf here; send it as application/json")
    return {"apiVersion": api_version, "kind": kind, **_decoded(unknown.get("raw", memoryview(b"")), message)}


def _decoded(data: memoryview, message: _Message) -> JsonObject:
    found: JsonObject = {}
    for number, wire_type, raw in _fields(data):
        field = message.get(number)
        if field is None:
            continue
        if wire_type != field.wire_type:
            raise _broken(f"field {field.name} is of wire type {wire_type}, not {field.wire_type}")
        value = field.read(raw)
        if field.sort is dict:
            found.setdefault(field.name, {})[value.get("key", "")] = value.get("value", "")
        elif field.sort is list:
            found.setdefault(field.name, []).append(value)
        elif value or (field.kept and value is not None):
            found[field.name] = value
    return found


def _fields(data: memoryview) -> Iterator[tuple[int, int, Any]]:
    """Number, wire type, and number or bytes of each field."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == _VARINT:
            value, at = _varint(data, at)
            yield number, wire_type, value
            continue
        length = _LENGTHS.get(wire_type)
        if wire_type == _BYTES:
            length, at = _varint(data, at)
        if length is None or at + length > len(data):
            raise _broken(f"field {number} ends behind its message, or is of wire type {wire_type}")
        yield number, wire_type, data[at : at + length]
        at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number, seven bits a byte, the lowest first; and where it ends."""
    value = 0
    for shift, byte in enumerate(data[at : at + _VARINT_BYTES_MAX]):
        value |= (byte & 0x7F) << (7 * shift)
        if not byte & 0x80:
            return value % _ALL, at + shift + 1
    raise _broken("a number does not end")


def _broken(why: str) -> RefusedError:
    return RefusedError(400, f"the body is no Kubernetes protobuf: {why}")


def _read_text(raw: memoryview) -> str:
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError:
        raise _broken("a text is not UTF-8") from None


def _read_number(raw: int) -> int:
    return raw - _ALL if raw & _SIGN else raw


def _read_time(raw: memoryview, precision: str = "seconds") -> str | None:
    """RFC 3339; None for the time that Go has for none at all."""
    said = _decoded(raw, _TIME)
    if not said:
        return None
    try:
        when = datetime.fromtimestamp(said.get("seconds", 0), UTC)
        when = when.replace(microsecond=said.get("nanos", 0) // 1000)
    except (ValueError, OverflowError, OSError):
        raise _broken("a time is out of range") from None
    return when.isoformat(timespec=precision).replace("+00:00", "Z")


def _read_micro_time(raw: memoryview) -> str | None:
    return _read_time(raw, "microseconds")


def _text(name: str, *, kept: bool = False) -> _Field:
    return _Field(name, _BYTES, _read_text, kept)


def _number(name: str, *, kept: bool = False) -> _Field:
    return _Field(name, _VARINT, _read_number, kept)


def _truth(name: str) -> _Field:
    return _Field(name, _VARINT, bool, kept=True)


def _time(name: str) -> _Field:
    return _Field(name, _BYTES, _read_time)


def _micro_time(name: str) -> _Field:
    return _Field(name, _BYTES, _read_micro_time)


def _part(name: str, message: _Message, *, kept: bool = False) -> _Field:
    def read(raw: memoryview) -> JsonObject:
        return _decoded(raw, message)

    return _Field(name, _BYTES, read, kept)


def _map(name: str, value: _Field) -> _Field:
    return _each(_part(name, {1: _text("key"), 2: value}), dict)


def _each(field: _Field, sort: type = list) -> _Field:
    return field._replace(sort=sort)


_TIME: _Message = {1: _number("seconds"), 2: _number("nanos")}
_UNKNOWN: _Message = {
    1: _part("typeMeta", {1: _text("apiVersion"), 2: _text("kind")}),
    2: _Field("raw", _BYTES, memoryview),
}
_OWNER: _Message = {
    1: _text("kind"),
    3: _text("name"),
    4: _text("uid"),
    5: _text("apiVersion"),
    6: _truth("controller"),
    7: _truth("blockOwnerDeletion"),
}
_METADATA: _Message = {
    1: _text("name"),
    2: _text("generateName"),
    3: _text("namespace"),
    5: _text("uid"),
    6: _text("resourceVersion"),
    7: _number("generation"),
    8: _time("creationTimestamp"),
    9: _time("deletionTimestamp"),
    10: _number("deletionGracePeriodSeconds", kept=True),
    11: _map("labels", _text("value")),
    12: _map("annotations", _text("value")),
    13: _each(_part("ownerReferences", _OWNER)),
    14: _each(_text("finalizers")),
}
_LEASE: _Message = {
    1: _text("holderIdentity", kept=True),
    2: _number("leaseDurationSeconds", kept=True),
    3: _micro_time("acquireTime"),
    4: _micro_time("renewTime"),
    5: _number("leaseTransitions", kept=True),
    6: _text("strategy", kept=True),
    7: _text("preferredHolder", kept=True),
}
_REFERENCE: _Message = {
    1: _text("kind"),
    2: _text("namespace"),
    3: _text("name"),
    4: _text("uid"),
    5: _text("apiVersion"),
    6: _text("resourceVersion"),
    7: _text("fieldPath"),
}
_SOURCE: _Message = {1: _text("component"), 2: _text("host")}
_SERIES: _Message = {1: _number("count"), 2: _micro_time("lastObservedTime")}
_CORE_EVENT: _Message = {
    1: _part("metadata", _METADATA),
    2: _part("involvedObject", _REFERENCE),
    3: _text("reason"),
    4: _text("message"),
    5: _part("source", _SOURCE),
    6: _time("firstTimestamp"),
    7: _time("lastTimestamp"),
    8: _number("count"),
    9: _text("type"),
    10: _micro_time("eventTime"),
    11: _part("series", _SERIES),
    12: _text("action"),
    13: _part("related", _REFERENCE),
    14: _text("reportingComponent"),
    15: _text("reportingInstance"),
}
_EVENT: _Message = {
    1: _part("metadata", _METADATA),
    2: _micro_time("eventTime"),
    3: _part("series", _SERIES),
    4: _text("reportingController"),
    5: _text("reportingInstance"),
    6: _text("action"),
    7: _text("reason"),
    8: _part("regarding", _REFERENCE),
    9: _part("related", _REFERENCE),
    10: _text("note"),
    11: _text("type"),
    12: _part("deprecatedSource", _SOURCE),
    13: _time("deprecatedFirstTimestamp"),
    14: _time("deprecatedLastTimestamp"),
    15: _number("deprecatedCount"),
}
_REQUIREMENT: _Message = {1: _text("key"), 2: _text("operator"), 3: _each(_text("values"))}
_SELECTOR: _Message = {1: _text("rawSelector"), 2: _each(_part("requirements", _REQUIREMENT))}
_RESOURCE: _Message = {
    1: _text("namespace"),
    2: _text("verb"),
    3: _text("group"),
    4: _text("version"),
    5: _text("resource"),
    6: _text("subresource"),
    7: _text("name"),
    8: _part("fieldSelector", _SELECTOR),
    9: _part("labelSelector", _SELECTOR),
}
_MAY_I: _Message = {
    1: _part("resourceAttributes", _RESOURCE, kept=True),
    2: _part("nonResourceAttributes", {1: _text("path"), 2: _text("verb")}, kept=True),
}
_MAY_THEY: _Message = {
    **_MAY_I,
    3: _text("user"),
    4: _each(_text("groups")),
    6: _text("uid"),
}
_DELETE_OPTIONS: _Message = {
    1: _number("gracePeriodSeconds", kept=True),
    2: _part("preconditions", {1: _text("uid", kept=True), 2: _text("resourceVersion", kept=True)}),
    3: _truth("orphanDependents"),
    4: _text("propagationPolicy", kept=True),
    5: _each(_text("dryRun")),
    6: _truth("ignoreStoreReadErrorWithClusterBreakingPotential"),
}


def _with_spec(spec: _Message) -> _Message:
    return {1: _part("metadata", _METADATA), 2: _part("spec", spec)}


_KINDS: Mapping[tuple[str, str], _Message] = {
    ("v1", "Namespace"): _with_spec({1: _each(_text("finalizers"))}),
    ("v1", "Event"): _CORE_EVENT,
    ("events.k8s.io/v1", "Event"): _EVENT,
    ("coordination.k8s.io/v1", "Lease"): _with_spec(_LEASE),
    ("authentication.k8s.io/v1", "SelfSubjectReview"): {1: _part("metadata", _METADATA)},
    ("authorization.k8s.io/v1", "SelfSubjectAccessReview"): _with_spec(_MAY_I),
    ("authorization.k8s.io/v1", "SelfSubjectRulesReview"): _with_spec({1: _text("namespace")}),
    ("authorization.k8s.io/v1", "SubjectAccessReview"): _with_spec(_MAY_THEY),
    ("authorization.k8s.io/v1", "LocalSubjectAccessReview"): _with_spec(_MAY_THEY),
}
