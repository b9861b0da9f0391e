"""Lists show one revision, whatever is written meanwhile; watches begin and end as they are asked to."""

import contextlib
import random

import msgspec
import pytest

from api_parts import DEPLOYMENTS, KEY, ROOT, served

pytestmark = pytest.mark.usefixtures("each_engine")

CLUSTERS = f"{ROOT}/namespaces/acme/kafkaclusters"
FOREVER = "9999"


@pytest.fixture
async def api(tmp_path):
    async with served(tmp_path) as api:
        yield api


def cluster(name, version="1", **labels):
    meta = {"name": name, "labels": labels}
    spec = {"bootstrapServers": ["kafka:9092"], "title": version}
    return {"apiVersion": "transom.dev/v1", "kind": "KafkaCluster", "metadata": meta, "spec": spec}


async def listed(api, query=""):
    answer = await api.ask("GET", f"{CLUSTERS}?{query}")
    assert answer.code == 200, answer.body
    return answer.body


def shown(body):
    return [(item["metadata"]["name"], item["spec"]["title"]) for item in body["items"]]


@contextlib.asynccontextmanager
async def watching(api, query):
    headers = {"Authorization": f"Bearer {KEY}"}
    url = f"{api.address}{CLUSTERS}?watch=true&{query}"
    async with api.session.get(url, headers=headers) as response:
        assert response.status == 200, await response.read()

        async def following():
            line = await response.content.readline()
            return msgspec.json.decode(line) if line else None

        yield following


async def change_something(api, chance, number):
    """One write to one of a few names: made, changed or deleted."""
    path, name = f"{CLUSTERS}/", f"c{chance.randrange(8)}"
    if chance.random() < 0.3:
        await api.ask("DELETE", path + name)
    elif (await api.ask("PUT", path + name, cluster(name, f"{number}", even=f"{number % 2}"))).code == 404:
        await api.ask("POST", CLUSTERS, cluster(name, f"{number}", even=f"{number % 2}"))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("selector", ["", "&labelSelector=even%3D1"])
async def test_all_pages_show_the_revision_of_the_first_whatever_is_written_meanwhile(api, seed, selector):
    chance = random.Random(seed)
    for number in range(10):
        await change_something(api, chance, number)
    for _ in range(3):
        expected = await listed(api, selector)
        pages, token, more = [], "", True
        while more:
            page = await listed(api, f"limit={chance.choice((1, 2, 3))}{selector}&continue={token}")
            assert page["metadata"]["resourceVersion"] == expected["metadata"]["resourceVersion"]
            pages += page["items"]
            left = page["metadata"].get("remainingItemCount")
            token = page["metadata"].get("continue", "")
            more = bool(token)
            if selector or not token:
                assert left is None
            else:
                assert left == len(expected["items"]) - len(pages)
            for number in range(chance.randrange(4)):
                await change_something(api, chance, 100 + number)
        assert pages == expected["items"]
        at = expected["metadata"]["resourceVersion"]
        again = await listed(api, f"resourceVersion={at}&resourceVersionMatch=Exact{selector}")
        assert again["items"] == expected["items"]


async def test_which_revision_a_list_shows(api):
    """The table of Kubernetes' API concepts, "resourceVersion parameter" for list."""
    await api.ask("POST", CLUSTERS, cluster("one", "1"))
    old = await api.revision()
    await api.ask("PUT", f"{CLUSTERS}/one", cluster("one", "2"))
    before, after = [("one", "1")], [("one", "2")]
    for query, expected in (
        ("", after),
        ("resourceVersion=0", after),
        (f"resourceVersion={old}", after),
        (f"resourceVersion={old}&resourceVersionMatch=NotOlderThan", after),
        ("resourceVersion=0&resourceVersionMatch=NotOlderThan", after),
        (f"resourceVersion={old}&resourceVersionMatch=Exact", before),
        (f"resourceVersion={old}&resourceVersionMatch=Exact&limit=5", before),
        (f"resourceVersion={old}&limit=5", before),
        (f"resourceVersion={old}&resourceVersionMatch=NotOlderThan&limit=5", after),
        ("limit=5", after),
    ):
        assert shown(await listed(api, query)) == expected, query
    for query, code in (
        ("resourceVersionMatch=Exact", 422),
        ("resourceVersion=0&resourceVersionMatch=Exact", 422),
        ("resourceVersion=1&resourceVersionMatch=Newest", 422),
        ("sendInitialEvents=true", 422),
        ("resourceVersion=x", 400),
        ("resourceVersion=-1", 400),
        ("continue=x", 400),
        ("limit=-1", 400),
        ("nonsense=1", 400),
    ):
        assert (await api.ask("GET", f"{CLUSTERS}?{query}")).code == code, query


async def test_a_revision_that_is_yet_to_come_is_a_timeout(api, monkeypatch):
    monkeypatch.setattr("transom.hub.api.lists._REACHED_SECONDS", 0.01)
    later = await api.revision() + 10
    for path in (f"{CLUSTERS}?", f"{CLUSTERS}?resourceVersionMatch=Exact&", f"{DEPLOYMENTS}/shop?"):
        early = await api.ask("GET", f"{path}resourceVersion={later}")
        assert (early.code, early.body["reason"]) == (504, "Timeout")
        assert early.body["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
        assert early.headers["Retry-After"] == str(early.body["details"]["retryAfterSeconds"])


async def test_a_list_goes_on_with_what_there_is_when_its_revision_is_forgotten(api):
    for number in range(4):
        await api.ask("POST", CLUSTERS, cluster(f"c{number}"))
    first = await listed(api, "limit=2")
    await api.ask("PUT", f"{CLUSTERS}/c3", cluster("c3", "2"))
    await api.store.prune_history(FOREVER, FOREVER)
    old = first["metadata"]["resourceVersion"]
    expired = await api.ask("GET", f"{CLUSTERS}?limit=2&continue={first['metadata']['continue']}")
    assert (expired.code, expired.body["reason"]) == (410, "Expired")
    rest = await listed(api, f"limit=2&continue={expired.body['metadata']['continue']}")
    assert shown(rest) == [("c2", "1"), ("c3", "2")]
    exactly = await api.ask("GET", f"{CLUSTERS}?resourceVersion={old}&resourceVersionMatch=Exact")
    assert (exactly.code, exactly.body["reason"]) == (410, "Expired")
    watched = await api.ask("GET", f"{CLUSTERS}?watch=true&resourceVersion={old}")
    assert (watched.code, watched.body["reason"]) == (410, "Expired")


async def test_where_a_watch_begins(api):
    await api.ask("POST", CLUSTERS, cluster("one"))
    since = await api.revision()
    await api.ask("PUT", f"{CLUSTERS}/one", cluster("one", "2"))
    for query, expected in (
        ("", "ADDED"),
        ("resourceVersion=0", "ADDED"),
        ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan", "ADDED"),
        (f"resourceVersion={since}", "MODIFIED"),
    ):
        async with watching(api, f"{query}&timeoutSeconds=1") as following:
            told = await following()
            assert (told["type"], told["object"]["spec"]["title"]) == (expected, "2"), query
            assert await following() is None, "its time is over"


async def test_a_bookmark_says_when_all_there_was_has_been_told(api):
    await api.ask("POST", CLUSTERS, cluster("one"))
    query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    async with watching(api, query) as following:
        assert (await following())["type"] == "ADDED"
        end = await following()
        assert (end["type"], end["object"]["kind"]) == ("BOOKMARK", "KafkaCluster")
        meta = end["object"]["metadata"]
        assert meta["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert meta["resourceVersion"] == str(await api.revision())
        await api.ask("PUT", f"{CLUSTERS}/one", cluster("one", "2"))
        assert (await following())["type"] == "MODIFIED"


async def test_who_selects_is_told_what_begins_and_what_ceases_to_be_selected(api):
    since = await api.revision()
    for label in ("b", "a", "a", "b", "a"):
        body = cluster("one", label, team=label)
        if (await api.ask("PUT", f"{CLUSTERS}/one", body)).code == 404:
            await api.ask("POST", CLUSTERS, body)
        await api.ask(
            "PATCH", f"{CLUSTERS}/one", {"spec": {"title": "x"}}, media="application/merge-patch+json"
        )
    await api.ask("DELETE", f"{CLUSTERS}/one")
    query = f"labelSelector=team%3Da&resourceVersion={since}&timeoutSeconds=1"
    told = []
    async with watching(api, query) as following:
        while (event := await following()) is not None:
            told.append((event["type"], event["object"]["metadata"]["labels"]["team"]))
    kinds = [kind for kind, _ in told]
    assert {team for _, team in told} == {"a"}
    assert kinds == ["ADDED", *["MODIFIED"] * 3, "DELETED", "ADDED", "MODIFIED", "DELETED"]
