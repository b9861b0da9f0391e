"""The decision about one caller and one wish: roles, rules, bindings, and what nobody may give."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from access_parts import ADA, binding, caller
from transom.catalog.kinds import shipped
from transom.hub.access.callers import OPERATORS
from transom.hub.access.rights import Decision, Rights, Subject
from transom.hub.access.rules import EVERYTHING, Asked, Rule, allowed, uncovered
from transom.model.names import Key

ALLOWED, FORBIDDEN, HIDDEN = Decision.ALLOWED, Decision.FORBIDDEN, Decision.HIDDEN
GROUP = "transom.dev"


def rights(*bindings):
    made = Rights(shipped())
    for each in bindings:
        made.put(each)
    return made


def asked(verb, plural="deployments", tenant="acme", name="", subresource=""):
    return Asked(verb, GROUP, plural, subresource, tenant, name)


def test_nothing_is_allowed_without_a_binding():
    assert rights().decide(caller(), asked("get")) is HIDDEN
    assert rights().decide(caller(), asked("list", "regions", "")) is FORBIDDEN


def test_the_administrators_group_may_do_everything():
    admin = caller("administrator", OPERATORS)
    assert rights().decide(admin, Asked("anything", "any.group", "things", "part", "acme", "x")) is ALLOWED
    assert rights().decide(admin, Asked("post", path="/hub/contexts/restore")) is ALLOWED


ROLES = [
    # verb, plural, viewer, editor, owner
    ("get", "deployments", True, True, True),
    ("watch", "instances", True, True, True),
    ("create", "deployments", False, True, True),
    ("deletecollection", "deployments", False, True, True),
    ("create", "instances", False, False, False),
    ("get", "apikeys", False, True, True),
    ("create", "apikeys", False, True, True),
    ("get", "rolebindings", False, False, True),
    ("create", "rolebindings", False, False, True),
    ("get", "tenants", True, True, True),
    ("update", "tenants", False, False, False),
    ("delete", "tenants", False, False, False),
    ("get", "regions", False, False, False),
    ("get", "hubkeys", False, False, False),
]


@pytest.mark.parametrize(("verb", "plural", "viewer", "editor", "owner"), ROLES)
def test_roles_hold_in_their_tenant_alone(verb, plural, viewer, editor, owner):
    for role, may in (("viewer", viewer), ("editor", editor), ("owner", owner)):
        held = rights(binding("b", "acme", ADA, role=role))
        assert held.decide(caller(), asked(verb, plural)) is (ALLOWED if may else FORBIDDEN), role
        assert held.decide(caller(), asked(verb, plural, "other")) is HIDDEN
        assert held.decide(caller(), asked(verb, plural, "")) is FORBIDDEN
        assert held.decide(caller("oidc:eve"), asked(verb, plural)) is HIDDEN


def test_a_role_in_the_hub_holds_in_every_tenant():
    held = rights(binding("b", "", ADA, role="viewer"))
    assert held.decide(caller(), asked("list", tenant="")) is ALLOWED
    assert held.decide(caller(), asked("list", tenant="other")) is ALLOWED
    assert held.decide(caller(), asked("create", tenant="other")) is FORBIDDEN, "it may know of every tenant"


def test_groups_and_keys_are_subjects():
    held = rights(
        binding("g", "acme", "group:oidc:devs", role="viewer"), binding("k", "acme", "key:ci", role="editor")
    )
    assert held.decide(caller(ADA, "oidc:devs"), asked("get")) is ALLOWED
    assert held.decide(caller("oidc:devs"), asked("get")) is HIDDEN, "a user is no group"
    assert held.decide(caller("key:ci"), asked("create")) is ALLOWED
    assert held.decide(caller("ci"), asked("create")) is HIDDEN


def test_rules_name_verbs_kinds_names_and_subresources():
    rule = {"verbs": ["get"], "apiGroups": [GROUP], "resources": ["deployments"], "resourceNames": ["shop"]}
    held = rights(binding("b", "acme", ADA, rules=[rule]))
    assert held.decide(caller(), asked("get", name="shop")) is ALLOWED
    assert held.decide(caller(), asked("get", name="blog")) is FORBIDDEN
    assert held.decide(caller(), asked("list")) is FORBIDDEN
    assert held.decide(caller(), asked("get", name="shop", subresource="history")) is FORBIDDEN


def test_a_binding_that_is_gone_or_replaced_gives_nothing():
    held = rights(binding("b", "acme", ADA, role="owner"))
    held.put(binding("b", "acme", ADA, role="viewer"))
    assert held.decide(caller(), asked("create")) is FORBIDDEN
    held.drop(Key("RoleBinding", "acme", "b"))
    held.drop(Key("RoleBinding", "acme", "b"))
    assert held.decide(caller(), asked("get")) is HIDDEN
    assert Subject("User", ADA) not in held._bound, "nothing is kept of who is bound no more"


def test_a_role_of_a_later_release_gives_nothing():
    assert rights(binding("b", "acme", ADA, role="steward")).decide(caller(), asked("get")) is FORBIDDEN


def test_who_has_a_role_may_give_it_and_less_but_no_more():
    held = rights(binding("b", "acme", ADA, role="owner"))
    for role in ("viewer", "editor", "owner"):
        assert not held.lacking(caller(), "acme", held.rules_of({"role": role}))
    assert held.lacking(caller(), "acme", EVERYTHING)
    assert held.lacking(caller(), "other", held.rules_of({"role": "viewer"}))
    editor = rights(binding("b", "acme", ADA, role="editor"))
    assert editor.lacking(caller(), "acme", editor.rules_of({"role": "owner"}))


# --- properties of rules ---

words = st.lists(st.sampled_from(("*", "a", "b", "c")), min_size=1, max_size=3).map(tuple)
resources = st.lists(st.sampled_from(("*", "a", "b", "a/x", "b/x", "*/x")), min_size=1, max_size=3).map(tuple)
names = st.lists(st.sampled_from(("m", "n")), max_size=2).map(tuple)
some_rules = st.lists(st.builds(Rule, words, words, resources, names), max_size=4).map(tuple)
wishes = st.builds(
    Asked,
    st.sampled_from("abc"),
    st.sampled_from("abc"),
    st.sampled_from("ab"),
    st.sampled_from(("", "x")),
    st.just("acme"),
    st.sampled_from(("", "m", "n")),
)


@given(some_rules, some_rules, wishes)
def test_what_may_be_given_allows_nothing_more(held, wanted, wish):
    if not uncovered(held, wanted) and allowed(wanted, wish):
        assert allowed(held, wish)


@given(some_rules)
def test_everybody_may_give_what_they_have(held):
    assert not uncovered(held, held)


@given(some_rules)
def test_operators_may_give_everything(wanted):
    assert not uncovered(EVERYTHING, wanted)
