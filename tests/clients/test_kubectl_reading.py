"""kubectl, newest and 1.20, reads: tables, formats, selectors, descriptions, discovery, schemas."""

import json

import yaml

from clients_parts import gadget


def made(kubectl, name, **spec):
    kubectl("apply", "-f", "-", stdin=gadget(name, {"made-for": name}, **spec))


def test_versions_agree(kubectl):
    said = kubectl("version")
    assert "v1.37.0+transom" in said
    # Client and server are of one release as far as the newest is concerned: no warning of a skew.
    if kubectl.minor > 20:
        assert kubectl.run("version").err == ""


def test_tables_have_the_columns_of_the_kind(kubectl, name):
    made(kubectl, name, size=3)
    head, row = kubectl("get", "gadgets", "-l", f"made-for={name}").splitlines()
    assert head.split() == ["NAME", "SIZE", "PAINTED", "AGE"]
    assert row.split()[:2] == [name, "3"]
    head, row = kubectl("get", "gd", "-l", f"made-for={name}", "-o", "wide", "--show-labels").splitlines()
    assert head.split()[-1] == "LABELS"
    assert row.split()[-1] == f"made-for={name}"
    assert kubectl("get", "gd", name, "--no-headers").split()[0] == name


def test_formats(kubectl, name):
    made(kubectl, name, size=3, colour="red")
    whole = yaml.safe_load(kubectl("get", "gadget", name, "-o", "yaml"))
    assert whole["spec"] == {"size": 3, "colour": "red", "ports": []}
    assert whole == json.loads(kubectl("get", "gadget", name, "-o", "json"))
    assert kubectl("get", "gadget", name, "-o", "name") == f"gadget.clients.example/{name}\n"
    assert kubectl("get", "gadget", name, "-o", "jsonpath={.spec.size}/{.metadata.name}") == f"3/{name}"
    columns = kubectl("get", "gadget", name, "-o", "custom-columns=S:.spec.size,C:.spec.colour")
    assert [line.split() for line in columns.splitlines()] == [["S", "C"], ["3", "red"]]
    both = kubectl("get", f"gadget/{name}", "tenant/acme", "-o", "name")
    assert both.split() == [f"gadget.clients.example/{name}", "tenant.transom.dev/acme"]


def test_selectors(kubectl, name):
    for size in (1, 2):
        made_for = {"made-for": name, "size": str(size)}
        kubectl("apply", "-f", "-", stdin=gadget(f"{name}-{size}", made_for, size=size))
    by = ("get", "gadgets", "-o", "name")
    first, second = (f"gadget.clients.example/{name}-{size}" for size in (1, 2))
    assert kubectl(*by, "-l", f"made-for={name},size=1").split() == [first]
    assert kubectl(*by, "-l", f"made-for={name},size in (2, 3)").split() == [second]
    assert kubectl(*by, "-l", f"made-for={name},size!=1").split() == [second]
    assert kubectl(*by, "-l", f"made-for={name},!size").split() == []
    assert kubectl(*by, "--field-selector", f"metadata.name={name}-1").split() == [first]
    everywhere = kubectl("get", "gadgets", "-A", "-l", f"made-for={name}").splitlines()
    assert [line.split()[:2] for line in everywhere] == [
        ["NAMESPACE", "NAME"],
        ["acme", f"{name}-1"],
        ["acme", f"{name}-2"],
    ]
    assert kubectl(*by, "-l", f"made-for={name}", "--chunk-size=1").split() == [first, second]
    said = kubectl.refused(*by, "--field-selector", "spec.nonsense=1")
    assert "spec.nonsense" in said


def test_sorting_and_nothing_there(kubectl, name):
    for number, size in enumerate((3, 1, 2)):
        kubectl("apply", "-f", "-", stdin=gadget(f"{name}-{number}", {"made-for": name}, size=size))
    rows = kubectl("get", "gd", "-l", f"made-for={name}", "--sort-by=.spec.size", "--no-headers").splitlines()
    assert [row.split()[0][-1] for row in rows] == ["1", "2", "0"]
    none = kubectl.run("get", "gadgets", "-l", "made-for=nobody")
    assert (none.code, none.out, none.err.strip()) == (0, "", "No resources found in acme namespace.")


def test_what_is_not_there(kubectl, name):
    said = kubectl.refused("get", "gadget", name)
    assert said == f'Error from server (NotFound): gadgets.clients.example "{name}" not found\n'
    assert kubectl("get", "gadget", name, "--ignore-not-found") == ""
    assert 'the server doesn\'t have a resource type "gizmos"' in kubectl.refused("get", "gizmos")


def test_describe(kubectl, name):
    made(kubectl, name, size=3, colour="red", ports=[{"name": "http", "number": 80}])
    said = kubectl("describe", "gadget", name)
    lines = {line.strip() for line in said.splitlines()}
    assert {"Colour:  red", "Number:  80", f"Labels:       made-for={name}"} <= lines
    assert "Events:" in said


def test_get_all_is_what_belongs_to_a_tenant(kubectl, name):
    made(kubectl, name)
    assert f"gadget.clients.example/{name}" in kubectl("get", "all", "-o", "name").split()


def test_watching(kubectl, name):
    made(kubectl, name, size=1)
    with kubectl.running("get", "gadget", name, "-w", "-o", "jsonpath={.spec.size}{'\\n'}") as watch:
        assert watch.line() == "1"
        kubectl("patch", "gadget", name, "--type=merge", "-p", '{"spec":{"size":2}}')
        assert watch.line() == "2"
    listed = ("get", "gadgets", "-l", f"made-for={name}", "-w", "--output-watch-events", "--no-headers")
    with kubectl.running(*listed) as watch:
        assert watch.line().split()[:3] == ["ADDED", name, "2"]
        kubectl("patch", "gadget", name, "--type=merge", "-p", '{"spec":{"size":3}}')
        assert watch.line().split()[:3] == ["MODIFIED", name, "3"]
        kubectl("delete", "gadget", name)
        assert watch.line().split()[:2] == ["DELETED", name]


def test_discovery(kubectl):
    rows = [line.split() for line in kubectl("api-resources", "--no-headers").splitlines()]
    assert ["gadgets", "gd", "clients.example/v1", "true", "Gadget"] in rows
    assert ["namespaces", "ns", "v1", "false", "Namespace"] in rows
    assert ["leases", "coordination.k8s.io/v1", "true", "Lease"] in rows
    names = kubectl("api-resources", "--api-group=clients.example", "--verbs=deletecollection", "-o", "name")
    assert names == "gadgets.clients.example\n"
    assert {"v1", "clients.example/v1", "transom.dev/v1"} <= set(kubectl("api-versions").split())


def test_explain(kubectl):
    said = kubectl("explain", "gadget")
    assert "Something to hold in one's hand." in said
    assert "spec\t<Object>" in said
    said = kubectl("explain", "gd.spec.size")
    assert "<integer>" in said
    assert "How large it is, in centimetres." in said
    said = kubectl("explain", "gadgets", "--recursive")
    assert "number\t<integer>" in said
    assert 'field "weight" does not exist' in kubectl.refused("explain", "gadget.spec.weight")


def test_events(new_kubectl, name):
    made(new_kubectl, name)
    uid = new_kubectl("get", "gadget", name, "-o", "jsonpath={.metadata.uid}")
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": "acme"},
        "involvedObject": {
            "apiVersion": "clients.example/v1",
            "kind": "Gadget",
            "name": name,
            "namespace": "acme",
            "uid": uid,
        },
        "reason": "Painted",
        "message": "It is red now.",
        "type": "Normal",
        "firstTimestamp": "2026-01-01T00:00:00Z",
        "lastTimestamp": "2026-01-01T00:00:00Z",
        "count": 1,
    }
    new_kubectl("create", "-f", "-", stdin=event)
    said = new_kubectl("events", "--for", f"gadget/{name}", "--no-headers")
    assert said.split()[1:4] == ["Normal", "Painted", f"Gadget/{name}"]
    assert f"gadget/{name}" in new_kubectl("get", "events").lower()
    assert "It is red now." in new_kubectl("describe", "gadget", name)


def test_raw(kubectl):
    assert kubectl("get", "--raw", "/readyz") == "ok"
    assert json.loads(kubectl("get", "--raw", "/version"))["major"] == "1"
