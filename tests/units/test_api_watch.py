"""Watching: nothing missed, nothing twice, nothing held for those who do not read."""

import asyncio
import contextlib

import msgspec
import pytest

from api_parts import DEPLOYMENTS, KEY, ROOT, manifest, served
from hub_parts import deployment, open_store, put
from transom.catalog.deployment.kind import DEPLOYMENT
from transom.client.hub import ApiError
from transom.hub.api import watch as api_watch
from transom.hub.store_snapshots import Chosen
from transom.model.errors import ExpiredError

HEADERS = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture
async def api(tmp_path):
    async with served(tmp_path) as api:
        yield api


@contextlib.asynccontextmanager
async def watching(api, query="", path=DEPLOYMENTS):
    """A watch as an async function that gives the next line."""
    async with api.session.get(f"{api.address}{path}?watch=true{query}", headers=HEADERS) as response:
        assert response.status == 200

        async def following():
            line = await response.content.readline()
            return msgspec.json.decode(line) if line else None

        yield following


def said(line):
    return line["type"], line["object"]["metadata"]["name"], line["object"]["spec"].get("version")


async def test_a_watch_from_a_revision_tells_every_change_once_and_in_order(api):
    await api.ask("POST", DEPLOYMENTS, manifest("before"))
    since = await api.revision()
    await api.ask("POST", DEPLOYMENTS, manifest("shop"))
    async with watching(api, f"&resourceVersion={since}") as following:
        assert said(await following()) == ("ADDED", "shop", "1")
        await api.ask("POST", f"{ROOT}/tenants", {**manifest("globex"), "kind": "Tenant", "spec": {}})
        for number in range(2, 12):
            await api.ask("PUT", f"{DEPLOYMENTS}/shop", manifest(version=str(number)))
        for number in range(2, 12):
            assert said(await following()) == ("MODIFIED", "shop", str(number))


async def test_a_watch_without_a_revision_shows_first_what_is_there(api):
    await api.ask("POST", DEPLOYMENTS, manifest("a"))
    await api.ask("POST", DEPLOYMENTS, manifest("b"))
    async with watching(api) as following:
        assert [said(await following())[:2] for _ in range(2)] == [("ADDED", "a"), ("ADDED", "b")]
        await api.ask("PUT", f"{DEPLOYMENTS}/a", manifest("a", version="2"))
        assert said(await following()) == ("MODIFIED", "a", "2")


async def test_what_there_is_is_shown_as_of_one_revision(api, monkeypatch):
    monkeypatch.setattr(api_watch, "_PAGE", 1)
    for name in ("a", "b", "c"):
        await api.ask("POST", DEPLOYMENTS, manifest(name))
    snapshot, pages = api.store.snapshot, 0

    async def change_in_between(*args, **kwargs):
        nonlocal pages
        pages += 1
        if pages == 2:
            await api.store.write(put(deployment("b", version="2")))
        return await snapshot(*args, **kwargs)

    monkeypatch.setattr(api.store, "snapshot", change_in_between)
    async with watching(api) as following:
        shown = [said(await following()) for _ in range(3)]
        assert shown == [("ADDED", "a", "1"), ("ADDED", "b", "1"), ("ADDED", "c", "1")]
        assert said(await following()) == ("MODIFIED", "b", "2")
        await api.store.write(put(deployment("c", version="3")))
        assert said(await following()) == ("MODIFIED", "c", "3")


async def test_a_watch_begins_with_what_another_process_has_written(api, tmp_path):
    before = await api.revision()
    async with open_store(tmp_path, declared=False) as elsewhere:
        await elsewhere.write(put(deployment("there")))
    assert await api.revision() == before  # it has not heard of that
    query = "&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
    async with watching(api, query) as following:
        first = await following()
        assert said(first)[:2] == ("ADDED", "there")
        bookmark = (await following())["object"]["metadata"]
        assert bookmark["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert bookmark["resourceVersion"] == first["object"]["metadata"]["resourceVersion"]
        await api.ask("POST", DEPLOYMENTS, manifest("here"))
        assert said(await following())[:2] == ("ADDED", "here")


async def test_a_watch_from_now_on_tells_nothing_that_another_process_wrote_before(api, tmp_path):
    async with open_store(tmp_path, declared=False) as elsewhere:
        await elsewhere.write(put(deployment("there")))
    async with watching(api, "&sendInitialEvents=false&resourceVersionMatch=NotOlderThan") as following:
        await api.ask("POST", DEPLOYMENTS, manifest("here"))
        assert said(await following())[:2] == ("ADDED", "here")


async def test_a_deletion_is_told(api):
    await api.ask("POST", f"{ROOT}/tenants", {**manifest("globex"), "kind": "Tenant", "spec": {}})
    since = await api.revision()
    async with watching(api, f"&resourceVersion={since}", f"{ROOT}/tenants") as following:
        await api.ask("DELETE", f"{ROOT}/tenants/globex")
        line = await following()
        assert said(line) == ("DELETED", "globex", None)
        assert line["object"]["metadata"]["resourceVersion"] == str(await api.revision())


async def test_what_is_no_longer_selected_is_deleted_for_the_one_who_selects(api):
    since = await api.revision()
    labelled = manifest()
    async with watching(api, f"&resourceVersion={since}&labelSelector=team%3Dweb") as following:
        for team in ("web", "shop"):
            labelled["metadata"]["labels"] = {"team": team}
            await api.ask(
                "POST" if team == "web" else "PUT", DEPLOYMENTS + "/shop" * (team != "web"), labelled
            )
        assert said(await following())[0] == "ADDED"
        assert said(await following())[0] == "DELETED"


async def test_a_quiet_watch_gets_bookmarks_that_carry_it_on(api, monkeypatch):
    monkeypatch.setattr(api_watch, "BOOKMARK_SECONDS", 0.01)
    await api.ask("POST", DEPLOYMENTS, manifest())
    since = await api.revision()
    await api.ask("POST", f"{ROOT}/tenants", {**manifest("globex"), "kind": "Tenant", "spec": {}})
    query = f"&resourceVersion={since}&allowWatchBookmarks=true"
    async with watching(api, query) as following:
        newest, told = await api.revision(), since
        while told != newest:  # what is told while the store is still being read is not the newest
            line = await following()
            assert (line["type"], line["object"]["kind"]) == ("BOOKMARK", "Deployment")
            before, told = told, int(line["object"]["metadata"]["resourceVersion"])
            assert before <= told <= newest


async def test_a_watch_with_a_time_ends(api):
    async with watching(api, "&timeoutSeconds=1") as following:
        assert await following() is None


async def test_a_forgotten_revision_is_expired(api, monkeypatch):
    for number in range(5):
        await api.ask("POST", DEPLOYMENTS, manifest(f"app-{number}"))
    await api.store.prune_history("9999", "9999")
    monkeypatch.setattr("transom.hub.api.lists._REACHED_SECONDS", 0.01)
    for since in (1, 10_000):
        answer = await api.ask("GET", f"{DEPLOYMENTS}?watch=true&resourceVersion={since}")
        assert (answer.code, answer.body["reason"]) == (410, "Expired")
    # Those who ask for what is still known are not disturbed, nor is the shared memory.
    async with watching(api, f"&resourceVersion={await api.revision()}") as following:
        await api.ask("POST", DEPLOYMENTS, manifest("new"))
        assert said(await following()) == ("ADDED", "new", "1")


async def test_who_falls_behind_the_memory_reads_on_from_the_store(api, monkeypatch):
    monkeypatch.setattr(api_watch, "_FEED_CHANGES_MAX", 3)
    monkeypatch.setattr(api_watch, "_READ_MAX", 7)
    since = await api.revision()
    async with watching(api, f"&resourceVersion={since}") as early:
        for number in range(20):
            await api.store.write(put(deployment(f"app-{number}")))
        async with watching(api, f"&resourceVersion={since}") as late:
            for following in (early, late):
                assert [said(await following())[1] for _ in range(20)] == [f"app-{n}" for n in range(20)]
            await api.store.write(put(deployment("last")))
            assert [said(await following())[1] for following in (early, late)] == ["last", "last"]


async def test_a_watch_that_is_expired_on_its_way_says_so_and_ends(api, monkeypatch):
    async def expired(*_args, **_kwargs):
        raise ExpiredError("forgotten")

    async with watching(api, f"&resourceVersion={await api.revision()}") as following:
        await api.store.write(put(deployment("one")))
        assert said(await following()) == ("ADDED", "one", "1")
        monkeypatch.setattr(api.store, "changes", expired)
        await api.store.write(put(deployment("two")))
        line = await following()
        assert (line["type"], line["object"]["code"], line["object"]["reason"]) == ("ERROR", 410, "Expired")
        assert await following() is None


async def test_the_client_tells_an_error_line_as_an_error(api, monkeypatch):
    async with api.client() as client:
        events = client.watch(DEPLOYMENT, "acme", revision=str(await api.revision()))
        await api.store.write(put(deployment("one")))
        assert (await anext(events)).object.metadata.name == "one"

        async def broken(*_args, **_kwargs):
            raise RuntimeError("inside")

        monkeypatch.setattr(api.store, "changes", broken)
        await api.store.write(put(deployment("two")))
        with pytest.raises(ApiError) as refused:
            await anext(events)
        assert (refused.value.code, "inside" in str(refused.value)) == (500, False)


async def test_a_client_that_goes_takes_its_watch_along(api):
    since = await api.revision()
    async with watching(api, f"&resourceVersion={since}"):
        await until(lambda: len(api.store.changed._waiters) == 1)
    await until(lambda: not api.store.changed._waiters)


@pytest.fixture
def waiting(monkeypatch):
    """Who waits for news at the feed, in the order they came; the first one reads for all."""
    waiting, above = [], api_watch.Feed.above

    async def noted(feed, *args):
        waiting.append(asyncio.current_task())
        try:
            await above(feed, *args)
        finally:
            waiting.remove(asyncio.current_task())

    monkeypatch.setattr(api_watch.Feed, "above", noted)
    return waiting


async def test_when_the_one_that_reads_for_all_goes_another_one_does(api, waiting):
    query = f"&resourceVersion={await api.revision()}"
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(contextlib.AsyncExitStack())
        await first.enter_async_context(watching(api, query))
        await until(lambda: len(waiting) == 1)
        others = [await stack.enter_async_context(watching(api, query)) for _ in range(3)]
        await until(lambda: len(waiting) == 4)
        await first.aclose()
        await until(lambda: len(waiting) == 3)
        await api.store.write(put(deployment("shop")))
        lines = await asyncio.gather(*(following() for following in others))
        assert {said(line)[:2] for line in lines} == {("ADDED", "shop")}


async def test_when_the_time_is_up_of_the_one_that_reads_for_all_another_one_does(api, waiting):
    query = f"&resourceVersion={await api.revision()}"
    async with watching(api, f"{query}&timeoutSeconds=1") as first:
        await until(lambda: len(waiting) == 1)
        async with watching(api, query) as other:
            await until(lambda: len(waiting) == 2)
            assert await first() is None
            await api.store.write(put(deployment("shop")))
            assert said(await other())[:2] == ("ADDED", "shop")


async def test_many_watchers_share_one_reading(api, waiting, monkeypatch):
    since, changes, read = await api.revision(), api.store.changes, 0

    async def counted(*args, **kwargs):
        nonlocal read
        read += 1
        return await changes(*args, **kwargs)

    async with contextlib.AsyncExitStack() as stack:
        query = f"&resourceVersion={since}"
        watches = [await stack.enter_async_context(watching(api, query)) for _ in range(80)]
        await until(lambda: len(waiting) == 80)
        assert len(api.store.changed._waiters) == 1, "a commit wakes one"
        monkeypatch.setattr(api.store, "changes", counted)
        await api.store.write(put(deployment("shop")))
        lines = await asyncio.gather(*(following() for following in watches))
        assert {said(line)[:2] for line in lines} == {("ADDED", "shop")}
        assert read == 1


async def test_what_is_committed_while_others_are_read_is_told_once(api, monkeypatch):
    changes = api.store.changes

    async def overtaken(*args, **kwargs):
        # A write that nobody here has heard of yet when the reading begins, as by another process.
        monkeypatch.setattr(api.store, "changes", changes)
        heard, told = api.store.changed.value, api.store.changed.rise
        monkeypatch.setattr(api.store.changed, "rise", lambda to=None: None)
        await api.store.write(put(deployment("two")))
        monkeypatch.setattr(api.store.changed, "rise", told)
        assert api.store.changed.value == heard
        return await changes(*args, **kwargs)

    async with watching(api, f"&resourceVersion={await api.revision()}") as following:
        monkeypatch.setattr(api.store, "changes", overtaken)
        await api.store.write(put(deployment("one")))
        assert [said(await following())[1] for _ in range(2)] == ["one", "two"]
        await api.store.write(put(deployment("three")))
        assert said(await following())[1] == "three"


@pytest.mark.parametrize("bound", ["_FEED_CHANGES_MAX", "_FEED_BYTES_MAX"])
async def test_what_is_remembered_is_bounded_and_nothing_is_missed(api, monkeypatch, bound):
    monkeypatch.setattr(api_watch, bound, {"_FEED_CHANGES_MAX": 3, "_FEED_BYTES_MAX": 2000}[bound])
    feed, since = api_watch.Feed(api.store), await api.revision()
    names = [f"d{number}" for number in range(9)]
    for name in names:
        await api.store.write(put(deployment(name)))
        await feed.above(api.store.changed.value - 1, 9)
    assert len(feed._recent) <= 3
    assert sum(told.bytes for told in feed._recent) == feed._bytes <= 3 * 2000
    told, seen = [], since
    while seen < api.store.changed.value:
        found, seen = await feed.after(seen, Chosen("Deployment"))
        told += [change.key.name for change in found]
    assert told == names


async def until(true):
    """Let the loop run until `true()`; the test's time limit ends it otherwise."""
    while not true():  # what is waited for has no event
        await asyncio.sleep(0)
