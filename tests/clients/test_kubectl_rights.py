"""kubectl, newest and 1.20, as people who may do some things and not others."""

import pytest

from clients_parts import gadget


@pytest.fixture(params=["viewer", "editor"])
def role(request):
    return request.param


def test_what_a_role_may(hub, kubectl, name, role):
    limited = kubectl.with_key_of(hub.kubeconfig_of(role))
    may_write = role == "editor"
    assert limited("auth", "can-i", "list", "gadgets").strip() == "yes"
    said = limited.run("auth", "can-i", "create", "gadgets.clients.example")
    assert (said.code, said.out.split()[0]) == ((0, "yes") if may_write else (1, "no"))
    for wish in (("delete", "tenants"), ("get", "gadgets", "-n", "elsewhere")):
        said = limited.run("auth", "can-i", *wish)
        assert (said.code, said.out.split()[0]) == (1, "no")
    listed = limited("auth", "can-i", "--list")
    assert "selfsubjectaccessreviews.authorization.k8s.io" in listed
    kubectl("create", "-f", "-", stdin=gadget(name))
    assert limited("get", "gadget", name, "-o", "name")
    patch = ("patch", "gadget", name, "--type=merge", "-p", '{"spec":{"size":2}}')
    if may_write:
        limited(*patch)
    else:
        said = limited.refused(*patch)
        assert "Error from server (Forbidden):" in said
        assert f'"{name}" is forbidden: User "key:viewer-of-acme" cannot patch' in said
    assert "(NotFound)" in limited.refused("get", "gadgets", "-n", "elsewhere")
    assert "(Forbidden)" in limited.refused("get", "gadgets", "-A")


def test_who_one_is(hub, new_kubectl):
    said = new_kubectl.with_key_of(hub.kubeconfig_of("viewer"))("auth", "whoami")
    assert "key:viewer-of-acme" in said
    assert "system:authenticated" in said


def test_a_wrong_key(hub, kubectl):
    assert "You must be logged in to the server" in kubectl.refused("get", "gadgets", "--token=wrong")
