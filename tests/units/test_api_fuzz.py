"""Spoilt manifests of every kind, through every verb that writes: refused with a word, or sound.

What test_api_bad_input.py names one by one, and what Schemathesis makes of OpenAPI (tests/clients), is left
to them: this holds what must be so whatever is sent. A refusal is a Status that says what and where, and
nothing of the inside; nothing is stored after it. What was accepted is read back as it was answered, changes
nothing when it is written again, and whoever reads the store can read it.
"""

import asyncio
import contextlib
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from api_parts import Answer, Api, served
from manifest_damage import JUNK, SOUND, damaged, places, texts
from transom.catalog.contexts import shipped_contexts
from transom.catalog.kinds import shipped
from transom.model.errors import InvalidError
from transom.model.kinds import PEOPLE, Kind
from transom.model.resources import JsonObject, Resource, from_json
from transom.model.schemas import schema_of

CATALOG = shipped()
KINDS = {f"{kind.name}.{kind.group}" if kind.view else kind.name: kind for kind in CATALOG.faces}
WHOLE = ("application/json", "application/yaml")
MERGE, JSON_PATCH, APPLY = (
    f"application/{name}" for name in ("merge-patch+json", "json-patch+json", "apply-patch+yaml")
)
INSIDE = ("Traceback", 'File "', ".py", "pydantic", "msgspec", "sqlalchemy", "sqlite", "at 0x", "NoneType")
QUERIES = ("", "", "", "fieldValidation=Ignore", "fieldValidation=Warn", "dryRun=All")
ODD_MEDIA = (
    "",
    "text/plain",
    "application/json; charset=utf-16",
    "application/vnd.kubernetes.protobuf",
    "application/strategic-merge-patch+json",
    "x",
)
OPERATIONS = ("add", "replace", "remove", "copy", "move", "test", "steal")
OF_THE_WHOLE = ("operation ", "no object any more", "the object would be", "nested deeper", "64 bits")
"""What a mistake says that is in no one field: that of a patch that cannot be done, or of its outcome."""
EXAMPLES = 30


class World:
    """A served API on a loop of its own, and the store's file beside it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, api: Api, path: Any) -> None:
        self._loop = loop
        self._api = api
        self._path = path
        self.count = 0
        self.held: dict[str, str] = {}

    def ask(self, method: str, path: str, body: Any = None, media: str = "application/json") -> Answer:
        asked = self._api.ask(method, path, body, media=media)
        return asyncio.run_coroutine_threadsafe(asked, self._loop).result(60)

    def stored(self) -> list[Any]:
        """All that a write could have left, as SQLite has it."""
        sums = (
            "SELECT count(*), max(revision), total(length(body)) FROM resources",
            "SELECT count(*), max(revision), total(length(body)) FROM history",
            "SELECT count(*), max(revision) FROM outbox",
            "SELECT revision, audit_hash FROM counter",
        )
        with contextlib.closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)) as db:
            return [db.execute(query).fetchall() for query in sums]

    def body_of(self, kind: Kind, name: str) -> bytes:
        query = "SELECT body FROM resources WHERE kind = ? AND namespace = ? AND name = ? AND NOT deleted"
        with contextlib.closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)) as db:
            row = db.execute(query, (kind.stored, "acme" if kind.namespaced else "", name)).fetchone()
        return bytes(row[0])

    def new_name(self, kind: Kind) -> str:
        self.count += 1
        if kind.name == "ContextFreeze":  # called after what it freezes
            return "us" if self.held.get(kind.api_version + kind.name) else "ap"
        return f"fuzz{self.count}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("fuzz")
    loop, ready, ended = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    apis: list[Api] = []

    async def serving() -> None:
        async with served(folder) as api:
            apis.append(api)
            ready.set()
            await ended.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=[serving()])
    thread.start()
    assert ready.wait(60)
    yield World(loop, apis[0], folder / "store.db")
    loop.call_soon_threadsafe(ended.set)
    thread.join(60)
    loop.close()


def root_of(kind: Kind) -> str:
    group = f"/apis/{kind.group}" if kind.group else "/api"
    return f"{group}/{kind.version}{'/namespaces/acme' if kind.namespaced else ''}/{kind.plural}"


def sound(kind: Kind, name: str) -> JsonObject:
    envelope = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": {"name": name}}
    return {**envelope, **SOUND[kind.group, kind.name]}


def base_of(world: World, kind: Kind) -> str:
    """The name of a resource of `kind` that is as its sound manifest says."""
    name = world.held.get(kind.api_version + kind.name, "")
    if name and world.ask("PUT", f"{root_of(kind)}/{name}", sound(kind, name)).code == 200:
        return name
    name = world.new_name(kind)
    answer = world.ask("POST", root_of(kind), sound(kind, name))
    assert answer.code == (201 if kind.owner == PEOPLE else 403), answer.body
    world.held[kind.api_version + kind.name] = name
    return name


def forget(world: World, kind: Kind, name: str) -> None:
    """Have what was made by the way go, as far as people can."""
    loose = {"metadata": {"finalizers": None, "labels": None}}
    world.ask("PATCH", f"{root_of(kind)}/{name}", loose, MERGE)
    assert world.ask("DELETE", f"{root_of(kind)}/{name}").code in (200, 202)


def check_refusal(answer: Answer) -> None:
    status = answer.body
    assert 400 <= answer.code < 500, (answer.code, status)
    assert isinstance(status, dict), (answer.code, status)
    assert (status["kind"], status["apiVersion"], status["status"]) == ("Status", "v1", "Failure")
    assert status["code"] == answer.code
    assert status["reason"]
    assert status["message"].strip()
    for word in INSIDE:
        assert word not in str(status), status
    if answer.code == 422:
        causes = status["details"]["causes"]
        assert causes
        for cause in causes:
            assert cause.get("field") or any(word in cause["message"] for word in OF_THE_WHOLE), status
            assert cause["reason"], status
            assert cause["message"].strip(), status


def check_accepted(world: World, kind: Kind, path: str, accepted: JsonObject) -> None:
    """What was answered is there, is sound, and is as it is whoever looks."""
    answer = world.ask("GET", path)
    assert (answer.code, answer.body) == (200, accepted)
    before = world.stored()
    for method, body, media in (
        ("PUT", answer.body, WHOLE[0]),
        ("PATCH", {}, MERGE),
        ("PATCH", [], JSON_PATCH),
    ):
        again = world.ask(method, path, body, media)
        assert (again.code, again.body) == (200, accepted), method
    assert world.stored() == before, "writing back what was read is no change"
    for shown in () if kind.view or kind.fleeting else ("history", "diff?from=1"):
        assert world.ask("GET", f"{path}/{shown}").code == 200
    found = world.ask("GET", root_of(kind)).body["items"]
    assert accepted["metadata"]["name"] in [each["metadata"]["name"] for each in found]
    check_readers(kind, from_json(world.body_of(kind, accepted["metadata"]["name"])))


def check_readers(kind: Kind, held: Resource) -> None:
    """Everybody who is handed what is stored can make something of it."""
    stored = CATALOG[kind.stored]
    assert stored.validate(held).spec == held.spec
    assert kind.view is None or kind.view.read(kind.shown(held), held) == held
    for column in kind.columns:
        assert isinstance(column.show(kind.shown(held)), str)
    for asked in (stored.references, stored.limits):
        assert asked is None or list(asked(held)) is not None
    tenant = held if stored.name == "Tenant" else None
    for context in shipped_contexts():
        if context.subject == stored.name:
            assert context.key_of(held)
            assert context.regions(held, tenant)
            with contextlib.suppress(InvalidError):  # as it is told to whoever asks for contexts
                context.encode(context.build(held, tenant))


@st.composite
def requests(draw: st.DrawFn, kind: Kind, name: str, new: str) -> tuple[str, str, bytes, str]:
    """A request that writes `name`, or makes `new`: its method, path, body and content type."""
    verb = draw(st.sampled_from(["create", "create", "replace", "merge", "json", "apply", "apply new"]))
    schema = schema_of(kind)
    one = new if verb in ("create", "apply new") else name
    value = draw(damaged(sound(kind, one), schema))
    query = draw(st.sampled_from(QUERIES))
    path = root_of(kind) if verb == "create" else f"{root_of(kind)}/{one}"
    if verb == "create":
        method, media = "POST", draw(st.sampled_from(WHOLE))
    elif verb == "replace":
        method, media = "PUT", draw(st.sampled_from(WHOLE))
    elif verb == "merge":
        method, media = "PATCH", MERGE
    elif verb == "json":
        method, media, value = "PATCH", JSON_PATCH, draw(operations(value))
    else:
        method, media, query = "PATCH", APPLY, f"fieldManager=fuzz&force=true&{query}"
    if kind.status is not None and verb != "create" and draw(st.integers(0, 7)) == 0:
        path += "/status"
    as_yaml = "yaml" in media and draw(st.booleans() if media == APPLY else st.just(value=True))
    body = draw(texts(value, as_yaml=as_yaml))
    if draw(st.integers(0, 19)) == 0:
        media = draw(st.sampled_from(ODD_MEDIA))
    return method, f"{path}?{query}".rstrip("?"), body, media


@st.composite
def operations(draw: st.DrawFn, value: Any) -> list[Any]:
    """A JSON patch of places that are there, or nearly."""
    pointers = [
        "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)
        for path in places(value)
    ]
    pointer = st.sampled_from([*pointers, "/spec/-", "/metadata/labels/a~1b", "/nothing/there", "x", "~2"])
    operation = st.fixed_dictionaries(
        {
            "op": st.sampled_from(OPERATIONS),
            "path": pointer,
        },
        optional={"value": JUNK | st.just(value), "from": pointer},
    )
    return draw(st.lists(draw(st.sampled_from([operation, operation | JUNK])), max_size=3))


OUTCOMES: dict[str, Counter[str]] = {}


@pytest.mark.parametrize("called", KINDS)
def test_whatever_is_sent_is_refused_with_a_word_or_is_sound(world: World, called: str) -> None:
    kind = KINDS[called]
    outcomes = OUTCOMES.setdefault(called, Counter())

    @settings(
        max_examples=EXAMPLES,
        database=None,
        derandomize=True,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def one(data: st.DataObject) -> None:
        name, new = base_of(world, kind), world.new_name(kind)
        method, path, body, media = data.draw(requests(kind, name, new))
        before = world.stored()
        answer = world.ask(method, path, body, media)
        if answer.code >= 300:
            outcomes["refused"] += 1
            check_refusal(answer)
            assert world.stored() == before, "nothing is stored after a refusal"
            return
        outcomes["accepted"] += 1
        assert answer.body["kind"] == kind.name
        if "dryRun=All" in path:
            assert world.stored() == before, "a dry run keeps nothing"
            return
        is_new = answer.body["metadata"]["name"] != name
        where = f"{root_of(kind)}/{answer.body['metadata']['name']}"
        check_accepted(world, kind, where, answer.body)
        if is_new:
            forget(world, kind, answer.body["metadata"]["name"])

    one()
    assert outcomes["refused"] > 5, outcomes
    assert outcomes["accepted"] > (2 if kind.owner == PEOPLE else -1), outcomes
