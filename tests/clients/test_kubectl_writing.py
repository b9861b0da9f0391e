"""kubectl, newest and 1.20, writes: what people type, what it prints, and how it ends."""

import pytest
import yaml

from clients_parts import gadget, until


def made(kubectl, name, **spec):
    kubectl("apply", "-f", "-", stdin=gadget(name, {"made-for": name}, **spec))


def got(kubectl, name, path):
    return kubectl("get", "gadget", name, "-o", f"jsonpath={{{path}}}")


def test_create_and_replace(kubectl, name):
    assert (
        kubectl("create", "-f", "-", stdin=gadget(name, size=1)) == f"gadget.clients.example/{name} created\n"
    )
    said = kubectl.refused("create", "-f", "-", stdin=gadget(name, size=2))
    assert "(AlreadyExists)" in said
    assert f'gadgets.clients.example "{name}" already exists' in said
    replaced = kubectl("replace", "-f", "-", stdin=gadget(name, size=2))
    assert replaced == f"gadget.clients.example/{name} replaced\n"
    assert got(kubectl, name, ".spec.size") == "2"
    whole = yaml.safe_load(kubectl("get", "gadget", name, "-o", "yaml"))
    whole["spec"]["size"] = 3
    kubectl("patch", "gadget", name, "--type=merge", "-p", '{"spec":{"size":4}}')
    assert "(Conflict)" in kubectl.refused("replace", "-f", "-", stdin=whole)
    assert "(NotFound)" in kubectl.refused("replace", "-f", "-", stdin=gadget(f"{name}-2", size=2))


def test_names_that_are_made(kubectl, name):
    manifest = gadget("", size=1)
    manifest["metadata"] = {"generateName": "made-"}
    first, second = (kubectl("create", "-f", "-", "-o", "name", stdin=manifest).strip() for _ in range(2))
    assert first != second
    assert first.startswith("gadget.clients.example/made-")


def test_mistakes_are_told_all_at_once(kubectl, name):
    manifest = gadget(name, size=1000, ports=[{"name": "a", "number": 0}])
    said = kubectl.refused("create", "--validate=false", "-f", "-", stdin=manifest)
    assert f'The Gadget "{name}" is invalid:' in said
    assert "spec.size" in said
    assert "spec.ports" in said
    said = kubectl.refused("create", "-f", "-", stdin=gadget(name, weight=3))
    assert "weight" in said


def test_apply_and_diff(kubectl, name):
    manifest = gadget(name, size=1, colour="red")
    apply = ("apply", "-f", "-")
    assert kubectl(*apply, stdin=manifest) == f"gadget.clients.example/{name} created\n"
    assert kubectl(*apply, stdin=manifest) == f"gadget.clients.example/{name} unchanged\n"
    assert kubectl("diff", "-f", "-", stdin=manifest) == ""
    changed = gadget(name, size=2)
    said = kubectl.refused("diff", "-f", "-", stdin=changed, code=1)
    assert "-  size: 1\n+  size: 2" in said
    assert kubectl(*apply, stdin=changed) == f"gadget.clients.example/{name} configured\n"
    # What is applied no more is taken out: the annotation of the last apply says so.
    assert (got(kubectl, name, ".spec.size"), got(kubectl, name, ".spec.colour")) == ("2", "")
    assert kubectl(*apply, "--dry-run=server", stdin=manifest).strip().endswith("configured (server dry run)")
    assert kubectl(*apply, "--dry-run=client", stdin=manifest).strip().endswith("(dry run)")
    assert got(kubectl, name, ".spec.size") == "2"


def test_apply_prunes_what_is_left_out(kubectl, name):
    both = [gadget(f"{name}-{number}", {"made-for": name}) for number in (1, 2)]
    label = ("-l", f"made-for={name}")
    prune = ("apply", *label, "--prune", "-f", "-")
    group = "--prune-allowlist" if kubectl.minor > 20 else "--prune-whitelist"
    kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(both))
    kubectl(*prune, f"{group}=clients.example/v1/Gadget", stdin=both[0])
    assert kubectl("get", "gadgets", *label, "-o", "name") == f"gadget.clients.example/{name}-1\n"


def test_apply_on_the_server(kubectl, name):
    apply = ("apply", "--server-side", "-f", "-")
    manifest = gadget(name, size=1, colour="red")
    assert kubectl(*apply, stdin=manifest) == f"gadget.clients.example/{name} serverside-applied\n"
    # Somebody else declares one field, and agrees; then wants another value.
    other = (*apply, "--field-manager=painter")
    kubectl(*other, stdin=gadget(name, colour="red"))
    said = kubectl.refused(*other, stdin=gadget(name, colour="blue"))
    assert 'conflict with "kubectl": .spec.colour' in said
    assert got(kubectl, name, ".spec.colour") == "red"
    kubectl(*other, "--force-conflicts", stdin=gadget(name, colour="blue"))
    assert got(kubectl, name, ".spec.colour") == "blue"
    # It is the painter's alone now: left out by the first, it stays; left out by the painter, it goes.
    kubectl(*apply, stdin=gadget(name, size=2))
    assert (got(kubectl, name, ".spec.size"), got(kubectl, name, ".spec.colour")) == ("2", "blue")
    kubectl(*other, stdin=gadget(name))
    assert got(kubectl, name, ".spec.colour") == ""
    diff = kubectl.refused("diff", "--server-side", "-f", "-", stdin=gadget(name, size=3), code=1)
    assert "-  size: 2\n+  size: 3" in diff


def test_edit(kubectl, name):
    made(kubectl, name, colour="red")
    editor = {"KUBE_EDITOR": "sed -i 's/colour: red/colour: blue/'"}
    assert kubectl("edit", "gadget", name, **editor) == f"gadget.clients.example/{name} edited\n"
    assert got(kubectl, name, ".spec.colour") == "blue"
    said = kubectl.run("edit", "gadget", name, KUBE_EDITOR="true")
    assert (said.code, "no changes made" in said.out + said.err) == (0, True)


def test_patches(kubectl, name):
    made(kubectl, name, size=1, colour="red")
    patch = ("patch", "gadget", name)
    said = kubectl(*patch, "--type=merge", "-p", '{"spec":{"size":2,"colour":null}}')
    assert said == f"gadget.clients.example/{name} patched\n"
    assert (got(kubectl, name, ".spec.size"), got(kubectl, name, ".spec.colour")) == ("2", "")
    assert "(no change)" in kubectl(*patch, "--type=merge", "-p", '{"spec":{"size":2}}')
    operations = (
        '[{"op":"test","path":"/spec/size","value":2},{"op":"replace","path":"/spec/size","value":3}]'
    )
    kubectl(*patch, "--type=json", "-p", operations)
    assert got(kubectl, name, ".spec.size") == "3"
    kubectl.refused(*patch, "--type=json", "-p", operations)
    assert got(kubectl, name, ".spec.size") == "3"
    said = kubectl.refused(*patch, "-p", '{"spec":{"size":4}}')
    assert "application/merge-patch+json" in said


def test_status_has_a_path_of_its_own(new_kubectl, name):
    made(new_kubectl, name)
    painted = '{"status":{"painted":"red"}}'
    new_kubectl("patch", "gadget", name, "--subresource=status", "--type=merge", "-p", painted)
    assert got(new_kubectl, name, ".status.painted") == "red"
    assert got(new_kubectl, name, ".metadata.generation") == "1"


def test_labels_and_annotations(kubectl, name):
    made(kubectl, name)
    assert kubectl("label", "gadget", name, "room=hall") == f"gadget.clients.example/{name} labeled\n"
    said = kubectl.refused("label", "gadget", name, "room=cellar")
    assert "--overwrite is false" in said
    kubectl("label", "gadget", name, "room=cellar", "--overwrite")
    assert kubectl("get", "gadgets", "-l", f"room=cellar,made-for={name}", "-o", "name").strip()
    kubectl("label", "gadget", name, "room-")
    assert got(kubectl, name, ".metadata.labels.room") == ""
    said = kubectl("annotate", "gadgets", "-l", f"made-for={name}", "note=for you")
    assert said == f"gadget.clients.example/{name} annotated\n"
    assert got(kubectl, name, ".metadata.annotations.note") == "for you"
    assert "spec" not in kubectl.refused("label", "gadget", name, "no good=1")


def test_deletes(kubectl, name):
    for number in range(4):
        kubectl("apply", "-f", "-", stdin=gadget(f"{name}-{number}", {"made-for": name}))
    said = kubectl("delete", "gadget", f"{name}-0", "--dry-run=server")
    assert said.strip().endswith("(server dry run)")
    assert got(kubectl, f"{name}-0", ".metadata.name") == f"{name}-0"
    kubectl("delete", "gadget", f"{name}-0", "--cascade=foreground")
    kubectl("delete", "gadget", f"{name}-1", "--now")
    assert "(NotFound)" in kubectl.refused("delete", "gadget", f"{name}-1")
    assert kubectl("delete", "gadget", f"{name}-1", "--ignore-not-found") == ""
    said = kubectl("delete", "gadgets", "-l", f"made-for={name}")
    assert [line.split()[1] for line in said.splitlines()] == [f'"{name}-{number}"' for number in (2, 3)]
    assert kubectl("get", "gadgets", "-l", f"made-for={name}", "-o", "name") == ""


def test_waiting_for_finalizers(kubectl, name):
    manifest = gadget(name)
    manifest["metadata"]["finalizers"] = ["clients.example/held"]
    kubectl("create", "-f", "-", stdin=manifest)
    with kubectl.running("delete", "gadget", name) as deleting:
        assert deleting.line().startswith(f'gadget.clients.example "{name}" deleted')
        until(lambda: got(kubectl, name, ".metadata.deletionTimestamp"))
        assert deleting.process.poll() is None, "it waits until the finalizer is gone"
        with kubectl.running("wait", f"gadget/{name}", "--for=delete", "--timeout=60s") as waiting:
            kubectl("patch", "gadget", name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
            code = waiting.process.wait(60)
            # Who began to wait when it was gone has nothing to wait for; old ones call that a failure.
            assert code == 0 or kubectl.minor == 20
        assert deleting.process.wait(60) == 0


@pytest.mark.parametrize("cascade", ["background", "foreground", "orphan"])
def test_what_was_made_for_it_goes_too(kubectl, name, cascade):
    made(kubectl, name)
    child = gadget(f"{name}-child")
    owner = {"apiVersion": "clients.example/v1", "kind": "Gadget", "name": name}
    owner |= {"uid": got(kubectl, name, ".metadata.uid"), "blockOwnerDeletion": True}
    child["metadata"]["ownerReferences"] = [owner]
    kubectl("create", "-f", "-", stdin=child)
    kubectl("delete", "gadget", name, f"--cascade={cascade}")
    if cascade == "orphan":
        assert got(kubectl, f"{name}-child", ".metadata.ownerReferences") == ""
    else:
        if cascade == "background":
            until(lambda: kubectl.run("get", "gadget", f"{name}-child").code == 1)
        assert "(NotFound)" in kubectl.refused("get", "gadget", f"{name}-child")


def test_waiting_for_conditions(kubectl, name):
    app = {"app": "shop", "version": "1", "command": ["serve"], "regions": ["eu"]}
    manifest = {"apiVersion": "transom.dev/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": app}
    kubectl("apply", "-f", "-", stdin=manifest)
    said = kubectl("wait", f"deployment/{name}", "--for=condition=Ready", "--timeout=60s")
    assert said == f"deployment.transom.dev/{name} condition met\n"
    assert kubectl("get", "deploy", name, "--no-headers").split()[:5] == [name, "shop", "1", "1/1", "Ready"]
    said = kubectl.refused("wait", f"deployment/{name}", "--for=condition=Broken", "--timeout=1s")
    assert "timed out waiting for the condition" in said
    kubectl("delete", "deployment", name, "--timeout=60s")
    assert "(NotFound)" in kubectl.refused("get", "deployment", name)


def test_waiting_for_a_value(new_kubectl, name):
    made(new_kubectl, name, size=1)
    with new_kubectl.running(
        "wait", f"gadget/{name}", "--for=jsonpath={.spec.size}=2", "--timeout=60s"
    ) as wait:
        new_kubectl("patch", "gadget", name, "--type=merge", "-p", '{"spec":{"size":2}}')
        assert wait.line() == f"gadget.clients.example/{name} condition met"


def test_namespaces_are_tenants(kubectl, name):
    assert kubectl("create", "namespace", name) == f"namespace/{name} created\n"
    assert kubectl("get", "tenant", name, "-o", "name") == f"tenant.transom.dev/{name}\n"
    assert kubectl("get", "ns", name, "--no-headers").split()[:2] == [name, "Active"]
    kubectl("create", "-n", name, "-f", "-", stdin=gadget("lamp"))
    assert kubectl("get", "gadgets", "-n", name, "-o", "name") == "gadget.clients.example/lamp\n"
    kubectl("delete", "gadgets", "--all", "-n", name)
    kubectl("delete", "namespace", name)
    assert "(NotFound)" in kubectl.refused("get", "namespace", name)
