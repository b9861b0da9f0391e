"""The Python `kubernetes` client: dynamic, watching across a restart of the hub, electing a leader."""

import subprocess
import sys
import textwrap
import threading

import pytest
from kubernetes import config, dynamic, watch
from kubernetes.client import CoordinationV1Api, CoreV1Api
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic.exceptions import ConflictError, NotFoundError
from urllib3.exceptions import HTTPError

from clients_parts import gadget, until


@pytest.fixture
def client(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where it keeps what it has discovered
    made = config.new_client_from_config(str(hub.kubeconfig))
    yield made
    made.rest_client.pool_manager.clear()
    made.close()


@pytest.fixture
def gadgets(client, tmp_path):
    api = dynamic.DynamicClient(client, cache_file=str(tmp_path / "discovered"))
    return api.resources.get(api_version="clients.example/v1", kind="Gadget")


def test_dynamic(gadgets, name):
    made = gadgets.create(body=gadget(name, size=1), namespace="acme")
    assert made.metadata.generation == 1
    gadgets.patch(
        name=name,
        namespace="acme",
        body={"spec": {"size": 2}},
        content_type="application/merge-patch+json",
    )
    held = gadgets.get(name=name, namespace="acme")
    assert held.spec.size == 2
    with pytest.raises(ConflictError):
        gadgets.replace(body=made.to_dict(), namespace="acme")
    painted = {"status": {"painted": "red"}}
    content = "application/merge-patch+json"
    gadgets.status.patch(name=name, namespace="acme", body=painted, content_type=content)
    assert gadgets.get(name=name, namespace="acme").status.painted == "red"
    listed = gadgets.get(namespace="acme", field_selector=f"metadata.name={name}")
    assert [each.metadata.name for each in listed.items] == [name]
    gadgets.delete(name=name, namespace="acme")
    with pytest.raises(NotFoundError):
        gadgets.get(name=name, namespace="acme")


def test_applying_on_the_server(gadgets, name):
    def apply(manager, **spec):
        return gadgets.server_side_apply(
            body=gadget(name, **spec), namespace="acme", name=name, field_manager=manager
        )

    assert apply("one", size=1, colour="red").spec.colour == "red"
    with pytest.raises(ConflictError) as refused:
        apply("two", colour="blue")
    assert 'conflict with \\"one\\"' in str(refused.value.body)
    assert apply("one", size=1).spec.colour == ""


def test_watching_from_a_revision(gadgets, name):
    listed = gadgets.get(namespace="acme")
    gadgets.create(body=gadget(name, size=1), namespace="acme")
    gadgets.delete(name=name, namespace="acme")
    events = gadgets.watch(namespace="acme", resource_version=listed.metadata.resourceVersion, timeout=30)
    seen = [(event["type"], event["object"].metadata.name) for _, event in zip("12", events, strict=False)]
    assert seen == [("ADDED", name), ("DELETED", name)]


class Cache(threading.Thread):
    """What an informer does: list, then watch from there, again and again; what it knows is `held`."""

    def __init__(self, gadgets):
        super().__init__(daemon=True)
        self.gadgets = gadgets
        self.held = {}
        self.lists = 0
        self.why = []
        self.over = threading.Event()

    def run(self):
        revision = ""
        while not self.over.is_set():
            try:
                if not revision:
                    listed = self.gadgets.get(namespace="acme")
                    self.lists += 1
                    self.held = {each.metadata.name: each.spec.size for each in listed.items}
                    revision = listed.metadata.resourceVersion
                for event in self.gadgets.watch(namespace="acme", resource_version=revision, timeout=2):
                    about = event["object"]
                    revision = about.metadata.resourceVersion
                    if event["type"] == "DELETED":
                        self.held.pop(about.metadata.name, None)
                    else:
                        self.held[about.metadata.name] = about.spec.size
            except ApiException as error:
                self.why.append(f"{error.status} {error.body}")
                if error.status == 410:
                    revision = ""
                self.over.wait(0.1)
            except HTTPError:
                # The hub is away: try again from where it was.
                self.over.wait(0.1)


def test_a_cache_goes_on_where_it_was_after_a_restart(hub, gadgets, name):
    cache = Cache(gadgets)
    cache.start()
    try:
        gadgets.create(body=gadget(name, size=1), namespace="acme")
        until(lambda: cache.held.get(name) == 1)
        hub.restart_hub()
        content = "application/merge-patch+json"
        gadgets.patch(name=name, namespace="acme", body={"spec": {"size": 2}}, content_type=content)
        until(lambda: cache.held.get(name) == 2)
        gadgets.delete(name=name, namespace="acme")
        until(lambda: name not in cache.held)
        assert cache.lists == 1, f"the revision it had is still good: no list anew ({cache.why})"
    finally:
        cache.over.set()
        cache.join()


def test_typed_kinds(client, name):
    core = CoreV1Api(client)
    assert "acme" in [each.metadata.name for each in core.list_namespace().items]
    lease = {"metadata": {"name": name}, "spec": {"holderIdentity": "me", "leaseDurationSeconds": 15}}
    leases = CoordinationV1Api(client)
    made = leases.create_namespaced_lease("acme", lease)
    made.spec.holder_identity = "you"
    leases.replace_namespaced_lease(name, "acme", made)
    with pytest.raises(ApiException) as refused:
        leases.replace_namespaced_lease(name, "acme", made)
    assert refused.value.status == 409
    assert leases.read_namespaced_lease(name, "acme").spec.holder_identity == "you"
    typed = watch.Watch().stream(leases.list_namespaced_lease, "acme", timeout_seconds=30)
    assert next(event for event in typed if event["object"].metadata.name == name)["type"] == "ADDED"


ELECTING = textwrap.dedent("""
    import sys, time
    from kubernetes import config
    from kubernetes.leaderelection import electionconfig, leaderelection
    from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock

    kubeconfig, name, who = sys.argv[1:]
    config.load_kube_config(kubeconfig)

    def lead():
        print("leads", flush=True)
        while True:
            time.sleep(1)

    lock = LeaseLock(name, "acme", who)
    wish = electionconfig.Config(
        lock, lease_duration=4, renew_deadline=3, retry_period=1,
        onstarted_leading=lead, onstopped_leading=lambda: print("stopped", flush=True),
    )
    leaderelection.LeaderElection(wish).run()
""")


def test_two_elect_one_leader(hub, client, name):
    def run(who):
        words = [sys.executable, "-W", "ignore", "-c", ELECTING, str(hub.kubeconfig), name, who]
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def holder():
        return CoordinationV1Api(client).read_namespaced_lease(name, "acme").spec.holder_identity

    one = run("one")
    two = None
    try:
        assert one.stdout.readline() == "leads\n"
        two = run("two")
        renewed = CoordinationV1Api(client).read_namespaced_lease(name, "acme").spec.renew_time
        until(lambda: CoordinationV1Api(client).read_namespaced_lease(name, "acme").spec.renew_time > renewed)
        assert holder() == "one"
        one.kill()
        assert two.stdout.readline() == "leads\n"
        assert holder() == "two"
    finally:
        for process in filter(None, (one, two)):
            process.kill()
            process.communicate()
