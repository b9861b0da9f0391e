"""Manifests for tests that send what nobody should: sound ones of every kind, and ways to spoil them.

`SOUND` has what a person would write of each kind; `values` makes more of a kind's own schema; `damaged`
spoils one place of a manifest, `texts` what is left of it as bytes. Each is a strategy of hypothesis.
"""

import json
from collections.abc import Iterator
from typing import Any

import yaml
from hypothesis import strategies as st

from transom.model.resources import JsonObject

_HASH = "0123456789abcdef" * 4
_WHEN = "2030-01-01T00:00:00.000001Z"
_ABOUT = {"kind": "Deployment", "namespace": "acme", "name": "shop"}
SOUND: dict[tuple[str, str], JsonObject] = {
    ("transom.dev", "Tenant"): {"spec": {"title": "Fuzz", "regions": ["eu", "us"], "maxStaleSeconds": 60}},
    ("transom.dev", "Quota"): {"spec": {"hard": {"count/apikeys.transom.dev": 5000}}},
    ("transom.dev", "Region"): {
        "spec": {"log": "https://log.example:9", "zones": [{"name": "a", "driver": "null"}, {"name": "b"}]}
    },
    ("transom.dev", "ApiKey"): {"spec": {"hash": _HASH, "scopes": ["*"], "virtualCluster": "one"}},
    ("transom.dev", "KafkaCluster"): {"spec": {"bootstrapServers": ["kafka.example:9092"], "title": "T"}},
    ("transom.dev", "Deployment"): {
        "spec": {
            "app": "shop",
            "version": "1",
            "command": ["serve", "-p"],
            "env": {"A": "b"},
            "regions": ["eu", "us"],
            "healthCheck": {"kind": "http", "path": "/ok"},
        }
    },
    ("transom.dev", "RegionalDeployment"): {
        "spec": {"app": "a", "version": "1", "command": ["a"], "region": "eu", "zones": {"a": 1}}
    },
    ("transom.dev", "Instance"): {},
    ("transom.dev", "ContextFreeze"): {"spec": {"reason": "a change"}},
    ("transom.dev", "ContextOverride"): {"spec": {"upTo": 3, "until": "2030-01-01T00:00:00Z"}},
    ("", "Namespace"): {},
    ("coordination.k8s.io", "Lease"): {
        "spec": {
            "holderIdentity": "me",
            "leaseDurationSeconds": 5,
            "renewTime": "2030-01-01T00:00:00.000001Z",
        }
    },
    ("", "Event"): {"involvedObject": _ABOUT, "message": "it fell", "count": 2, "source": {"component": "c"}},
    ("events.k8s.io", "Event"): {
        "regarding": _ABOUT,
        "eventTime": _WHEN,
        "reportingController": "acme.example/operator",
        "reportingInstance": "one",
        "action": "Fall",
        "reason": "Fell",
    },
    ("transom.dev", "HubKey"): {"spec": {"hash": _HASH, "expiresAt": "2030-01-01T00:00:00Z"}},
    ("transom.dev", "RoleBinding"): {
        "spec": {
            "rules": [{"verbs": ["get"], "resources": ["deployments"], "resourceNames": ["shop"]}],
            "subjects": [{"kind": "User", "name": "ada"}, {"kind": "Key", "name": "ci"}],
        }
    },
    ("transom.dev", "HubRoleBinding"): {
        "spec": {"role": "viewer", "subjects": [{"kind": "Group", "name": "people"}]}
    },
}
"""What may stand beside `metadata` in a manifest of each kind, by group and name."""

DROP = object()
"""In the place of a value that is to be left out."""


def _nested(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


_ODD_TEXTS = st.sampled_from(
    [
        "",
        " ",
        "\0",
        "a\0b",
        "\ud800",
        "a\udfffb",
        "é",
        "\u202e",
        "\x1b[2J",
        "x" * 64,
        "x" * 254,
        "x" * 70_000,
        "0",
        "true",
        "null",
        "-",
        "a/b",
        "a//b",
        "../..",
        "a.b",
        "a b",
        "$(PORT)",
        "%00",
        "9999-99-99T99:99:99Z",
        "0000-01-01T00:00:00Z",
        "9999-12-31T23:59:59.999999-23:59",
        "0001-01-01T00:00:00+23:59",
        "2030-01-01T00:00:00",
        "host:70000",
        "http://[::1",
        "https://[not-an-address]:1",
        "count/nothing.example",
        "sum/deployments.transom.dev/spec.command",
        "\n",
        "\r\n",
    ]
)
_ODD_NUMBERS = st.sampled_from(
    [0, -1, 1, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 2**63, 2**64, 10**40, 0.1, -0.0, 1e308, 5e-324]
) | st.sampled_from([float("nan"), float("inf"), float("-inf")])
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    _ODD_NUMBERS,
    _ODD_TEXTS,
    st.text(max_size=5),
    st.sampled_from([[], {}, [None], {"": None}, [[]], {"a": {"b": []}}, [1, "1", True], ["a", "a"]]),
    st.sampled_from([3, 25, 31, 32, 33, 200]).map(_nested),
)
"""What stands where something else should."""
_ODD_NAMES = st.sampled_from(
    ["", "a", "é", "\0", "\ud800", "a.b", "a/b", "~", "__proto__", "$ref", "kind", "spec", "x" * 300, "[0]"]
)


def values(schema: JsonObject) -> st.SearchStrategy[Any]:
    """Values that a structural schema (`model.schemas`) allows; what it says in words only is not kept."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    least, most = schema.get("minimum"), schema.get("maximum")
    made = {
        "object": _objects,
        "array": _arrays,
        "string": _texts,
        "integer": lambda _: st.integers(least, most),
        "number": lambda _: st.floats(least, most, allow_nan=False),
        "boolean": lambda _: st.booleans(),
    }
    make = made.get(schema.get("type", ""))
    return make(schema) if make else st.integers() | st.text(max_size=5)


def _arrays(schema: JsonObject) -> st.SearchStrategy[list[Any]]:
    least = schema.get("minItems", 0)
    return st.lists(values(schema["items"]), min_size=least, max_size=least + 3)


def _texts(schema: JsonObject) -> st.SearchStrategy[str]:
    if "pattern" in schema:
        return st.from_regex(schema["pattern"].replace("$", r"\Z"), fullmatch=True)
    if schema.get("format") == "date-time":
        return st.datetimes().map(lambda when: f"{when.isoformat()}Z")
    names = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,9}[a-z0-9])?", fullmatch=True)
    return st.one_of(names, st.sampled_from(["eu", "us", "mars"]), st.text(max_size=8))


def _objects(schema: JsonObject) -> st.SearchStrategy[JsonObject]:
    properties: JsonObject = schema.get("properties", {})
    if not properties:
        each = schema.get("additionalProperties")
        keys = st.from_regex(r"[a-zA-Z0-9][-a-zA-Z0-9/._]{0,9}", fullmatch=True)
        return st.dictionaries(keys, values(each) if isinstance(each, dict) else JUNK, max_size=3)
    required = set(schema.get("required", ()))
    given = {name: values(part) for name, part in properties.items()}
    return st.fixed_dictionaries(
        {name: each for name, each in given.items() if name in required},
        optional={name: each for name, each in given.items() if name not in required},
    )


ODD_METADATA: dict[str, st.SearchStrategy[Any]] = {
    "labels": st.dictionaries(_ODD_NAMES | st.just("transom.dev/x"), _ODD_TEXTS | JUNK, max_size=2),
    "annotations": st.dictionaries(_ODD_NAMES | st.just("transom.dev/change-cause"), _ODD_TEXTS, max_size=2),
    "finalizers": st.lists(
        st.sampled_from(["x/y", "transom.dev/region", "orphan", "foregroundDeletion", "", "a", "é/é"]),
        max_size=3,
    ),
    "ownerReferences": st.lists(
        st.fixed_dictionaries(
            {
                "apiVersion": st.sampled_from(["transom.dev/v1", "v1", "", "a/b/c", "\0"]),
                "kind": st.sampled_from(["Deployment", "Tenant", "Widget", "", "\0"]),
                "name": st.sampled_from(["a", "acme", "", "a/b", "\0"]),
                "uid": st.sampled_from(["u", "", "\0", "x" * 3000]),
            },
            optional={"controller": JUNK, "blockOwnerDeletion": st.booleans(), "more": JUNK},
        ),
        max_size=2,
    ),
    "managedFields": st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "manager": st.sampled_from(["m", "", "x" * 200, 5, None]),
                "operation": st.sampled_from(["Apply", "Update", "Steal"]),
                "apiVersion": st.sampled_from(["transom.dev/v1", "v9", ""]),
                "time": _ODD_TEXTS,
                "fieldsType": st.sampled_from(["FieldsV1", "x"]),
                "fieldsV1": st.sampled_from(
                    [
                        {"f:spec": {}},
                        {"f:spec": {"f:regions": {'v:"eu"': {}}}},
                        {"k:{": {}},
                        {"v:nope": {}},
                        {"i:99999999999999999999": {}},
                        {".": {".": {}}},
                        {"x": {}},
                        {"f:": {}},
                        {"f:spec": []},
                    ]
                ),
                "subresource": st.sampled_from(["status", "x", []]),
            },
        ),
        max_size=2,
    ),
    "generateName": st.sampled_from(["", "a-", "A-", "é", "x" * 70, "a.b."]),
    "name": _ODD_TEXTS,
    "namespace": _ODD_TEXTS,
    "uid": st.sampled_from(["", "another", "\0"]),
    "resourceVersion": st.sampled_from(["", "0", "1", "x", "-1", "99999999999999999999999"]),
    "generation": _ODD_NUMBERS,
    "creationTimestamp": _ODD_TEXTS,
    "deletionTimestamp": _ODD_TEXTS,
    "deletionGracePeriodSeconds": _ODD_NUMBERS,
    "selfLink": _ODD_TEXTS,
    "clusterName": _ODD_TEXTS,
}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a value, as the names and numbers that lead to it; its own is ()."""
    yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        yield from places(part, (*path, name))


def at(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """`value` with `new` at `path`, or without what is there (`DROP`)."""
    if not path:
        return new
    first, *rest = path
    parts = dict(value) if isinstance(value, dict) else list(value)
    if not rest and new is DROP:
        del parts[first]
    else:
        parts[first] = at(parts[first] if rest else None, tuple(rest), new)
    return parts


@st.composite
def damaged(draw: st.DrawFn, sound: JsonObject, schema: JsonObject) -> Any:
    """`sound` with up to three places spoilt, or made anew as the schema of its kind allows."""
    value: Any = sound
    for _ in range(draw(st.integers(0, 3))):
        if not isinstance(value, dict):
            break
        how = draw(st.sampled_from(["junk", "drop", "more", "metadata", "schema", "schema"]))
        metadata = value.get("metadata")
        path = draw(st.sampled_from(list(places(value))))
        if how == "metadata" and isinstance(metadata, dict):
            field = draw(st.sampled_from(sorted(ODD_METADATA)))
            value = at(value, ("metadata",), {**metadata, field: draw(ODD_METADATA[field])})
        elif how == "schema":
            value = draw(_remade(value, schema))
        elif how == "more":
            inner = [each for each in places(value) if isinstance(_at(value, each), dict)]
            path = draw(st.sampled_from(inner))
            value = at(value, path, {**_at(value, path), draw(_ODD_NAMES): draw(JUNK)})
        else:
            value = at(value, path, DROP if how == "drop" and path else draw(JUNK))
    return value


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        value = value[part]
    return value


@st.composite
def _remade(draw: st.DrawFn, value: JsonObject, schema: JsonObject) -> JsonObject:
    """`value` with one field, at whatever depth, made anew as its schema allows."""
    known = sorted(schema["properties"].keys() - {"apiVersion", "kind", "metadata"})
    if not known:
        return value
    name = draw(st.sampled_from(known))
    part, inner = value.get(name), schema["properties"][name]
    deeper = isinstance(part, dict) and "properties" in inner and draw(st.integers(0, 3)) > 0
    made = draw(_remade(part, inner)) if deeper else draw(values(inner))
    return {**value, name: made}


@st.composite
def texts(draw: st.DrawFn, value: Any, *, as_yaml: bool) -> bytes:
    """A value written out, and now and then spoilt as bytes."""
    text = _yaml(value) if as_yaml else json.dumps(value)
    data = text.encode("utf-8", "surrogatepass")
    how = draw(
        st.sampled_from([*["whole"] * 12, "twice", "cut", "flip", "insert", "utf-16", "bom", "nothing"])
    )
    if how == "twice":
        return data.replace(b'{"', b'{"kind":1,"kind":2,"', 1)
    if how == "cut":
        return data[: draw(st.integers(0, len(data)))]
    if how in ("flip", "insert"):
        where = draw(st.integers(0, max(len(data) - 1, 0)))
        return data[:where] + draw(st.binary(min_size=1, max_size=3)) + data[where + (how == "flip") :]
    if how in ("utf-16", "bom"):
        return text.encode("utf-16" if how == "utf-16" else "utf-8-sig", "surrogatepass")
    return b"" if how == "nothing" else data


def _yaml(value: Any) -> str:
    try:
        return yaml.safe_dump(value, allow_unicode=True)
    except (yaml.YAMLError, UnicodeError):
        return json.dumps(value)
