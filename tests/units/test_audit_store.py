"""The audit of a real store: chained as it is written, exported in pages, whole across what is forgotten."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import delete, select, update
from store_world import (
    OWNER,
    PEOPLE,
    REGION,
    by,
    deployment,
    make,
    open_store,
    people,
    region,
    regional,
    tenant,
)

from hub_parts import merge_patching
from transom.client.audit import signature_check
from transom.hub import store_deleted
from transom.hub.audit import Audit
from transom.hub.changes import applying, deleting, setting_status
from transom.hub.store import Store
from transom.hub.store_audit import Place
from transom.hub.store_schema import counter, history
from transom.hub.undeletion import purge, restore
from transom.model.audit import Verifier
from transom.model.errors import ExpiredError
from transom.model.names import Key
from transom.model.resources import Metadata, Resource, to_json
from transom.runtime.clock import ManualClock, rfc3339
from transom.runtime.signing import new_signer

pytestmark = pytest.mark.usefixtures("each_engine")

SIGNER = new_signer()
ALL = "9999"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Store]:
    opened = await open_store(tmp_path / "hub.db", clock)
    await make(opened, tenant(), tenant("other"), region())
    yield opened
    await opened.close()


def audit_of(store: Store, clock: ManualClock) -> Audit:
    return Audit(store, SIGNER, clock)


async def exported(audit: Audit, since: Place | None = None, tenant: str = "") -> list[bytes]:
    begin = since or await audit.since_beginning()
    whole = b"".join([some async for some in audit.export(begin, tenant)])
    return whole.splitlines(keepends=True)


def read(*exports: list[bytes]) -> Verifier:
    verifier = Verifier(signature_check(SIGNER.public_text))
    for lines in exports:
        for line in lines:
            verifier.feed(line)
    verifier.finish()
    return verifier


def whole(*exports: list[bytes]) -> Verifier:
    verifier = read(*exports)
    assert verifier.findings == []
    return verifier


async def change(store: Store, times: int, name: str = "web") -> None:
    for number in range(times):
        wanted = deployment(name, version=f"{name}{number}")
        await store.write(people(wanted, applying(wanted)))


async def test_what_was_declared_is_in_it_and_reports_are_not(store: Store, clock: ManualClock) -> None:
    (web,) = await make(store, deployment())
    (child,) = await make(store, regional(web))
    await store.write(by(REGION, child.key, setting_status(child.key, child.metadata.uid, {"ready": 1})))
    await store.write(by(PEOPLE, web.key, deleting(web.key)))
    lines = await exported(audit_of(store, clock))
    assert whole(lines).changes == 6
    told = [msgspec.json.decode(line)["change"] for line in lines[1:-1]]
    assert [(each["revision"], each["event"], each["kind"], each["who"]) for each in told] == [
        (1, "ADDED", "Tenant", "lina"),
        (2, "ADDED", "Tenant", "lina"),
        (3, "ADDED", "Region", "lina"),
        (4, "ADDED", "Deployment", "lina"),
        (5, "ADDED", "RegionalDeployment", OWNER.who),
        (7, "MODIFIED", "Deployment", "lina"),
    ]
    last = told[3]
    assert (last["tenant"], last["name"], last["uid"], last["why"]) == (
        "acme",
        "web",
        web.metadata.uid,
        "because",
    )
    assert last["object"] == msgspec.to_builtins(web)


async def test_two_exports_agree_and_one_may_go_on_where_another_ended(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transom.hub.audit._PAGE", 4)
    await change(store, 11)
    audit = audit_of(store, clock)
    first = await exported(audit)
    assert (await exported(audit))[:-1] == first[:-1]
    ended = whole(first)
    await change(store, 3, "api")
    more = await exported(audit, await audit.since(ended.revision))
    assert whole(first, more).changes == ended.changes + 3
    assert whole(await exported(audit)).hash == whole(first, more).hash


async def test_a_tenant_is_shown_what_is_its_and_the_chain_still_holds(
    store: Store, clock: ManualClock
) -> None:
    await make(store, deployment(), deployment("theirs", tenant="other"))
    lines = await exported(audit_of(store, clock), tenant="other")
    assert whole(lines).changes == 5
    assert [b'"change"' in line for line in lines[1:-1]] == [False, True, False, False, True]
    assert b"acme" not in b"".join(lines)


async def test_what_was_forgotten_leaves_a_hash_that_old_exports_join_on_to(
    store: Store, clock: ManualClock
) -> None:
    audit = audit_of(store, clock)
    await change(store, 3)
    old = await exported(audit)
    clock.advance(100)
    limit = rfc3339(clock.wall())
    await change(store, 2, "api")
    await store.prune_history(limit, limit)
    kept = await exported(audit)
    assert whole(old, kept).changes == 6 + 2
    begin = await audit.since_beginning()
    assert (begin.revision, begin.hash.hex()) == (6, read(old).hash)
    with pytest.raises(ExpiredError, match="up to revision 6 are forgotten"):
        await audit.since(5)
    await store.prune_history(ALL, ALL)
    nothing = await exported(audit)
    assert whole(old, kept, nothing).changes == 8
    await change(store, 1, "new")
    assert whole(old, kept, nothing, await exported(audit)).changes == 9


async def test_what_is_forgotten_has_no_gap_where_the_clock_was_set_back(
    store: Store, clock: ManualClock
) -> None:
    audit = audit_of(store, clock)
    clock.advance(1000)
    await change(store, 1)
    limit = rfc3339(clock.wall())
    clock.advance(-500)
    await change(store, 2, "api")
    await store.prune_history(limit, limit)
    assert whole(await exported(audit)).changes == 3
    assert (await audit.since_beginning()).revision == 3


async def test_forgetting_in_the_middle_of_an_export_leaves_it_without_an_end(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transom.hub.audit._PAGE", 2)
    audit = audit_of(store, clock)
    await change(store, 5)
    lines = audit.export(await audit.since_beginning())
    given = [await anext(lines), await anext(lines)]
    await store.prune_history(ALL, ALL)
    with pytest.raises(ExpiredError):
        await anext(lines)
    (finding,) = read(b"".join(given).splitlines(keepends=True)).findings
    assert "the end is missing" in str(finding)


async def test_since_a_time(store: Store, clock: ManualClock) -> None:
    audit = audit_of(store, clock)
    clock.advance(10)
    begun = clock.wall()
    await change(store, 2)
    assert (await audit.since_time(0)).revision == 0
    assert (await audit.since_time(begun)).revision == 3
    assert whole(await exported(audit, await audit.since_time(begun))).changes == 2
    assert whole(await exported(audit, await audit.since_time(begun + 1))).changes == 0


@pytest.mark.parametrize("wrong", ["who", "gone", "cut"])
async def test_a_store_that_somebody_edited_shows_it(store: Store, clock: ManualClock, wrong: str) -> None:
    await change(store, 5)
    audit = audit_of(store, clock)
    kept = whole(await exported(audit))
    edits = {
        "who": update(history).where(history.c.revision == 5).values(who="nobody"),
        "gone": delete(history).where(history.c.revision == 5),
        "cut": delete(history).where(history.c.revision > 5),
    }
    await store.within(lambda db: db.execute(edits[wrong]))
    again = read(await exported(audit))
    if wrong == "cut":
        assert again.findings == []
        assert again.hash != kept.hash, "only who kept a head can tell"
    else:
        (finding,) = again.findings
        assert finding.revision == (5 if wrong == "who" else 6)


async def test_the_chain_goes_on_when_the_store_is_opened_again(
    tmp_path: Path, store: Store, clock: ManualClock
) -> None:
    del store
    again = await open_store(tmp_path / "hub.db", clock)
    await change(again, 2)
    audit = audit_of(again, clock)
    ended = whole(await exported(audit))
    stored = await again.read(lambda db: db.execute(select(counter.c.audit_hash)).scalar_one())
    assert stored.hex() == ended.hash
    await again.close()


async def test_a_head_of_any_revision_that_is_kept(store: Store, clock: ManualClock) -> None:
    await change(store, 3)
    audit = audit_of(store, clock)
    lines = await exported(audit)
    for number in range(1, 7):
        head = msgspec.json.decode((await audit.head(number)).head)
        assert (head["revision"], head["hash"]) == (number, msgspec.json.decode(lines[number])["hash"])
    now = await audit.head()
    signature_check(SIGNER.public_text)(now)
    assert msgspec.json.decode(now.head)["revision"] == 6
    assert msgspec.json.decode((await audit.head(10**15)).head)["revision"] == 6


async def test_one_large_change_does_not_make_a_page_of_many(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transom.hub.store_audit._PAGE_BYTES_MAX", 1)
    await change(store, 3)
    audit = audit_of(store, clock)
    pages = [some async for some in audit.export(await audit.since_beginning())]
    assert len(pages) == 6 + 3, "one a change, an empty one at the end, and the first and last line"


async def test_metadata_is_declared_too(store: Store, clock: ManualClock) -> None:
    (made,) = await make(store, Resource("Tenant", Metadata("third")))
    key = Key("Tenant", "", "third")
    await store.write(by(PEOPLE, key, merge_patching(key, {"metadata": {"labels": {"a": "b"}}})))
    assert made.metadata.generation == 1
    assert whole(await exported(audit_of(store, clock))).changes == 5


# --- what was deleted, came back, or was purged --------------------------------------------------------


def cluster(name: str, **spec: str) -> Resource:
    spec = {"bootstrapServers": ["kafka.example:9092"], **spec}
    return Resource("KafkaCluster", Metadata(name, "acme"), spec=spec)


async def remove(store: Store, *resources: Resource) -> None:
    for resource in resources:
        assert await store.write(people(resource, deleting(resource.key))) is None


def told(lines: list[bytes]) -> list[Any]:
    return [msgspec.json.decode(line) for line in lines[1:-1]]


async def test_what_is_tried_out_is_not_in_it_and_what_is_brought_back_is(
    store: Store, clock: ManualClock
) -> None:
    (made,) = await make(store, cluster("mine"))
    await remove(store, made)
    before = await exported(audit_of(store, clock))
    await restore(store, made.key, PEOPLE, "trying", rehearsed=True)
    trying = people(made, deleting(Key("Tenant", "", "other")))
    await store.write(replace(trying, key=Key("Tenant", "", "other")), rehearsed=True)
    await store.write_all([people(cluster("new"))], rehearsed=True)
    assert (await exported(audit_of(store, clock)))[:-1] == before[:-1]
    await restore(store, made.key, PEOPLE, "a mistake")
    after = await exported(audit_of(store, clock))
    assert whole(after).changes == whole(before).changes + 1
    last = told(after)[-1]["change"]
    assert (last["event"], last["why"], last["uid"]) == ("ADDED", "a mistake", made.metadata.uid)


async def test_what_was_purged_leaves_its_digest_and_who_did_it(store: Store, clock: ManualClock) -> None:
    audit = audit_of(store, clock)
    mine, other = await make(store, cluster("mine"), cluster("other"))
    await remove(store, mine, other)
    old = await exported(audit)
    await purge(store, mine.key, PEOPLE, "it was secret", clock)
    new = await exported(audit)
    assert (whole(old).changes, whole(new).changes) == (7, 8)
    marks = [(each["revision"], each.get("purged", 0), "change" in each) for each in told(new)]
    assert marks[3:] == [(4, 8, False), (5, 0, True), (6, 8, False), (7, 0, True), (8, 0, True)]
    assert [each["hash"] for each in told(new)[:-1]] == [each["hash"] for each in told(old)]
    record = told(new)[-1]["change"]
    assert (record["event"], record["name"], record["who"], record["why"]) == (
        "PURGED",
        "mine",
        "lina",
        "it was secret",
    )
    head = msgspec.json.decode(new[-1])["head"]
    assert (head["changes"], head["shown"], head["purged"]) == (8, 6, 2)
    more = await exported(audit, await audit.since(7))
    assert whole(old, more).changes == 8
    theirs = await exported(audit, tenant="other")
    assert whole(theirs).changes == 8
    assert not any("purged" in each for each in told(theirs)), "what others purged is theirs to know"


async def test_what_was_purged_twice_still_has_both_records(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for why in ("first", "second"):
        (made,) = await make(store, cluster("mine"))
        await remove(store, made)
        await purge(store, made.key, PEOPLE, why, clock)
        # Another release may write the same in another way: a record stays as it was written.
        monkeypatch.setattr(store_deleted, "to_json", lambda resource: b" " + to_json(resource))
    lines = await exported(audit_of(store, clock))
    assert whole(lines).changes == 9
    assert [each.get("purged") for each in told(lines)[3:]] == [6, 6, None, 9, 9, None]
    assert [told(lines)[at]["change"]["why"] for at in (5, 8)] == ["first", "second"]


@pytest.mark.parametrize("column", ["audit_digest", "audit_hash"])
async def test_a_purged_change_cannot_be_made_another(store: Store, clock: ManualClock, column: str) -> None:
    (made,) = await make(store, cluster("mine"))
    await remove(store, made)
    await purge(store, made.key, PEOPLE, "", clock)
    edit = update(history).where(history.c.revision == 4).values({column: bytes(32)})
    await store.within(lambda db: db.execute(edit))
    found = read(await exported(audit_of(store, clock))).findings
    assert found[0].revision == 4


async def test_a_change_cannot_be_hidden_by_calling_another_a_purge(store: Store, clock: ManualClock) -> None:
    await change(store, 2)
    edit = update(history).where(history.c.revision == 5).values(event="PURGED")
    await store.within(lambda db: db.execute(edit))
    (finding,) = read(await exported(audit_of(store, clock))).findings
    assert finding.revision == 5


async def test_what_can_be_brought_back_is_kept_and_all_that_came_after_it(
    store: Store, clock: ManualClock
) -> None:
    audit = audit_of(store, clock)
    await change(store, 1)
    (mine,) = await make(store, cluster("mine"))
    await remove(store, mine)
    await change(store, 2, "api")
    old = await exported(audit)
    await store.prune_history(ALL, ALL)
    assert (await audit.since_beginning()).revision == 4
    assert whole(await exported(audit)).changes == 4
    assert whole(await exported(audit)).hash == whole(old).hash
    await purge(store, mine.key, PEOPLE, "", clock)
    await store.prune_history(ALL, ALL)
    assert (await audit.since_beginning()).revision == 9
    assert whole(await exported(audit)).changes == 0
