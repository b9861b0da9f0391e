"""The kinds that clients of the Kubernetes API look for: Namespace, Lease, Event."""

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_parts import served
from hub_parts import CLOCK, open_store, put, remove
from transom.catalog.event.kind import EVENT, GROUP_EVENT
from transom.catalog.kinds import shipped
from transom.catalog.lease.kind import LEASE
from transom.catalog.namespace.kind import NAMESPACE
from transom.catalog.tenant.kind import TENANT
from transom.hub import fleeting
from transom.hub.changes import Actor, Change
from transom.hub.fleeting import forget_fleeting
from transom.model.errors import InvalidError, NotFoundError
from transom.model.kinds import Catalog, Fleeting, Kind
from transom.model.names import Key
from transom.model.resources import Metadata, Resource
from transom.runtime.clock import ManualClock

TIME = "2030-01-31T12:00:00.5+02:00"


def lease(name="leader", **spec):
    return Resource("Lease", Metadata(name, "acme"), spec=spec)


def event(name="e", **fields):
    about = {"kind": "Deployment", "name": "shop", "namespace": "acme"}
    return Resource("Event", Metadata(name, "acme"), spec={"involvedObject": about, **fields})


# --- what they hold ------------------------------------------------------------------------------------


def test_a_lease_has_its_times_in_utc_to_the_microsecond():
    held = LEASE.validate(lease(holderIdentity="a", renewTime=TIME, leaseDurationSeconds=15))
    assert held.spec["renewTime"] == "2030-01-31T10:00:00.500000Z"
    assert held.api_version == "coordination.k8s.io/v1"
    with pytest.raises(InvalidError, match=r"spec\.leaseDurationSeconds.*spec\.renewTime"):
        LEASE.validate(lease(leaseDurationSeconds=0, renewTime="soon"))


def test_an_event_has_its_fields_beside_its_metadata():
    with pytest.raises(InvalidError) as caught:
        EVENT.validate(event(count="1", involvedObject={"kind": 1}, firstTimestamp="x"))
    assert {problem.path for problem in caught.value.problems} == {
        "count",
        "involvedObject.kind",
        "firstTimestamp",
    }
    assert EVENT.validate(event(firstTimestamp=TIME)).spec["firstTimestamp"] == "2030-01-31T10:00:00Z"


def test_what_is_said_of_an_object_is_said_in_its_namespace():
    elsewhere = {"involvedObject": {"kind": "Region", "name": "eu"}}
    with pytest.raises(InvalidError, match=r"involvedObject\.namespace: '' is not"):
        EVENT.validate(event(**elsewhere))
    EVENT.validate(Resource("Event", Metadata("e", "default"), spec=elsewhere))
    fields = {"regarding": {"namespace": "other"}, "deprecatedFirstTimestamp": TIME}
    with pytest.raises(InvalidError, match=r"regarding\.namespace"):
        GROUP_EVENT.validate(Resource("Event", Metadata("e", "acme"), spec=fields))


def test_an_event_with_a_time_says_who_says_it():
    with pytest.raises(InvalidError) as caught:
        EVENT.validate(event(eventTime=TIME, reportingComponent="not a name", message="x" * 1025))
    assert {problem.path for problem in caught.value.problems} == {
        "reportingComponent",
        "reportingInstance",
        "action",
        "reason",
        "message",
    }
    with pytest.raises(InvalidError, match="eventTime: is missing"):
        GROUP_EVENT.validate(Resource("Event", Metadata("e", "acme"), spec={"regarding": {}}))


texts = st.text("abc", max_size=3)
metadata = st.builds(
    Metadata,
    name=st.just("acme"),
    uid=texts,
    resource_version=texts,
    labels=st.dictionaries(texts, texts),
    annotations=st.dictionaries(texts, texts),
    finalizers=st.lists(texts),
    deletion_timestamp=st.none() | texts,
)


@given(metadata, st.dictionaries(texts, texts), st.dictionaries(texts, texts))
def test_what_is_shown_as_a_namespace_and_written_back_unchanged_is_the_same_tenant(meta, spec, status):
    held = Resource("Tenant", meta, TENANT.api_version, spec, status)
    shown = NAMESPACE.shown(held)
    assert shown.metadata.labels["kubernetes.io/metadata.name"] == "acme"
    assert NAMESPACE.shown(shown) == shown
    assert NAMESPACE.view.read(shown, held) == held


fields = st.fixed_dictionaries(
    {"involvedObject": st.dictionaries(texts, texts)},
    optional=dict.fromkeys(("message", "source", "firstTimestamp", "count", "reason", "type"), texts),
)


@given(metadata, fields)
def test_what_is_shown_in_the_other_group_and_written_back_unchanged_is_the_same_event(meta, spec):
    held = Resource("Event", meta, EVENT.api_version, spec)
    shown = GROUP_EVENT.shown(held)
    assert not shown.spec.keys() & {"involvedObject", "message", "source", "firstTimestamp", "count"}
    assert GROUP_EVENT.shown(shown) == shown
    assert GROUP_EVENT.view.read(shown, held) == held


def test_a_catalog_has_what_is_stored_and_serves_other_faces_too():
    catalog = shipped()
    assert "Namespace" not in {kind.name for kind in catalog}
    assert {NAMESPACE, EVENT, GROUP_EVENT} <= set(catalog.faces)
    assert catalog.served("", "v1", "namespaces") is NAMESPACE
    assert catalog.served("events.k8s.io", "v1", "events") is GROUP_EVENT
    assert (catalog.named("ns"), catalog.named("events"), catalog["Event"]) == (NAMESPACE, EVENT, EVENT)
    assert catalog.named("events.events.k8s.io") is GROUP_EVENT
    with pytest.raises(NotFoundError):
        catalog["Namespace"]
    with pytest.raises(InvalidError, match="shows 'Tenant', which is not a kind"):
        Catalog([NAMESPACE])
    with pytest.raises(InvalidError, match="reads 'Lease', whose changes wake nobody"):
        Catalog([LEASE, Kind("A", "as", None, owner="a", reads=("Lease",))])


# --- what does not last --------------------------------------------------------------------------------


async def test_writes_of_what_does_not_last_wake_nobody_and_are_soon_forgotten(tmp_path):
    async with open_store(tmp_path) as store:
        before = store.changed.value
        await store.write(put(lease(holderIdentity="a")))
        await store.write(put(lease(holderIdentity="b")))
        await store.write(remove(Key("Lease", "acme", "leader")))
        assert await store.outbox(before, 10) == []
        assert await store.history_of(Key("Lease", "acme", "leader")) == []
        assert [told.event for told in await store.events(before, 10)] == ["ADDED", "MODIFIED", "DELETED"]
        await store.prune_history("9", "0")
        assert {told.resource.kind for told in await store.events(store.changed.value, 10)} == set()
        await store.write(put(lease()))
        assert (await store.get(Key("Lease", "acme", "leader"))).metadata.generation == 1


@pytest.fixture
def few(monkeypatch):
    """A tenant has three events at most."""
    bounded = replace(EVENT, fleeting=Fleeting(3, 3600.0))
    kinds = Catalog([bounded if kind is EVENT else kind for kind in shipped().faces])
    monkeypatch.setattr("hub_parts.shipped", lambda: kinds)


async def names_of(store):
    return [found.metadata.name for found in (await store.page("Event")).items]


async def test_a_tenant_has_so_many_events_and_the_oldest_go(tmp_path, few):
    async with open_store(tmp_path) as store:
        for name in "abc":
            await store.write(put(event(name)))
        await store.write(put(event("a", reason="Again")))
        since = store.changed.value
        await store.write(put(event("d")))
        assert await names_of(store) == ["a", "c", "d"]
        told = [(told.event, told.resource.metadata.name) for told in await store.events(since, 10)]
        assert told == [("DELETED", "b"), ("ADDED", "d")]
        # All of one transaction, some of them gone in it again.
        outcomes = await store.write_all(
            [remove(Key("Event", "acme", "c")), *(put(event(name)) for name in "efgh")]
        )
        assert all(outcome is None or isinstance(outcome, Resource) for outcome in outcomes)
        assert await names_of(store) == ["f", "g", "h"]
        await store.write(put(event("i")))
        assert await names_of(store) == ["g", "h", "i"]


async def test_what_was_not_written_for_an_hour_goes(tmp_path):
    async with open_store(tmp_path) as store:
        clock = ManualClock(CLOCK.wall())
        await store.write_all([put(event("old")), put(event("again")), put(lease())])
        assert await forget_fleeting(store, clock) == 0
        store._clock = clock
        clock.advance(EVENT.fleeting.keep_seconds + 60)
        assert await forget_fleeting(store, clock) == 2
        assert await names_of(store) == []
        assert len((await store.page("Lease")).items) == 1


async def test_what_is_written_while_it_is_looked_at_stays(tmp_path, monkeypatch):
    async with open_store(tmp_path) as store:
        clock = ManualClock(CLOCK.wall() + EVENT.fleeting.keep_seconds + 60)
        await store.write(put(event("e")))
        seen = fleeting._going((await store.get(Key("Event", "acme", "e"))).metadata.resource_version)
        await store.write(put(event("e", reason="Again")))
        await store.write(Change(Key("Event", "acme", "e"), seen, Actor("api", "hub")))
        assert await names_of(store) == ["e"]
        assert await forget_fleeting(store, clock) == 1


async def test_it_goes_with_its_tenant_and_keeps_nobody_from_deleting_that(tmp_path):
    async with open_store(tmp_path) as store:
        held = Resource("Tenant", Metadata("beta", finalizers=["acme.example/wait"]))
        await store.write(put(held))
        made = [put(lease()), put(lease().with_metadata(namespace="beta")), put(event())]
        assert all(isinstance(outcome, Resource) for outcome in await store.write_all(made))
        await store.write(remove(Key("Tenant", "", "acme")))
        assert [found.metadata.namespace for found in (await store.page("Lease")).items] == ["beta"]
        assert await names_of(store) == []
        going = await store.write(remove(Key("Tenant", "", "beta")))
        assert going.deleting
        assert len((await store.page("Lease")).items) == 1
        with pytest.raises(InvalidError, match="is being deleted"):
            await store.write(put(lease("another").with_metadata(namespace="beta")))
        with pytest.raises(InvalidError, match="does not exist"):
            await store.write(put(lease().with_metadata(namespace="nobody")))


# --- as clients see them -------------------------------------------------------------------------------

NAMESPACES = "/api/v1/namespaces"


async def test_a_namespace_is_a_tenant(tmp_path):
    async with served(tmp_path) as api:
        manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "beta"}}
        made = await api.ask("POST", NAMESPACES, manifest)
        assert (made.code, made.body["kind"], made.body["status"]) == (201, "Namespace", {"phase": "Active"})
        assert made.body["metadata"]["labels"] == {"kubernetes.io/metadata.name": "beta"}
        assert (await api.ask("POST", NAMESPACES, manifest)).code == 409
        tenant = (await api.ask("GET", "/apis/transom.dev/v1/tenants/beta")).body
        assert (tenant["kind"], "labels" in tenant["metadata"]) == ("Tenant", False)
        titled = {**tenant, "spec": {"title": "Beta"}}
        assert (await api.ask("PUT", "/apis/transom.dev/v1/tenants/beta", titled)).code == 200
        patched = await api.ask(
            "PATCH",
            f"{NAMESPACES}/beta",
            {"metadata": {"labels": {"team": "web"}}},
            media="application/merge-patch+json",
        )
        assert (patched.code, patched.body["kind"]) == (200, "Namespace")
        tenant = (await api.ask("GET", "/apis/transom.dev/v1/tenants/beta")).body
        assert (tenant["metadata"]["labels"], tenant["spec"]["title"]) == ({"team": "web"}, "Beta")
        listed = await api.ask("GET", f"{NAMESPACES}?labelSelector=kubernetes.io/metadata.name=beta")
        assert [item["metadata"]["name"] for item in listed.body["items"]] == ["beta"]
        assert listed.body["kind"] == "NamespaceList"
        assert (await api.ask("DELETE", f"{NAMESPACES}/beta")).code == 200
        assert (await api.ask("GET", f"{NAMESPACES}/beta")).code == 404


async def test_a_watch_of_namespaces_tells_of_tenants(tmp_path):
    async with served(tmp_path) as api:
        since = await api.revision()
        await api.ask("DELETE", f"{NAMESPACES}/acme")
        watched = await api.ask("GET", f"{NAMESPACES}?watch=true&resourceVersion={since}&timeoutSeconds=1")
        (line,) = watched.body.splitlines() if isinstance(watched.body, bytes) else [watched.body]
        told = msgspec.json.decode(line) if isinstance(line, bytes) else line
        assert (told["type"], told["object"]["kind"]) == ("DELETED", "Namespace")


async def test_typed_clients_leave_it_to_the_path_what_they_send(tmp_path):
    leases = "/apis/coordination.k8s.io/v1/namespaces/acme/leases"
    body = {"metadata": {"name": "leader"}, "spec": {"holderIdentity": "a"}}
    async with served(tmp_path) as api:
        made = await api.ask("POST", leases, body)
        assert (made.code, made.body["kind"]) == (201, "Lease")
        assert (await api.ask("POST", leases, {**body, "kind": "Event"})).code == 422
        for custom in ({"kind": "Tenant"}, {"apiVersion": "transom.dev/v1"}):
            sent = {**custom, "metadata": {"name": "beta"}}
            assert (await api.ask("POST", "/apis/transom.dev/v1/tenants", sent)).code == 422
