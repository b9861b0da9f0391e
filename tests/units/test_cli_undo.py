"""`transom history`, `diff`, `restore` and `purge`, on the API and the command line."""

import msgspec
import pytest

from api_parts import DEPLOYMENTS, manifest
from cli_here import hub_here, refused, runner
from hub_parts import put
from transom.hub.changes import Actor, Change, deleting, dropping_finalizer
from transom.model.kinds import PEOPLE
from transom.model.names import Key
from transom.model.resources import Metadata, OwnerReference, Resource

ADA = Actor(PEOPLE, "ada")
OWNER = "deployment-controller"
SHOP = Key("Deployment", "acme", "shop")


@pytest.fixture
async def hub(tmp_path, monkeypatch):
    async with hub_here(tmp_path, monkeypatch) as api:
        yield api


@pytest.fixture
def transom(monkeypatch, capsys):
    return runner(monkeypatch, capsys)


async def shop(api, *versions: str):
    """A shop with these versions; each is a generation."""
    await api.ask("POST", DEPLOYMENTS, manifest(version=versions[0]))
    for version in versions[1:]:
        await api.ask("PUT", f"{DEPLOYMENTS}/shop?why=better", manifest(version=version))
    return await api.store.get(SHOP)


async def gone(api, *versions: str) -> Resource:
    """A shop that was deleted, with a cluster that was made for it."""
    made = await shop(api, *versions)
    owner = OwnerReference("transom.dev/v1", "Deployment", "shop", made.metadata.uid)
    meta = Metadata("its", "acme", owner_references=[owner])
    its = Resource("KafkaCluster", meta, spec={"bootstrapServers": ["kafka:9092"]})
    await api.store.write(put(its))
    await api.store.write(Change(SHOP, deleting(SHOP), ADA))
    await api.store.write(Change(its.key, deleting(its.key), ADA))
    drop = dropping_finalizer(SHOP, made.metadata.uid, OWNER)
    await api.store.write(Change(SHOP, drop, Actor(OWNER, OWNER)))
    return made


async def test_history_as_a_table_json_and_yaml(hub, transom):
    await shop(hub, "1", "2", "3")
    table = await transom("history", "deployment/shop")
    head, newest, *_ = table.out.splitlines()
    assert head.split() == ["REVISION", "GENERATION", "EVENT", "WHO", "FROM", "AGE", "CHANGED", "WHY"]
    assert newest.split()[1:4] == ["3", "MODIFIED", "administrator"]
    assert newest.split()[-2:] == ["spec.version", "better"]
    told = (await transom("history", "deployment/shop", "-o", "json", "--limit", "2")).json
    assert [item["changes"] for item in told] == [
        [{"path": "spec.version", "old": "2", "new": "3"}],
        [{"path": "spec.version", "old": "1", "new": "2"}],
    ]
    assert msgspec.yaml.decode((await transom("history", "deployment/shop", "-o", "yaml")).out)[:2] == told


async def test_diff_of_two_generations_and_with_now(hub, transom):
    await shop(hub, "1", "2", "3")
    text = await transom("diff", "deployment/shop@1", "@2")
    assert text.code == 0
    one, two, *lines = text.out.splitlines()
    assert one.startswith("--- deployment/shop@1  ADDED by administrator at ")
    assert two.startswith("+++ deployment/shop@2  MODIFIED by administrator at ")
    assert two.endswith(": better")
    assert lines == ['- spec.version: "1"', '+ spec.version: "2"']
    now = (await transom("diff", "deployment/shop@2", "-o", "json")).json
    assert now["changes"] == [{"path": "spec.version", "old": "2", "new": "3"}]
    same = await transom("diff", "deployment/shop@3")
    assert same.out.splitlines()[-1] == "nothing that was declared is different"


async def test_diff_says_what_it_expects(hub, transom):
    for arguments in (["deployment/shop"], ["deployment/shop@0"], ["deployment/shop@1", "2"]):
        refused(await transom("diff", *arguments), 2, "expected KIND/NAME@7")
    await shop(hub, "1")
    refused(await transom("diff", "deployment/shop@9"), 1, "generation 9 is not remembered; only 1 is")


async def test_restore_says_what_came_back(hub, transom):
    made = await gone(hub, "1", "2")
    dry = await transom("restore", "deployment/shop", "--dry-run")
    assert dry.out == "deployment/shop would be restored\nkafkacluster/its would be restored\n"
    assert (await hub.ask("GET", f"{DEPLOYMENTS}/shop")).code == 404
    done = await transom("restore", "deployment/shop", "--why", "a mistake", "-o", "json")
    assert done.json["items"][0]["uid"] == made.metadata.uid
    assert (await hub.store.get(SHOP)).metadata.uid == made.metadata.uid
    newest = (await transom("history", "deployment/shop", "-o", "json")).json[0]
    assert (newest["event"], newest["why"], newest["changes"]) == ("RESTORED", "a mistake", [])
    refused(await transom("restore", "deployment/shop"), 1, "is there")
    refused(await transom("restore", "deployment/other"), 1, "not found")


async def test_purge_needs_a_reason_and_is_final(hub, transom):
    await gone(hub, "1")
    refused(await transom("purge", "deployment/shop"), 2, "--why")
    told = await hub.ask("POST", f"{DEPLOYMENTS}/shop/purge")
    assert (told.code, told.body["message"]) == (
        400,
        "query parameter 'why' is missing: a purge cannot be undone, say why",
    )
    dry = await transom("purge", "deployment/shop", "--why", "secret", "--dry-run")
    assert dry.out == "deployment/shop would be purged\nkafkacluster/its would be purged\n"
    done = await transom("purge", "deployment/shop", "--why", "secret")
    assert done.out == "deployment/shop purged\nkafkacluster/its purged\n"
    refused(await transom("restore", "deployment/shop"), 1, "was purged at", "by administrator: secret")
    told = await hub.ask("POST", f"{DEPLOYMENTS}/shop/restore")
    assert (told.code, told.body["reason"]) == (410, "Expired")
    events = [item["event"] for item in (await transom("history", "deployment/shop", "-o", "json")).json]
    assert events == ["PURGED", "DELETED", "MODIFIED", "ADDED"]


@pytest.mark.parametrize("query", ["dryRun=Some", "force=true", f"why={'x' * 1001}"])
async def test_what_a_restore_does_not_understand_is_refused(hub, query):
    await gone(hub, "1")
    assert (await hub.ask("POST", f"{DEPLOYMENTS}/shop/restore?{query}")).code == 400
    assert (await hub.ask("GET", f"{DEPLOYMENTS}/shop")).code == 404
