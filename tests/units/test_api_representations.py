"""What clients get who ask for Tables or metadata alone, and flat kinds, over a real store and socket."""

import contextlib

import msgspec
import pytest

from api_parts import DEPLOYMENTS, KEY, ROOT, manifest, served

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io, application/json"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
EVENTS = "/api/v1/namespaces/acme/events"


@pytest.fixture
async def api(tmp_path):
    async with served(tmp_path) as api:
        yield api


async def ask(api, method, path, accept, body=None):
    headers = {"Authorization": f"Bearer {KEY}", "Accept": accept, "Content-Type": "application/json"}
    data = None if body is None else msgspec.json.encode(body)
    async with api.session.request(method, api.address + path, headers=headers, data=data) as response:
        return response.status, msgspec.json.decode(await response.read())


async def test_every_verb_that_shows_resources_shows_them_as_tables(api):
    code, table = await ask(api, "POST", DEPLOYMENTS, TABLE, manifest())
    assert (code, table["kind"], table["rows"][0]["cells"][:3]) == (201, "Table", ["shop", "shop", "1"])
    await ask(api, "POST", DEPLOYMENTS, TABLE, manifest("other"))
    for path in (DEPLOYMENTS, f"{DEPLOYMENTS}?limit=5", f"{ROOT}/deployments"):
        code, table = await ask(api, "GET", path, TABLE)
        assert (code, table["kind"]) == (200, "Table")
        assert table["metadata"]["resourceVersion"]
        assert [row["cells"][0] for row in table["rows"]] == ["other", "shop"]
    code, table = await ask(api, "GET", f"{DEPLOYMENTS}/shop?includeObject=Object", TABLE)
    assert table["rows"][0]["object"]["spec"]["app"] == "shop"
    code, table = await ask(api, "PUT", f"{DEPLOYMENTS}/shop", TABLE, manifest(version="2"))
    assert table["rows"][0]["cells"][2] == "2"
    code, table = await ask(api, "DELETE", f"{DEPLOYMENTS}/shop", TABLE)
    assert (code, table["rows"][0]["cells"][4]) == (200, "Terminating")


async def test_a_long_list_comes_whole_as_a_table(api, monkeypatch):
    monkeypatch.setattr("transom.hub.api.lists._PAGE", 2)
    for number in range(5):
        await ask(api, "POST", DEPLOYMENTS, "*/*", manifest(f"app-{number}"))
    _, table = await ask(api, "GET", DEPLOYMENTS, TABLE)
    assert [row["cells"][0] for row in table["rows"]] == [f"app-{number}" for number in range(5)]


async def test_a_watch_tells_of_tables_beside_one_that_does_not(api):
    await ask(api, "POST", DEPLOYMENTS, "*/*", manifest())
    url, key = f"{api.address}{DEPLOYMENTS}?watch=true", f"Bearer {KEY}"
    async with contextlib.AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(
                api.session.get(url, headers={"Authorization": key, "Accept": accept})
            )
            for accept in (TABLE, PARTIAL, "*/*")
        ]
        told = [[msgspec.json.decode(await watch.content.readline())] for watch in opened]
        await ask(api, "PUT", f"{DEPLOYMENTS}/shop", "*/*", manifest(version="2"))
        for lines, watch in zip(told, opened, strict=True):
            lines.append(msgspec.json.decode(await watch.content.readline()))
    for lines, kind in zip(told, ("Table", "PartialObjectMetadata", "Deployment"), strict=True):
        assert [line["type"] for line in lines] == ["ADDED", "MODIFIED"]
        assert [line["object"]["kind"] for line in lines] == [kind, kind]
    first, second = (line["object"] for line in told[0])
    assert "columnDefinitions" in first
    assert "columnDefinitions" not in second
    assert second["rows"][0]["cells"][2] == "2"
    assert told[2][1]["object"]["spec"]["version"] == "2"


async def test_who_cannot_read_the_answer_changes_nothing(api):
    proto = "application/vnd.kubernetes.protobuf"
    for method, path in (("POST", DEPLOYMENTS), ("PUT", f"{DEPLOYMENTS}/shop")):
        code, status = await ask(api, method, path, proto, manifest())
        assert (code, status["reason"]) == (406, "NotAcceptable")
    assert (await ask(api, "GET", f"{DEPLOYMENTS}/shop", "*/*"))[0] == 404
    await ask(api, "POST", DEPLOYMENTS, "*/*", manifest())
    assert (await ask(api, "DELETE", f"{DEPLOYMENTS}/shop", proto))[0] == 406
    assert "deletionTimestamp" not in (await ask(api, "GET", f"{DEPLOYMENTS}/shop", "*/*"))[1]["metadata"]
    assert (await ask(api, "GET", f"{DEPLOYMENTS}?watch=true", proto))[0] == 406


async def test_a_flat_kind_is_written_and_read_without_a_spec(api):
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "shop.1", "namespace": "acme"},
        "involvedObject": {"kind": "Deployment", "name": "shop", "namespace": "acme"},
        "reason": "Tried",
        "message": "hello",
        "type": "Normal",
    }
    code, created = await ask(api, "POST", EVENTS, "*/*", event)
    assert (code, created["message"], "spec" in created) == (201, "hello", False)
    assert (await ask(api, "GET", f"{EVENTS}/shop.1", "*/*"))[1] == created
    assert (await ask(api, "GET", EVENTS, "*/*"))[1]["items"] == [created]
    patched = await api.ask(
        "PATCH", f"{EVENTS}/shop.1", {"message": "again"}, media="application/merge-patch+json"
    )
    assert (patched.code, patched.body["message"], patched.body["reason"]) == (200, "again", "Tried")
    other = {**event, "metadata": {"name": "shop.2"}, "mesage": "x", "count": "many"}
    code, refused = await ask(api, "POST", EVENTS, "*/*", other)
    fields = {cause["field"] for cause in refused["details"]["causes"]}
    assert (code, fields) == (422, {"mesage", "count"})
    as_group = "/apis/events.k8s.io/v1/namespaces/acme/events/shop.1"
    code, shown = await ask(api, "GET", as_group, "*/*")
    assert (code, shown["note"], "spec" in shown) == (200, "again", False)
