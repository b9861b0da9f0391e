"""The verbs about resources: the real command against a served API."""

import asyncio
import contextlib
import json

import pytest
import yaml

from api_parts import DEPLOYMENTS, KEY, manifest, served
from cli_here import transom
from cli_parts import TRANSOM, environment
from hub_parts import deployment, put, tenant
from tls_parts import TRUST, say_where
from transom import __version__
from transom.catalog.deployment.kind import CONTROLLER
from transom.hub.changes import Actor, Change, setting_status

TWO = """\
apiVersion: transom.dev/v1
kind: Tenant
metadata:
  name: acme
---
# a comment alone is no document
---
{"apiVersion": "transom.dev/v1", "kind": "Deployment", "metadata": {"name": "shop"},
 "spec": {"app": "shop", "version": "1", "command": ["serve"], "regions": ["eu"]}}
"""


@pytest.fixture
async def hub(tmp_path):
    """A served API, and a folder from which the command line finds it."""
    async with served(tmp_path / "hub") as api:
        say_where(tmp_path, api.address, KEY)
        api.folder = tmp_path / "below" / "here"
        api.folder.mkdir(parents=True)
        yield api


def set_status(resource, ready, observed):
    condition = {"type": "Ready", "status": "True" if ready else "False", "reason": "Because"}
    status = {"observedGeneration": observed, "ready": 1, "desired": 1, "conditions": [condition]}
    wanted = setting_status(resource.key, resource.metadata.uid, status)
    return Change(resource.key, wanted, Actor(CONTROLLER, CONTROLLER))


async def test_apply_says_what_it_did(hub):
    first = await transom("apply", "-f", "-", stdin=TWO, cwd=hub.folder)
    assert (first.code, first.out) == (0, "tenant/acme unchanged\ndeployment/shop created\n")
    (hub.folder / "two.yaml").write_text(TWO.replace('"1"', '"2"'))
    again = await transom("apply", "-f", "two.yaml", "--why", "faster", cwd=hub.folder)
    assert (again.code, again.out) == (0, "tenant/acme unchanged\ndeployment/shop configured\n")
    told = await transom("apply", "-f", "two.yaml", "-o", "json", cwd=hub.folder)
    assert [item["result"] for item in told.json] == ["unchanged", "unchanged"]
    history = await transom("history", "deployment/shop", "-o", "json", cwd=hub.folder)
    newest, oldest = history.json
    assert newest["why"] == "faster"
    assert newest["changes"] == [{"path": "spec.version", "old": "1", "new": "2"}]
    assert {"path": "spec.version", "new": "1"} in oldest["changes"]


async def test_apply_tells_every_mistake_and_hides_nothing(hub):
    bad = manifest("Shop", version=3, regions=["eu"])
    bad["metadata"]["lables"] = {}
    text = "\n---\n".join(json.dumps(each) for each in (manifest("one"), bad, manifest("two")))
    refused = await transom("apply", "-f", "-", stdin=text, cwd=hub.folder)
    assert refused.code == 1
    assert refused.out == "deployment/one created\ndeployment/two created\n"
    assert "standard input document 2 (deployment/Shop): refused, 3 mistakes" in refused.err
    for path in ("metadata.name  ", "metadata.lables  ", "spec.version  "):
        assert f"\n  {path}" in refused.err
    assert "1 of 3 documents were refused" in refused.err
    told = await transom("apply", "-f", "-", "-o", "json", stdin=text, cwd=hub.folder)
    assert [item["result"] for item in told.json] == ["unchanged", "refused", "unchanged"]
    assert {cause["field"] for cause in told.json[1]["causes"]} == {
        "metadata.name",
        "metadata.lables",
        "spec.version",
    }


async def test_a_file_with_an_unreadable_document_is_not_sent_at_all(hub):
    before = await hub.revision()
    text = f"a: b: c\n---\n{json.dumps(manifest())}\n---\nkind: Nope\n---\n- 1\n"
    refused = await transom("apply", "-f", "-", stdin=text, cwd=hub.folder)
    assert refused.code == 1
    assert "document 1" in refused.err
    assert "line 1" in refused.err
    assert "unknown kind 'Nope'" in refused.err
    assert "document 4" in refused.err
    assert "nothing was sent" in refused.err
    assert await hub.revision() == before
    assert (await transom("apply", "-f", "missing.yaml", cwd=hub.folder)).code == 2


async def test_get_as_table_json_and_yaml(hub):
    for name, team in (("shop", "web"), ("till", "desk")):
        item = manifest(name)
        item["metadata"]["labels"] = {"team": team}
        await hub.ask("POST", DEPLOYMENTS, item)
    table = await transom("get", "deploy", cwd=hub.folder)
    head, first, second = table.out.splitlines()
    assert head.split() == ["NAME", "APP", "VERSION", "READY", "STATUS", "REGIONS", "AGE"]
    assert first.split()[:5] == ["shop", "shop", "1", "0/?", "Pending"]
    assert second.startswith("till ")
    listed = await transom("get", "deployments", "-o", "json", "-l", "team=web", cwd=hub.folder)
    assert listed.json["kind"] == "DeploymentList"
    assert [item["metadata"]["name"] for item in listed.json["items"]] == ["shop"]
    one = await transom("get", "Deployment", "till", "-o", "yaml", cwd=hub.folder)
    assert "\n  name: till\n" in one.out
    none = await transom("get", "instances", cwd=hub.folder)
    assert (none.code, none.out) == (0, "")
    assert "no instances found" in none.err
    missing = await transom("get", "deployment", "nothing", cwd=hub.folder)
    assert (missing.code, 'deployments.transom.dev "nothing" not found' in missing.err) == (1, True)
    missing = await transom("get", "region", "nowhere", cwd=hub.folder)
    assert (missing.code, 'regions.transom.dev "nowhere" not found' in missing.err) == (1, True)


async def test_an_event_is_shown_with_all_that_the_hub_says_of_it(hub):
    events = "/api/v1/namespaces/acme/events"
    about = {"kind": "Deployment", "namespace": "acme", "name": "shop"}
    event = {"involvedObject": about, "reason": "Fell", "message": "it fell", "count": 3}
    envelope = {"apiVersion": "v1", "kind": "Event", "metadata": {"name": "one"}}
    made = (await hub.ask("POST", events, envelope | event)).body
    one = await transom("get", "events", "one", "-o", "json", cwd=hub.folder)
    assert one.json == made
    assert one.json.items() >= event.items()
    listed = await transom("get", "events", "-o", "yaml", cwd=hub.folder)
    assert yaml.safe_load(listed.out)["items"] == [made]
    async with running(hub, "get", "events", "-w", "-o", "json") as process:
        assert json.loads(await process.stdout.readline()) == {"type": "ADDED", "object": made}
        again = (await hub.ask("PUT", f"{events}/one", envelope | event | {"count": 4})).body
        assert json.loads(await process.stdout.readline()) == {"type": "MODIFIED", "object": again}
    told = await transom("describe", "event", "one", cwd=hub.folder)
    assert "\nFields:\n" in told.out
    assert "\n  message: it fell\n" in told.out
    told = await transom("describe", "event", "one", "-o", "json", cwd=hub.folder)
    assert told.json["resource"] == again


async def test_several_tenants_must_be_told_apart(hub):
    await hub.ask("POST", DEPLOYMENTS, manifest())
    await hub.store.write(put(tenant("globex")))
    unsaid = await transom("get", "deployment", "shop", cwd=hub.folder)
    assert unsaid.code == 2
    assert "-n: acme, globex" in unsaid.err
    assert (await transom("get", "deployment", "shop", "-n", "acme", cwd=hub.folder)).code == 0
    other = f"{DEPLOYMENTS.replace('acme', 'globex')}"
    await hub.ask("POST", other, manifest())
    listed = await transom("get", "deployments", cwd=hub.folder)
    assert [line.split()[:2] for line in listed.out.splitlines()] == [
        ["NAME", "TENANT"],
        ["shop", "acme"],
        ["shop", "globex"],
    ]


async def test_get_watch_shows_changes_as_they_come(hub):
    await hub.ask("POST", DEPLOYMENTS, manifest())
    async with running(hub, "get", "deployments", "-w") as process:
        assert (await line(process)).startswith("NAME")
        assert (await line(process)).split()[:3] == ["shop", "shop", "1"]
        await hub.store.write(put(deployment("shop", version="2")))
        assert (await line(process)).split()[:3] == ["shop", "shop", "2"]


async def test_delete(hub):
    await hub.ask("POST", DEPLOYMENTS, manifest())
    await hub.store.write(put(tenant("globex")))
    gone = await transom("delete", "tenant", "globex", cwd=hub.folder)
    assert (gone.code, gone.out) == (0, "tenant/globex deleted\n")
    waiting = await transom("delete", "-f", "-", stdin=TWO, cwd=hub.folder)
    assert waiting.code == 1, "the tenant is still used"
    assert waiting.out.startswith("deployment/shop deleting, waits for transom.dev/")
    assert "tenant/acme" in waiting.err
    assert (await transom("delete", "deployment", cwd=hub.folder)).code == 2


async def test_wait_counts_only_a_status_of_the_newest_spec(hub):
    await hub.ask("POST", DEPLOYMENTS, manifest())
    await hub.store.write(put(deployment("shop", version="2", regions=["eu", "us"])))
    held = await hub.store.get(deployment("shop").key)
    assert held.metadata.generation == 2
    await hub.store.write(set_status(held, ready=True, observed=1))
    waiting = ("wait", "--for=condition=Ready", "deployment/shop")
    early = await transom(*waiting, "--timeout", "500ms", cwd=hub.folder)
    assert early.code == 4
    assert "generation 1, the newest is 2" in early.err
    async with running(hub, *waiting, "-o", "json") as process:
        assert "generation 1" in (await process.stderr.readline()).decode()
        await hub.store.write(set_status(held, ready=False, observed=2))
        assert "Ready is False (Because)" in (await process.stderr.readline()).decode()
        other = await transom("wait", "--for=condition=Redy", *waiting[2:], "--timeout=500ms", cwd=hub.folder)
        assert "no condition Redy yet, only Ready" in other.err
        await hub.store.write(set_status(held, ready=True, observed=2))
        out, _ = await process.communicate()
        assert json.loads(out)["result"] == "is Ready"
        assert process.returncode == 0


async def test_a_mistyped_verb_is_told_which_was_meant(tmp_path):
    told = await transom("gte", "tenants", cwd=tmp_path)
    assert (told.code, "there is no verb 'gte'; is it 'get'?" in told.err) == (2, True)
    assert "is it" not in (await transom("kubernetes", cwd=tmp_path)).err


async def test_wait_for_deletion_and_for_what_is_not_there(hub):
    await hub.store.write(put(tenant("globex")))
    async with running(hub, "wait", "--for=delete", "tenant/globex") as process:
        assert b"nobody has asked" in await process.stderr.readline()
        assert (await transom("delete", "tenant", "globex", cwd=hub.folder)).code == 0
        assert await process.wait() == 0
    assert (await transom("wait", "--for=delete", "tenant/globex", cwd=hub.folder)).code == 0
    missing = await transom("wait", "--for=condition=Ready", "deployment/none", cwd=hub.folder)
    assert (missing.code, "does not exist" in missing.err) == (1, True)
    wrong = (["--for=ready"], ["--for=delete", "--timeout", "5"], ["--for=condition="])
    ran = await asyncio.gather(*(transom("wait", *how, "tenant/acme", cwd=hub.folder) for how in wrong))
    assert [each.code for each in ran] == [2, 2, 2]


async def test_whoever_waits_for_a_hub_that_stands_still_is_told(tmp_path):
    told = asyncio.Event()

    async def still(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await told.wait()
        body = b'{"items": []}'
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(still, "127.0.0.1", 0, ssl=TRUST.server) as server:
        address = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        (tmp_path / "key").write_text("a-key\n")
        (tmp_path / "key").chmod(0o600)
        asking = await asyncio.create_subprocess_exec(
            TRANSOM, "regions", "--hub", address, "--key-file", "key", "--ca-file", str(TRUST.ca_file),
            cwd=tmp_path, env=environment(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(20):
            line = await asking.stderr.readline()
            assert line.decode() == f"waiting for the hub at {address}; Ctrl-C gives up\n"
            told.set()
            out, err = await asking.communicate()
        assert (asking.returncode, out.startswith(b"REGION"), err) == (0, True, b"")


async def test_one_resource_is_named_in_one_word_or_two(hub):
    await transom("apply", "-f", "-", stdin=TWO, cwd=hub.folder)
    for verb in ("get", "describe"):
        apart = await transom(verb, "deployment", "shop", "-o", "json", cwd=hub.folder)
        together = await transom(verb, "deployment/shop", "-o", "json", cwd=hub.folder)
        assert (together.code, together.json) == (apart.code, apart.json) == (0, apart.json)
    twice = await transom("get", "deployment/shop", "shop", cwd=hub.folder)
    assert (twice.code, "deployment/shop or deployment shop" in twice.err) == (2, True)
    nameless = await transom("describe", "deployment", cwd=hub.folder)
    assert (nameless.code, "deployment NAME" in nameless.err) == (2, True)
    assert (await transom("delete", "deployment/", cwd=hub.folder)).code == 2
    assert (await transom("delete", "deployment/shop", cwd=hub.folder)).code == 0


async def test_describe_layers_regions_and_version(hub):
    await hub.ask("POST", DEPLOYMENTS + "?why=because", manifest())
    held = await hub.store.get(deployment("shop").key)
    await hub.store.write(set_status(held, ready=False, observed=1))
    described, as_json, layers, floors, regions, roads, version = await asyncio.gather(
        transom("describe", "deployment", "shop", cwd=hub.folder),
        transom("describe", "deployment", "shop", "-o", "json", cwd=hub.folder),
        transom("layers", "-o", "json", cwd=hub.folder),
        transom("layers", cwd=hub.folder),
        transom("regions", cwd=hub.folder),
        transom("regions", "-o", "json", cwd=hub.folder),
        transom("version", "-o", "json", cwd=hub.folder),
    )
    for said in ("deployment/shop", "app: shop", "Ready   False", "because"):
        assert said in described.out
    assert as_json.json["resource"]["metadata"]["name"] == "shop"
    assert len(as_json.json["history"]) == 1, "a status is no change of what was declared"
    assert {item["kind"]: item["layer"] for item in layers.json}["Instance"] == 2
    assert "RegionalDeployment" in floors.out
    assert regions.out.splitlines()[1].split()[:5] == ["eu", "production", "yes", "0", "0"]
    assert roads.json[0]["region"] == "eu"
    assert version.json == {"client": __version__, "hub": __version__}


@contextlib.asynccontextmanager
async def running(hub, *arguments):
    """`transom` while it runs."""
    process = await asyncio.create_subprocess_exec(
        TRANSOM,
        *arguments,
        cwd=hub.folder,
        env=environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line(process):
    return (await process.stdout.readline()).decode()
