"""Bodies in protobuf: as kubectl and client-go send them, and as nobody should."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_parts import served
from transom.hub.api.errors import RefusedError
from transom.hub.api.protobuf import MEDIA_TYPE, read_protobuf

# kubectl 1.37: create namespace foo
NAMESPACE = bytes.fromhex(
    "6b3873000a0f0a02763112094e616d657370616365121b0a130a03666f6f12001a0022002a00320038004200120"
    "01a020a001a002200"
)


def varint(value):
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*data, value])


def part(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value % (1 << 64))
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def body(api_version, kind, *fields):
    known = part(1, api_version) + part(2, kind)
    return b"k8s\0" + part(1, known) + part(2, b"".join(fields)) + part(3, "") + part(4, "")


def test_a_namespace_as_kubectl_sends_it():
    assert read_protobuf(NAMESPACE) == {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "foo"}}


def test_what_is_empty_differs_from_what_is_not_there():
    spec = part(1, "") + part(2, 15) + part(4, part(1, 1_700_000_000) + part(2, 120_000)) + part(5, 0)
    metadata = part(1, "leader") + part(3, "acme") + part(11, part(1, "a") + part(2, "")) + part(14, "held")
    sent = body("coordination.k8s.io/v1", "Lease", part(1, metadata), part(2, spec))
    assert read_protobuf(sent) == {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "leader", "namespace": "acme", "labels": {"a": ""}, "finalizers": ["held"]},
        "spec": {
            "holderIdentity": "",
            "leaseDurationSeconds": 15,
            "renewTime": "2023-11-14T22:13:20.000120Z",
            "leaseTransitions": 0,
        },
    }


def test_options_of_a_delete_are_read_whatever_group_they_are_in():
    sent = body(
        "coordination.k8s.io/v1", "DeleteOptions", part(1, 0), part(2, part(1, "the-uid")), part(5, "All")
    )
    assert read_protobuf(sent) == {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "DeleteOptions",
        "gracePeriodSeconds": 0,
        "preconditions": {"uid": "the-uid"},
        "dryRun": ["All"],
    }


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"", 400),
        (b'{"kind": "Namespace"}', 400),
        (NAMESPACE[:-12], 400),
        (body("v1", "Pod"), 415),
        (b"k8s\0", 415),
        (body("v1", "Namespace", part(1, 7)), 400),
        (body("v1", "Namespace", part(1, part(1, b"\xff"))), 400),
        (body("v1", "Namespace", part(1, part(8, part(1, 1 << 62)))), 400),
        (body("v1", "Namespace", b"\xff" * 20), 400),
    ],
)
def test_what_cannot_be_read_is_refused(sent, code):
    with pytest.raises(RefusedError) as refused:
        read_protobuf(sent)
    assert refused.value.code == code


@given(st.integers(0, len(NAMESPACE) - 1), st.binary(max_size=8))
def test_no_bytes_do_harm(at, other):
    with contextlib.suppress(RefusedError):
        found = read_protobuf(NAMESPACE[:at] + other + NAMESPACE[at + len(other) :])
        assert found["kind"] in {"Namespace", "DeleteOptions"}


async def test_the_hub_reads_them(tmp_path):
    async with served(tmp_path) as api:
        made = await api.ask("POST", "/api/v1/namespaces", NAMESPACE, media=MEDIA_TYPE)
        assert (made.code, made.body["metadata"]["name"]) == (201, "foo")
        path = "/api/v1/namespaces/foo"
        dry = body("v1", "DeleteOptions", part(5, "All"))
        assert (await api.ask("DELETE", path, dry, media=MEDIA_TYPE)).code == 200
        assert (await api.ask("GET", path)).code == 200
        assert (await api.ask("PATCH", path, NAMESPACE, media=MEDIA_TYPE)).code == 415
