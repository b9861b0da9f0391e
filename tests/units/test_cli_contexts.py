"""`transom contexts`, and contexts in `transom regions`: the real command against a served API where it
writes resources, and against a hub that says what it is told to where it asks.
"""

import asyncio
import contextlib
import json
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from api_parts import KEY, served
from cli_here import transom
from tls_parts import TRUST, say_where
from transom.catalog.api_key.kind import API_KEY
from transom.cli.contexts import contexts_command
from transom.client.hub import ApiError, HubClient
from transom.model.errors import InvalidError, NotFoundError
from transom.model.names import Key
from transom.model.times import read_time
from transom.runtime.clock import SystemClock
from transom.runtime.http import serve

BEAT = {
    "gateway": "eu-1",
    "ready": True,
    "revision": 40,
    "bulkRevision": 30,
    "ageSeconds": 1.5,
    "rows": 100,
    "refused": {},
    "refusedCount": 0,
}
EU = {
    "region": "eu",
    "frozen": False,
    "fastRevision": 40,
    "bulkRevision": 30,
    "gate": 35,
    "soaking": True,
    "verified": True,
    "gateways": [
        BEAT,
        {**BEAT, "gateway": "eu-2", "ready": False, "ageSeconds": 200.0, "rows": 99, "refusedCount": 7}
        | {"refused": {"api_key/ab": "not signed\x1b[2J"}, "workers": {"contexts": "the log is gone"}},
    ],
    "pendingFast": 2,
    "pendingBulk": 3,
    "sweepDifferences": 1,
}
US = {**EU, "region": "us", "soaking": False, "gateways": [BEAT, {**BEAT, "ageSeconds": None}]}
AP = {**EU, "region": "ap", "frozen": True, "gateways": [], "verified": False}
HOLD = {
    "id": "share.api-key.acme",
    "guard": "share",
    "kind": "api_key",
    "tenant": "acme",
    "changes": 4,
    "deletes": 30,
    "of": 100,
    "examples": [f"api_key/{number}" for number in range(5)],
    "since": "2026-01-01T00:00:00Z",
    "content": "00000000000000ab",
}
STATUS = {
    "items": [EU, US, AP, {**AP, "region": "sa", "frozen": False}],
    "holds": [HOLD],
    "refused": [{"subject": "ApiKey/acme/ci", "kind": "api_key", "why": "spec.hash: Field required"}],
}


@pytest.fixture
async def hub(tmp_path):
    """A served API, and a folder from which the command line finds it."""
    async with served(tmp_path / "hub") as api:
        say_where(tmp_path, api.address, KEY)
        api.folder = tmp_path
        yield api


@contextlib.asynccontextmanager
async def told(folder, answers):
    """A hub that gives `answers` by method and path, and remembers what it was asked."""
    asked = []

    async def answer(request: Request) -> JSONResponse:
        assert request.headers["authorization"] == f"Bearer {KEY}"
        body = await request.body()
        what = f"{request.method} {request.url.path}"
        asked.append((what, dict(request.query_params), json.loads(body) if body else None))
        if what not in answers:
            return JSONResponse({"code": 404, "message": f"no {what}"}, 404)
        found = answers[what]
        return JSONResponse(found(request, json.loads(body or b"{}")) if callable(found) else found)

    app = Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST", "PUT", "DELETE"])])
    ports: asyncio.Queue[int] = asyncio.Queue()
    async with asyncio.TaskGroup() as group:
        server = group.create_task(serve(app, "127.0.0.1", 0, tls=TRUST.server, ready=ports.put_nowait))
        try:
            address = f"https://127.0.0.1:{await ports.get()}"
            say_where(folder, address, KEY)
            yield SimpleNamespace(asked=asked, address=address)
        finally:
            server.cancel()


def lines(text):
    return [line.split() for line in text.splitlines()]


# --- what is shown -------------------------------------------------------------------------------------


async def test_status_says_how_far_regions_are_and_what_was_refused(tmp_path):
    async with told(tmp_path, {"GET /hub/contexts": STATUS}):
        table, as_json = await asyncio.gather(
            transom("contexts", "status", cwd=tmp_path),
            transom("contexts", "status", "-o", "json", cwd=tmp_path),
        )
    assert lines(table.out) == [
        ["REGION", "STATE", "AGE", "FAST", "BULK", "PENDING", "GATEWAYS", "ROWS", "REFUSED", "DIFFERENCES"],
        ["eu", "soaking", "3m", "40", "30", "2+3", "1/2", "100", "7", "1"],
        # A gateway that never knew anything has no age, and so has its region.
        ["us", "open", "-", "40", "30", "2+3", "2/2", "100", "0", "1"],
        ["ap", "frozen", "-", "40", "30", "2+3", "0/0", "0", "0", "1"],
        ["sa", "filling", "-", "40", "30", "2+3", "0/0", "0", "0", "1"],
    ]
    assert table.err.splitlines() == [
        "ApiKey/acme/ci: no good api_key context, the last good one stays: spec.hash: Field required",
        r"gateway eu-2 of eu refused api_key/ab: not signed\x1b[2J",
        "gateway eu-2 of eu: contexts: the log is gone",
        "1 held back by guards: see `transom contexts holds`",
    ]
    assert as_json.json == STATUS


async def test_diff_of_one_region_and_of_all(tmp_path):
    change = {"key": "route/acme/shop", "change": "add", "lane": "bulk", "revision": 7, "tenant": "acme"}
    rest = {"key": "x/1", "change": "delete", "lane": "fast", "revision": 8, "tenant": ""}

    def diff(request, _body):
        eu = {"items": [change, rest], "more": True, "held": 0}
        return eu if request.query_params["region"] == "eu" else {"items": [], "more": False}

    answers = {"GET /hub/contexts": {**STATUS, "items": [EU, US]}, "GET /hub/contexts/diff": diff}
    async with told(tmp_path, answers) as asked:
        one, every, none = await asyncio.gather(
            transom("contexts", "diff", "eu", cwd=tmp_path),
            transom("contexts", "diff", "-o", "json", cwd=tmp_path),
            transom("contexts", "diff", "us", cwd=tmp_path),
        )
    assert lines(one.out) == [
        ["REGION", "CHANGE", "KEY", "TENANT", "LANE", "REVISION"],
        ["eu", "add", "route/acme/shop", "acme", "bulk", "7"],
        ["eu", "delete", "x/1", "-", "fast", "8"],
    ]
    assert one.err == "eu: there are more than these\n"
    assert every.json == [
        {"region": "eu", "items": [change, rest], "more": True, "held": 0},
        {"region": "us", "items": [], "more": False},
    ]
    assert (none.out, none.err) == ("", "nothing waits to go out\n")
    assert len(asked.asked) == 1 + 3 + 1


async def test_diff_says_how_much_is_held_back(tmp_path):
    answers = {"GET /hub/contexts/diff": {"items": [], "more": False, "held": 37}}
    async with told(tmp_path, answers):
        held = await transom("contexts", "diff", "eu", cwd=tmp_path)
    assert (held.code, held.out) == (0, "")
    assert held.err.splitlines() == [
        "nothing waits to go out but what is held back",
        "eu: 37 rows are held back by guards: see `transom contexts holds`",
    ]


async def test_holds(tmp_path):
    async with told(tmp_path, {"GET /hub/contexts": STATUS}):
        table, as_json = await asyncio.gather(
            transom("contexts", "holds", cwd=tmp_path),
            transom("contexts", "holds", "-o", "json", cwd=tmp_path),
        )
    head, row = lines(table.out)
    assert head == ["HOLD", "GUARD", "KIND", "TENANT", "CHANGES", "DELETES", "OF", "SINCE", "EXAMPLES"]
    assert row[:7] == ["share.api-key.acme", "share", "api_key", "acme", "4", "30", "100"]
    assert row[-4:] == ["api_key/0,", "api_key/1,", "api_key/2,", "…"]
    assert as_json.json == [HOLD]
    soak = {**HOLD, "id": "soak", "kind": "", "tenant": "", "since": None, "examples": ["tried in eu"]}
    async with told(tmp_path, {"GET /hub/contexts": {**STATUS, "holds": [soak]}}):
        table = await transom("contexts", "holds", cwd=tmp_path)
    assert lines(table.out)[1] == ["soak", "share", "-", "-", "4", "30", "100", "-", "tried", "in", "eu"]
    async with told(tmp_path, {"GET /hub/contexts": {**STATUS, "holds": []}}):
        none = await transom("contexts", "holds", cwd=tmp_path)
    assert (none.code, none.out, none.err) == (0, "", "nothing is held back\n")


async def test_regions_say_how_old_their_contexts_are(tmp_path):
    road = {"region": "eu", "environment": "test", "reachable": True, "down_lag": 0, "up_lag": 0}
    road |= {"knows_age_seconds": 1.0, "last_sweep_age_seconds": 60.0}
    known = {**road, "context_age_seconds": 125.0, "gateways": EU["gateways"]}
    earlier = {**road, "region": "us"}
    empty = {**road, "region": "ap", "context_age_seconds": None, "gateways": []}
    async with told(tmp_path, {"GET /hub/regions": {"items": [known, earlier, empty]}}):
        table = await transom("regions", cwd=tmp_path)
    assert lines(table.out)[1:] == [
        ["eu", "test", "yes", "0", "0", "1s", "2m", "1/2", "1m", "-"],
        ["us", "test", "yes", "0", "0", "1s", "-", "-", "1m", "-"],
        ["ap", "test", "yes", "0", "0", "1s", "-", "-", "1m", "-"],
    ]
    assert "KNOWS AGE   CONTEXT AGE   GATEWAYS   SWEPT   PROBLEMS" in table.out


async def test_regions_say_each_cause_once(tmp_path):
    away = "UnreachableError: cannot reach the log at http://127.0.0.1:1: connection refused"
    silent = "silent since 2023-11-14T22:13:20Z, forgotten 10 minutes after that"
    problems = {
        "publish to eu": away,
        "region": "not heard of for 9 s; its status is unknown",
        "mirror from eu": away,
        "contexts to eu": "UnreachableError: log http://127.0.0.1:1 did not answer within 10 s",
        "gateway a": silent,
        "gateway b": silent,
    }
    road = {"region": "eu", "environment": "test", "reachable": False, "problems": problems}
    async with told(tmp_path, {"GET /hub/regions": {"items": [road]}}):
        table = await transom("regions", cwd=tmp_path)
    assert table.out.splitlines()[1].endswith(
        "   cannot reach the log at http://127.0.0.1:1: connection refused (2 roads wait)"
        "; region: not heard of for 9 s; its status is unknown"
        "; contexts to eu: log http://127.0.0.1:1 did not answer within 10 s"
        f"; gateway a, gateway b: {silent}"
    )


# --- freeze and resume ---------------------------------------------------------------------------------


async def test_a_region_is_frozen_and_resumed_with_a_reason_in_the_history(hub):
    key = Key("ContextFreeze", "", "eu")
    done = await transom("contexts", "freeze", "eu", "--why", "bad values", cwd=hub.folder)
    assert (done.code, done.out.split(";")[0]) == (0, "region/eu is frozen")
    assert (await hub.store.get(key)).spec == {"reason": "bad values"}
    assert (await transom("contexts", "freeze", "eu", "--why", "worse", cwd=hub.folder)).code == 0
    resumed = await transom("contexts", "resume", "eu", "--why", "mended", cwd=hub.folder)
    assert (resumed.code, resumed.out) == (0, "region/eu is resumed\n")
    with pytest.raises(NotFoundError):
        await hub.store.get(key)
    history = await transom("history", "contextfreeze/eu", "-o", "json", cwd=hub.folder)
    assert [(each["event"], each["why"]) for each in history.json] == [
        ("DELETED", "mended"),
        ("MODIFIED", "worse"),
        ("ADDED", "bad values"),
    ]
    again = await transom("contexts", "resume", "eu", cwd=hub.folder)
    assert (again.code, "region 'eu' is not frozen" in again.err) == (1, True)


async def test_a_region_that_does_not_exist_is_not_frozen(hub):
    refused = await transom("contexts", "freeze", "mars", "--why", "far", cwd=hub.folder)
    assert (refused.code, "Region 'mars' does not exist" in refused.err) == (1, True)


# --- allow ---------------------------------------------------------------------------------------------


async def test_what_is_allowed_is_what_was_held_when_it_was_looked_at(tmp_path):
    path = "/apis/transom.dev/v1/contextoverrides"
    answers = {"GET /hub/contexts": STATUS, f"POST {path}": lambda _request, body: body}
    async with told(tmp_path, answers) as asked:
        done = await transom("contexts", "allow", HOLD["id"], "--why", "a clean-up", cwd=tmp_path)
    assert done.code == 0, done.err
    _, query, body = asked.asked[-1]
    assert query == {"why": "a clean-up"}
    assert body["metadata"] == {"name": "share.api-key.acme"}
    assert (body["spec"]["upTo"], body["spec"]["content"]) == (34, HOLD["content"])
    assert done.err == "these rows, and none if others are held by then\n"
    assert done.out == f"share.api-key.acme: up to 34 rows may pass until {body['spec']['until']}\n"


async def test_what_is_not_held_is_allowed_only_with_a_number(tmp_path):
    async with told(tmp_path, {"GET /hub/contexts": STATUS}) as asked:
        unknown = await transom("contexts", "allow", "share.route", "--why", "x", cwd=tmp_path)
    assert (unknown.code, "nothing is held back as 'share.route'" in unknown.err) == (1, True)
    assert [what for what, _, _ in asked.asked] == ["GET /hub/contexts"]


async def test_an_override_lasts_for_a_while_and_can_be_given_again(hub):
    key = Key("ContextOverride", "", "share.route")
    for number, lasts in ((5, "1h"), (9, "2d")):
        options = ("--up-to", str(number), "--for", lasts, "--why", f"for {lasts}")
        begun = SystemClock().wall()
        done = await transom("contexts", "allow", "share.route", *options, cwd=hub.folder)
        assert done.code == 0, done.err
        spec = (await hub.store.get(key)).spec
        assert (spec["upTo"], "content" in spec) == (number, False)
        seconds = read_time(spec["until"]) - begun
        assert seconds == pytest.approx({"1h": 3600, "2d": 172_800}[lasts], abs=60)
    assert [event.why for event in await hub.store.history_of(key, 5)] == ["for 2d", "for 1h"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["allow", "x", "--up-to", "0", "--why", "y"], "--up-to"),
        (["allow", "x", "--for", "0s", "--why", "y"], "--for"),
        (["allow", "x", "--for", "tomorrow", "--why", "y"], "--for"),
        (["allow", "x"], "--why"),
        (["freeze", "eu"], "--why"),
        (["restore", "apikey", "--why", "y"], "--to"),
        (["restore", "apikey", "--to", "0", "--why", "y"], "--to"),
        (["restore", "apikey", "--to", "7"], "--why"),
    ],
)
def test_wrong_usage_is_told(arguments, said):
    refused = CliRunner().invoke(contexts_command, arguments)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert said in refused.stderr


# --- signer --------------------------------------------------------------------------------------------


def test_a_signing_key_is_made_only_when_asked_for_and_never_over_another(tmp_path):
    file = tmp_path / "next.key"

    def signer(*arguments):
        return CliRunner().invoke(contexts_command, ["signer", *arguments])

    mistyped = signer(str(file))
    assert (mistyped.exit_code, mistyped.stdout, file.exists()) == (2, "", False)
    assert "--new" in mistyped.stderr
    made = signer(str(file), "--new")
    assert (made.exit_code, file.stat().st_mode & 0o777) == (0, 0o600)
    assert signer(str(file)).stdout == made.stdout
    before = file.read_bytes()
    again = signer(str(file), "--new").exception
    assert isinstance(again, InvalidError)
    assert "exists already" in str(again)
    assert file.read_bytes() == before
    beneath = signer(str(file / "x"), "--new").exception
    assert isinstance(beneath, InvalidError)


# --- restore -------------------------------------------------------------------------------------------


KINDS = {
    "GET /api": {"items": []},
    "GET /apis": {
        "items": [
            {
                "metadata": {"name": "transom.dev"},
                "versions": [
                    {
                        "version": "v1",
                        "resources": [
                            {
                                "resource": f"{name.lower()}s",
                                "responseKind": {"group": "transom.dev", "version": "v1", "kind": name},
                                "scope": scope,
                                "verbs": ["get"],
                                "shortNames": short,
                            }
                            for name, scope, short in (
                                ("ApiKey", "Namespaced", ["key"]),
                                ("Tenant", "Cluster", []),
                            )
                        ],
                    }
                ],
            }
        ]
    },
}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["apikey", "--name", "ci"], "-n"),
        (["tenant", "-n", "acme"], "belongs to no tenant"),
        (["nope"], "unknown kind 'nope'; there are ApiKey, Tenant"),
    ],
)
async def test_what_cannot_be_restored_is_not_asked_for(tmp_path, arguments, said):
    async with told(tmp_path, KINDS) as asked:
        refused = await transom("contexts", "restore", *arguments, "--to=7", "--why=y", cwd=tmp_path)
        assert {what for what, *_ in asked.asked} == set(KINDS)
    assert (refused.code, refused.out) == (2, "")
    assert said in refused.err


async def test_restore_says_what_it_did_and_what_it_left(tmp_path):
    done = {
        "items": [{"key": "ApiKey/acme/ci", "change": "changed"}],
        "skipped": [{"key": "ApiKey/acme/old", "why": "it was revoked since"}],
    }
    async with told(tmp_path, {**KINDS, "POST /hub/contexts/restore": done}) as asked:
        options = ("--to", "41", "-n", "acme", "--why", "a bad roll-out")
        text = await transom("contexts", "restore", "key", *options, cwd=tmp_path)
        async with HubClient(asked.address, KEY, TRUST.client) as client:
            assert await client.contexts_restore(API_KEY, 41, name="ci", why="x") == done
            with pytest.raises(ApiError):
                await client.contexts()
        await transom("contexts", "restore", "api_key", *options, cwd=tmp_path)
        wanted = [body for what, _, body in asked.asked if what.startswith("POST")]
        assert wanted[-1] == wanted[0], "holds and rows call its context so"
    assert (text.code, text.out) == (0, "ApiKey/acme/ci changed\n")
    assert text.err == "ApiKey/acme/old left as it is: it was revoked since\n"
    assert wanted[0] == {
        "kind": "ApiKey",
        "tenant": "acme",
        "name": "",
        "revision": 41,
        "why": "a bad roll-out",
    }
