"""The history of a name, through its lives: who, when, from where, why and what; and how states differ."""

import pytest

from api_parts import DEPLOYMENTS, Api, manifest, served
from hub_parts import deployment, merge_patching
from transom.hub.changes import Actor, Change, creating, deleting, dropping_finalizer, replacing
from transom.model.kinds import PEOPLE
from transom.model.names import Key

ADA = Actor(PEOPLE, "ada", "192.0.2.7")
SHOP = Key("Deployment", "acme", "shop")
OWNER = "deployment-controller"
HISTORY = f"{DEPLOYMENTS}/shop/history"

pytestmark = pytest.mark.usefixtures("each_engine")


@pytest.fixture
async def api(tmp_path):
    async with served(tmp_path) as api:
        yield api


async def live_and_die(api: Api, *versions: str) -> str:
    """One life of the shop, a version after another; returns its uid."""
    first, *others = versions
    made = await api.store.write(Change(SHOP, creating(deployment("shop", version=first)), ADA))
    for version in others:
        await api.store.write(Change(SHOP, replacing(deployment("shop", version=version)), ADA))
    await api.store.write(Change(SHOP, deleting(SHOP), ADA))
    uid = made.metadata.uid
    await api.store.write(Change(SHOP, dropping_finalizer(SHOP, uid, OWNER), Actor(OWNER, OWNER)))
    return uid


async def test_the_history_of_a_name_goes_over_its_lives(api: Api):
    first, second = await live_and_die(api, "1", "2"), await live_and_die(api, "3")
    items = (await api.ask("GET", HISTORY)).body["items"]
    assert [(item["uid"], item["event"], item["generation"]) for item in items] == [
        (second, "DELETED", 2),
        (second, "MODIFIED", 2),
        (second, "ADDED", 1),
        (first, "DELETED", 3),
        (first, "MODIFIED", 3),
        (first, "MODIFIED", 2),
        (first, "ADDED", 1),
    ]
    assert items[5]["changes"] == [{"path": "spec.version", "old": "1", "new": "2"}]
    assert {"path": "spec.version", "new": "3"} in items[2]["changes"], (
        "nothing is compared with another life"
    )
    assert {(item["who"], item["source"]) for item in items if item["event"] == "ADDED"} == {
        ("ada", "192.0.2.7")
    }


async def test_a_history_is_read_in_pages(api: Api):
    await live_and_die(api, "1", "2", "3", "4")
    whole = (await api.ask("GET", HISTORY)).body
    assert "continue" not in whole["metadata"]
    items, token = [], ""
    while True:
        page = (await api.ask("GET", f"{HISTORY}?limit=2&continue={token}")).body
        assert len(page["items"]) <= 2
        items += page["items"]
        token = page["metadata"].get("continue", "")
        if not token:
            break
    assert items == whole["items"]
    async with api.client() as client:
        assert await client.history(api.store.catalog["Deployment"], "shop", "acme", 3) == items[:3]


async def test_two_generations_are_compared_and_one_with_now(api: Api):
    await api.ask("POST", DEPLOYMENTS, manifest(version="1"))
    for version in ("2", "3"):
        await api.ask("PUT", f"{DEPLOYMENTS}/shop", manifest(version=version))
    await api.store.write(Change(SHOP, merge_patching(SHOP, {"metadata": {"labels": {"a": "b"}}}), ADA))
    found = (await api.ask("GET", f"{DEPLOYMENTS}/shop/diff?from=1&to=2")).body
    assert found["changes"] == [{"path": "spec.version", "old": "1", "new": "2"}]
    assert (found["from"]["generation"], found["to"]["generation"]) == (1, 2)
    now = (await api.ask("GET", f"{DEPLOYMENTS}/shop/diff?from=2")).body
    assert now["changes"] == [
        {"path": "metadata.labels.a", "new": "b"},
        {"path": "spec.version", "old": "2", "new": "3"},
    ]
    assert now["to"]["who"] == "ada"
    told = (await api.ask("GET", f"{DEPLOYMENTS}/shop/diff?from=9")).body["message"]
    assert "generation 9 is not remembered; 1 to 3 are" in told


@pytest.mark.parametrize(
    ("path", "code", "words"),
    [
        ("shop/diff", 400, "'from' is missing"),
        ("shop/diff?from=0", 400, "'from' is missing"),
        ("shop/diff?from=x", 400, "must be a whole number"),
        ("shop/diff?from=7", 422, "generation 7 is not remembered; only 1 is"),
        ("other/diff?from=1", 404, "not found"),
    ],
)
async def test_what_cannot_be_compared_says_why(api: Api, path: str, code: int, words: str):
    await api.ask("POST", DEPLOYMENTS, manifest())
    told = await api.ask("GET", f"{DEPLOYMENTS}/{path}")
    assert told.code == code
    assert words in told.body["message"]


async def test_the_reason_is_the_annotation_that_a_change_sets(api: Api):
    await api.ask("POST", DEPLOYMENTS, manifest())
    cause = {"metadata": {"annotations": {"transom.dev/change-cause": "more of it"}}}
    for patch in (cause, {"spec": {"instances": 2}}):
        media = "application/merge-patch+json"
        assert (await api.ask("PATCH", f"{DEPLOYMENTS}/shop", patch, media=media)).code == 200
    items = (await api.ask("GET", HISTORY)).body["items"]
    assert [item["why"] for item in items] == ["", "more of it", ""], "an old reason is none for what is new"
