"""The kinds around contexts, and the contexts made of them (`catalog/*/kind.py`, `catalog/*/context.py`)."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from hub_parts import merge_patching, open_store, put, remove
from transom.catalog.api_key.context import ApiKeyContext
from transom.catalog.contexts import CONTEXTS, shipped_contexts
from transom.catalog.deployment.context import RouteContext
from transom.catalog.kafka_cluster.context import ClusterContext
from transom.catalog.kinds import shipped
from transom.catalog.tenant.context import TenantContext
from transom.hub.changes import Actor, Change, applying, evaluate
from transom.model.contexts import EVERYWHERE, ContextKind, ContextKinds, takes_rights
from transom.model.errors import InvalidError
from transom.model.kinds import PEOPLE
from transom.model.names import Key
from transom.model.resources import JsonObject, Metadata, Resource, from_json, to_json

KINDS = shipped()
HASH = "ab" * 32
SPECS: dict[str, JsonObject] = {
    "Tenant": {},
    "ApiKey": {"hash": HASH},
    "KafkaCluster": {"bootstrapServers": ["one:9092", "[::1]:9093"]},
    "Deployment": {"app": "web", "version": "1", "command": ["./web"], "regions": ["eu", "us"]},
    "ContextFreeze": {},
    "ContextOverride": {"upTo": 5, "until": "2030-01-31T12:00:00Z"},
}
NAMES = {"Tenant": "acme", "ContextFreeze": "eu", "ContextOverride": "share.api-key.acme"}


def declared(kind: str, **spec: Any) -> Resource:
    """A resource as the store holds it."""
    held = KINDS[kind]
    meta = Metadata(NAMES.get(kind, "shop"), "acme" if held.namespaced else "", uid=f"uid-{kind}")
    return held.validate(Resource(kind, meta, spec={**SPECS[kind], **spec}))


def subject_of(context: ContextKind[Any], **spec: Any) -> Resource:
    return declared(context.subject, **spec)


def paths(caught: pytest.ExceptionInfo[InvalidError]) -> list[str]:
    return sorted(problem.path for problem in caught.value.problems)


# --- the kinds -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SPECS)
def test_what_is_left_out_is_written_out_once(kind: str) -> None:
    held = declared(kind)
    assert KINDS[kind].validate(held) == held
    assert from_json(to_json(held)) == held


@pytest.mark.parametrize(
    ("kind", "change", "path"),
    [
        ("Tenant", {"regions": []}, "spec.regions"),
        ("Tenant", {"regions": ["eu", "eu"]}, "spec.regions"),
        ("Tenant", {"regions": ["eu", ""]}, "spec.regions[1]"),
        ("Tenant", {"suspended": "no"}, "spec.suspended"),
        ("Tenant", {"suspended": None}, "spec.suspended"),
        ("Tenant", {"maxStaleSeconds": 0}, "spec.maxStaleSeconds"),
        ("Tenant", {"requestsPerSecond": -1}, "spec.requestsPerSecond"),
        ("Tenant", {"requestsPerSecond": True}, "spec.requestsPerSecond"),
        ("ApiKey", {"hash": ""}, "spec.hash"),
        ("ApiKey", {"hash": HASH.upper()}, "spec.hash"),
        ("ApiKey", {"hash": HASH + "\n"}, "spec.hash"),
        ("ApiKey", {"hash": HASH[1:]}, "spec.hash"),
        ("ApiKey", {"scopes": []}, "spec.scopes"),
        ("ApiKey", {"scopes": ["*", "*"]}, "spec.scopes"),
        ("ApiKey", {"scopes": ["*", ""]}, "spec.scopes[1]"),
        ("ApiKey", {"scopes": ["app:shop", "shop"]}, "spec.scopes[1]"),
        ("ApiKey", {"scopes": [f"app:a{number}" for number in range(65)]}, "spec.scopes"),
        ("ApiKey", {"virtualCluster": ""}, "spec.virtualCluster"),
        ("ApiKey", {"expiresAt": ""}, "spec.expiresAt"),
        ("ApiKey", {"expiresAt": "2030-01-31"}, "spec.expiresAt"),
        ("ApiKey", {"expiresAt": 1_896_091_200}, "spec.expiresAt"),
        ("ApiKey", {"revoked": None}, "spec.revoked"),
        ("ApiKey", {"key": "tsm_"}, "spec.key"),
        ("ApiKey", {"requestsPerSecond": 0}, "spec.requestsPerSecond"),
        ("KafkaCluster", {"bootstrapServers": []}, "spec.bootstrapServers"),
        ("KafkaCluster", {"bootstrapServers": ["a:1", "a:1"]}, "spec.bootstrapServers"),
        ("KafkaCluster", {"security": "none"}, "spec.security"),
        ("KafkaCluster", {"regions": []}, "spec.regions"),
        ("ContextOverride", {"upTo": 0}, "spec.upTo"),
        ("ContextOverride", {"until": ""}, "spec.until"),
        ("ContextOverride", {"until": None}, "spec.until"),
    ],
)
def test_what_they_may_not_say(kind: str, change: JsonObject, path: str) -> None:
    with pytest.raises(InvalidError) as caught:
        declared(kind, **change)
    assert paths(caught) == [path]


@pytest.mark.parametrize(
    "server",
    [
        "",
        "kafka",
        "kafka:",
        ":9092",
        "kafka:0",
        "kafka:65536",
        "kafka:x",
        "a b:1",
        "user@kafka:1",
        "kafka:1/x",
        "::1:9092",
        "kafka:1\n",
        "kafka:1,other:2",
        "http://kafka:1",
        "kafka:-1",
        "[::1:1",
        "kafka:1?x",
        "ка:1",
    ],
)
def test_where_no_cluster_can_be(server: str) -> None:
    with pytest.raises(InvalidError, match="bootstrapServers"):
        declared("KafkaCluster", bootstrapServers=["one:9092", server])


def test_defaults_are_the_safe_ones() -> None:
    assert declared("KafkaCluster").spec["security"] == "tls"
    assert declared("ApiKey").spec == {"hash": HASH, "scopes": ["*"], "revoked": False}
    assert declared("Tenant").spec == {"title": "", "suspended": False}


def test_regions_that_are_named_must_exist() -> None:
    named = [
        declared("Tenant", regions=["eu", "us"]),
        declared("KafkaCluster", regions=["eu", "us"]),
        declared("ContextFreeze"),
        declared("Tenant"),
    ]
    asked = [[str(key) for key in KINDS[each.kind].references(each)] for each in named]
    assert asked == [["Region//eu", "Region//us"], ["Region//eu", "Region//us"], ["Region//eu"], []]


async def test_a_tenant_is_suspended_also_when_one_of_its_regions_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def acme(**spec: Any) -> Change:
        return put(declared("Tenant", **spec).with_metadata(uid=""))

    async with open_store(tmp_path) as store:
        await store.write(acme(regions=["eu", "us"]))
        with monkeypatch.context() as patched:  # what is in a store may be older than the rule against it
            patched.setattr("transom.hub.store_users._naming", lambda *_: set())
            await store.write(remove(Key("Region", "", "us")))
        held = await store.write(acme(regions=["eu", "us"], suspended=True))
        assert held is not None
        assert held.spec["suspended"] is True
        with pytest.raises(InvalidError, match="Region 'sa' does not exist"):
            await store.write(acme(regions=["eu", "us", "sa"]))
        await store.write(acme(regions=["eu"]))
        with pytest.raises(InvalidError, match="Region 'us' does not exist"):
            await store.write(acme(regions=["eu", "us"]))


# --- what may not be changed ---------------------------------------------------------------------------


def rewritten(held: Resource, **spec: Any) -> Resource | None:
    wanted = msgspec.structs.replace(held, spec={**held.spec, **spec})
    change = Change(held.key, applying(wanted), Actor(PEOPLE, "ada"))
    return evaluate(KINDS[held.kind], held, change, "uid", "now")


def test_a_key_cannot_become_another() -> None:
    with pytest.raises(InvalidError, match="make another key and revoke this one") as caught:
        rewritten(declared("ApiKey"), hash="cd" * 32)
    assert paths(caught) == ["spec.hash"]


def test_what_is_revoked_stays_revoked() -> None:
    held = rewritten(declared("ApiKey"), revoked=True)
    assert held is not None
    assert held.spec["revoked"] is True
    narrowed = rewritten(held, scopes=["app:shop"])
    assert narrowed is not None
    assert narrowed.spec["revoked"] is True
    with pytest.raises(InvalidError, match="stays revoked") as caught:
        rewritten(held, revoked=False)
    assert paths(caught) == ["spec.revoked"]
    # A patch that removes the field, and a manifest that never had it, would both set it back.
    removing = merge_patching(held.key, {"spec": {"revoked": None}})
    with pytest.raises(InvalidError, match="stays revoked"):
        evaluate(KINDS["ApiKey"], held, Change(held.key, removing, Actor(PEOPLE, "ada")), "uid", "now")
    with pytest.raises(InvalidError) as caught:
        rewritten(held, revoked=False, hash="cd" * 32)
    assert paths(caught) == ["spec.hash", "spec.revoked"]


# --- the contexts --------------------------------------------------------------------------------------

BY_NAME = {context.name: context for context in CONTEXTS}
RICH: dict[str, JsonObject] = {
    "tenant": {"suspended": True, "regions": ["eu"], "maxStaleSeconds": 60, "requestsPerSecond": 5},
    "api_key": {
        "scopes": ["app:shop", "app:till:read"],
        "virtualCluster": "vc-1",
        "expiresAt": "2030-01-31T12:00:00Z",
        "requestsPerSecond": 2.5,
    },
    "route": {},
    "cluster": {"security": "plaintext", "regions": ["us"], "title": "for people"},
}


@pytest.mark.parametrize("name", BY_NAME)
def test_subjects_are_kinds_that_ship(name: str) -> None:
    context = BY_NAME[name]
    assert KINDS[context.subject].owner == PEOPLE
    assert shipped_contexts()[name].name == name
    assert shipped_contexts().of_key(context.key_of(subject_of(context))) is not None


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("rich", [False, True])
def test_a_value_is_read_back_as_it_was_built(name: str, *, rich: bool) -> None:
    context = BY_NAME[name]
    value = context.build(subject_of(context, **(RICH[name] if rich else {})), declared("Tenant"))
    data = context.encode(value)
    assert context.decode(data) == value
    told = msgspec.json.decode(data)
    assert context.decode(to_json({**told, "from": "a later release"})) == value


def test_what_takes_rights_away_says_so_where_every_release_can_read_it() -> None:
    context = BY_NAME["api_key"]
    for revoked, suspended in ((False, False), (True, False), (False, True), (True, True)):
        key = subject_of(context, **{**RICH["api_key"], "revoked": revoked})
        value = context.build(key, declared("Tenant", suspended=suspended))
        data = context.encode(value)
        assert takes_rights(data) == (revoked or suspended)
        assert context.decode(data) == value
    assert not takes_rights(b'{"a":{"~restricts":true}}')


class Bare(msgspec.Struct):
    pass


class Listed(msgspec.Struct, array_like=True):
    name: str


class Closed(msgspec.Struct, forbid_unknown_fields=True):
    name: str


class Plain(ContextKind[Any]):
    name, subject, value = "plain", "Tenant", Bare

    def build(self, subject: Resource, tenant: Resource | None) -> Any:
        return Bare()

    def restricts(self, value: Any) -> bool:
        return True


def test_a_value_must_take_further_fields() -> None:
    data = next(iter(ContextKinds([Plain()]))).encode(Bare())
    assert takes_rights(data)
    assert msgspec.json.decode(data) == {"~restricts": True}
    for value in (Listed, Closed):
        kind = type("Other", (Plain,), {"value": value})()
        with pytest.raises(InvalidError, match="takes no further fields"):
            ContextKinds([kind])


def test_the_values() -> None:
    acme = declared("Tenant", maxStaleSeconds=60, requestsPerSecond=5)
    told = {
        name: msgspec.json.decode(context.encode(context.build(subject_of(context, **RICH[name]), acme)))
        for name, context in BY_NAME.items()
    }
    assert told == {
        "tenant": {
            "name": "acme",
            "suspended": True,
            "maxStaleSeconds": 60.0,
            "requestsPerSecond": 5.0,
            "~restricts": True,
        },
        "api_key": {
            "name": "shop",
            "tenant": "acme",
            "scopes": ["app:shop", "app:till:read"],
            "expiresAt": 1_896_091_200.0,
            "revoked": False,
            "suspended": False,
            "virtualCluster": "vc-1",
            "requestsPerSecond": 2.5,
            "tenantRequestsPerSecond": 5.0,
            "maxStaleSeconds": 60.0,
        },
        "route": {"tenant": "acme", "app": "shop"},
        "cluster": {
            "id": "uid-KafkaCluster",
            "name": "shop",
            "tenant": "acme",
            "bootstrapServers": ["one:9092", "[::1]:9093"],
            "security": "plaintext",
            "suspended": False,
        },
    }
    plain = ApiKeyContext()
    assert msgspec.json.decode(plain.encode(plain.build(declared("ApiKey"), declared("Tenant")))) == {
        "name": "shop",
        "tenant": "acme",
        "scopes": ["*"],
        "expiresAt": None,
        "revoked": False,
        "suspended": False,
    }


def test_the_keys() -> None:
    keys = {name: context.key_of(subject_of(context)) for name, context in BY_NAME.items()}
    assert keys == {
        "tenant": "tenant/acme",
        "api_key": f"api_key/{HASH}",
        "route": "route/acme/shop",
        "cluster": "cluster/acme/shop",
    }


def test_the_regions() -> None:
    def regions(context: ContextKind[Any], tenant: JsonObject, **spec: Any) -> frozenset[str]:
        acme = declared("Tenant", **tenant)
        return context.regions(acme if context.subject == "Tenant" else subject_of(context, **spec), acme)

    for context in (TenantContext(), ApiKeyContext(), ClusterContext()):
        assert regions(context, {}) == EVERYWHERE
        assert regions(context, {"regions": ["eu", "us"]}) == {"eu", "us"}
    assert regions(ClusterContext(), {"regions": ["eu"]}, regions=["us"]) == {"us"}
    for tenant in ({}, {"regions": ["ap"]}):
        assert regions(RouteContext(), tenant) == {"eu", "us"}


@pytest.mark.parametrize("revoked", [False, True])
@pytest.mark.parametrize("suspended", [False, True])
def test_a_key_is_restricted_by_its_own_revocation_and_by_its_tenants_suspension(
    *, revoked: bool, suspended: bool
) -> None:
    acme = declared("Tenant", suspended=suspended)
    key = ApiKeyContext().build(declared("ApiKey", revoked=revoked), acme)
    assert (key.revoked, key.suspended) == (revoked, suspended)
    assert ApiKeyContext().restricts(key) == (revoked or suspended)
    assert TenantContext().restricts(TenantContext().build(acme, None)) == suspended
    assert ClusterContext().restricts(ClusterContext().build(declared("KafkaCluster"), acme)) == suspended
    assert not RouteContext().restricts(RouteContext().build(declared("Deployment"), acme))


def test_a_key_whose_deletion_waits_for_somebody_is_revoked_already() -> None:
    going = declared("ApiKey").with_metadata(deletion_timestamp="2026-01-01T00:00:00Z")
    assert ApiKeyContext().build(going, declared("Tenant")).revoked


# --- blank never means anything ------------------------------------------------------------------------


def test_nothing_is_built_for_a_tenant_that_is_not_known() -> None:
    other = declared("Tenant").with_metadata(name="globex")
    for context in (ApiKeyContext(), ClusterContext()):
        for tenant in (None, other):
            with pytest.raises(InvalidError, match="tenant 'acme' is not known"):
                context.build(subject_of(context), tenant)


def spoilt_specs(spec: JsonObject) -> list[JsonObject]:
    """A spec with each field lost, null, or empty: what a bad release or a bad disk may leave of it."""
    blank: JsonObject = {}
    found = [blank]
    for field in spec:
        found.append({name: value for name, value in spec.items() if name != field})
        found += [{**spec, field: value} for value in (None, "", [], {}, 0)]
    return found


@pytest.mark.parametrize("name", BY_NAME)
def test_of_a_spec_that_is_not_fit_nothing_is_built(name: str) -> None:
    context, acme = BY_NAME[name], declared("Tenant")
    good = subject_of(context, **RICH[name])
    refused = 0
    for spec in spoilt_specs(good.spec):
        spoilt = msgspec.structs.replace(good, spec=spec)
        try:
            KINDS[good.kind].validate(spoilt)
        except InvalidError:
            refused += 1
            with pytest.raises(InvalidError):
                context.build(spoilt, acme)
        else:
            context.encode(context.build(spoilt, acme))
            assert context.key_of(spoilt) == context.key_of(good)
            assert context.regions(spoilt, acme)
    assert refused > len(good.spec)


@pytest.mark.parametrize("name", BY_NAME)
def test_a_tenant_that_names_an_empty_list_of_regions_moves_nothing(name: str) -> None:
    context = BY_NAME[name]
    emptied = msgspec.structs.replace(declared("Tenant"), spec={"title": "", "regions": []})
    subject = emptied if name == "tenant" else subject_of(context)
    if name == "route":
        assert context.regions(subject, emptied) == {"eu", "us"}
        return
    with pytest.raises(InvalidError, match="names no region"):
        context.build(subject, emptied)


@pytest.mark.parametrize("name", BY_NAME)
def test_a_value_that_lost_a_field_or_holds_a_blank_is_refused(name: str) -> None:
    context = BY_NAME[name]
    rich = subject_of(context, **RICH[name])
    told: JsonObject = msgspec.json.decode(context.encode(context.build(rich, declared("Tenant"))))
    told.pop("~restricts", None)
    required = set(context.value.__struct_encode_fields__[: -len(context.value.__struct_defaults__) or None])
    assert {"tenant": 2, "api_key": 6, "route": 2, "cluster": 6}[name] == len(required)
    for field in required:
        with pytest.raises(InvalidError):
            context.decode(to_json({word: value for word, value in told.items() if word != field}))
    for field, value in told.items():
        for blank in ("", [], {}, [""]):
            with pytest.raises(InvalidError):
                context.decode(to_json({**told, field: blank}))
        if isinstance(value, bool) or field in ("name", "tenant", "scopes", "app", "id", "bootstrapServers"):
            with pytest.raises(InvalidError):
                context.decode(to_json({**told, field: None}))
    for field in {"requestsPerSecond", "tenantRequestsPerSecond", "maxStaleSeconds"} & set(told):
        with pytest.raises(InvalidError):
            context.decode(to_json({**told, field: 0}))


# --- those of others -----------------------------------------------------------------------------------


def test_the_kinds_of_a_module_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    class Quota(TenantContext):
        name = "quota"

    module = ModuleType("quotas")
    module.CONTEXTS = [Quota()]
    monkeypatch.setitem(sys.modules, "quotas", module)
    assert [kind.name for kind in shipped_contexts(["quotas"])] == [*BY_NAME, "quota"]
    module.CONTEXTS = [Quota(), TenantContext()]
    with pytest.raises(InvalidError, match="tenant: stands twice"):
        shipped_contexts(["quotas"])
    with pytest.raises(InvalidError, match="no_such_module"):
        shipped_contexts(["no_such_module"])
