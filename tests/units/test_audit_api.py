"""`/hub/audit`, `transom audit` and quotas as clients meet them; and the commands of the how-to pages."""

import re
from pathlib import Path

import msgspec
import pytest
import structlog
from sqlalchemy import delete, update

from api_parts import DEPLOYMENTS, KEY, ROOT, SIGNER, manifest, served
from cli_here import runner
from hub_parts import CLOCK, deployment, put
from tls_parts import say_where
from transom.client.audit import verified
from transom.hub.audit import Audit
from transom.hub.self_check import check
from transom.hub.store_schema import history, resources
from transom.runtime.telemetry import exposition

PAGES = Path(__file__).parents[2] / "docs" / "how-to"
COUNT = "count/deployments.transom.dev"
QUOTAS = f"{ROOT}/namespaces/acme/quotas"


@pytest.fixture
async def api(tmp_path):
    """A served API, and a folder from which the command line finds it."""
    async with served(tmp_path / "hub") as hub:
        hub.folder = tmp_path
        say_where(tmp_path, hub.address, KEY)
        yield hub


@pytest.fixture
def run(api, monkeypatch, capsys):
    monkeypatch.chdir(api.folder)
    return runner(monkeypatch, capsys)


def quota(name="team", **hard):
    meta = {"name": name}
    return {
        "apiVersion": "transom.dev/v1",
        "kind": "Quota",
        "metadata": meta,
        "spec": {"hard": hard or {COUNT: 1}},
    }


async def changed(api, times, name="shop"):
    for number in range(times):
        await api.store.write(put(deployment(name, version=f"{number}")))


async def test_what_is_beyond_a_quota_is_forbidden_in_kubernetes_words(api):
    made = await api.ask("POST", QUOTAS, quota())
    assert (made.code, made.body["status"]) == (201, {"hard": {COUNT: 1}, "used": {COUNT: 0}})
    assert (await api.ask("POST", DEPLOYMENTS, manifest("a"))).code == 201
    refused = await api.ask("POST", DEPLOYMENTS, manifest("b"))
    assert (refused.code, refused.body["reason"]) == (403, "Forbidden")
    assert refused.body["message"] == (
        f'deployments.transom.dev "b" is forbidden: exceeded quota: team, requested: {COUNT}=1, '
        f"used: {COUNT}=1, limited: {COUNT}=1"
    )
    held = await api.ask("GET", f"{QUOTAS}/team")
    assert held.body["status"]["used"] == {COUNT: 1}
    wrong = await api.ask("POST", QUOTAS, quota("other", pods=1))
    assert wrong.code == 422
    assert "must be count/PLURAL.GROUP" in wrong.body["message"]


async def test_the_hourly_check_is_loud_about_a_sum_and_logs_the_head(api):
    await api.store.write(put(deployment()))
    await api.ask("POST", QUOTAS, quota())
    audit = Audit(api.store, SIGNER, CLOCK)
    with structlog.testing.capture_logs() as told:
        await check(api.store, audit)
    (head,) = told
    assert (head["log_level"], msgspec.json.decode(head["head"])["revision"]) == ("info", 6)
    assert (b"transom_quota_differences 0.0" in exposition()) is True
    await api.store.within(lambda db: db.execute(delete(resources).where(resources.c.kind == "Deployment")))
    with structlog.testing.capture_logs() as told:
        await check(api.store, audit)
    loud = told[0]
    assert (loud["log_level"], loud["quota"], loud["held"], loud["counted"]) == (
        "error",
        "Quota/acme/team",
        1,
        0,
    )
    assert b"transom_quota_differences 1.0" in exposition()


async def test_the_audit_is_lines_that_end_with_a_signed_head(api):
    await changed(api, 3)
    answered = await api.ask("GET", "/hub/audit")
    assert (answered.code, answered.headers["Content-Type"].split(";")[0]) == (200, "application/x-ndjson")
    verifier = await verified(answered.body.splitlines(keepends=True), signer=SIGNER.public_text)
    assert (verifier.findings, verifier.changes) == ([], 7)
    head = await api.ask("GET", "/hub/audit/head")
    assert head.body["head"]["hash"] == verifier.hash
    assert head.body["publicKey"] == SIGNER.public_text
    one = await api.ask("GET", "/hub/audit?since=6")
    assert len(one.body.splitlines()) == 3


@pytest.mark.parametrize(
    ("query", "code", "said"),
    [
        ("since=yesterday", 400, "is no revision, and 'yesterday' must be a time"),
        ("since=-1", 400, "is no revision"),
        ("since=99999999999999999999", 400, "whole number"),
        ("tenant=A%2FB", 400, "DNS label"),
        ("until=3", 400, "until"),
        ("since=2", 410, "are forgotten"),
    ],
)
async def test_what_cannot_be_exported_is_said_before_anything_is_sent(api, query, code, said):
    await api.store.prune_history("9999", "9999")
    refused = await api.ask("GET", f"/hub/audit?{query}")
    assert (refused.code, said in refused.body["message"]) == (code, True), refused.body


async def test_nobody_gets_it_without_the_key(api):
    for path in ("/hub/audit", "/hub/audit/head"):
        assert (await api.ask("GET", path, key="")).code == 401


async def test_the_hub_tells_which_line_of_a_chain_written_anew_it_never_wrote(api, monkeypatch):
    monkeypatch.setattr("transom.client.audit._STRETCH", 3)
    await changed(api, 9)
    lines = (await api.ask("GET", "/hub/audit")).body.splitlines(keepends=True)
    async with api.client() as hub:
        assert (await verified(lines, hub=hub)).findings == []
    # As somebody would who has the store and the key: change a row, and all hashes after it.
    await api.store.within(
        lambda db: db.execute(update(history).where(history.c.revision > 8).values(audit_hash=b"\1" * 32))
    )
    async with api.client() as hub:
        found = (await verified(lines, hub=hub)).findings
    assert [(each.line, each.revision) for each in found] == [(10, 9)]
    assert "is not what the hub has" in found[0].wrong
    await api.store.prune_history("9999", "9999")
    async with api.client() as hub:
        found = (await verified(lines, hub=hub)).findings
    assert [each.revision for each in found] == [13], (
        "what is forgotten cannot be compared, its last hash can"
    )


# --- the command line, and the pages -------------------------------------------------------------------


async def test_export_and_verify(api, run):
    await changed(api, 3)
    exported = await run("audit", "export")
    assert exported.code == 0, exported
    assert "7 changes up to revision 7" in exported.err
    file = api.folder / "audit.jsonl"
    file.write_text(exported.out)
    whole = await run("audit", "verify", str(file))
    assert whole.code == 0
    assert "is whole: 7 changes up to revision 7" in whole.out
    assert "nothing was compared" in whole.err
    head = msgspec.json.decode(exported.out.splitlines()[-1])["head"]["hash"]
    options = ("--head", head, "--signer", SIGNER.public_text, "--against-hub")
    whole = await run("audit", "verify", str(file), *options)
    assert (whole.code, whole.err) == (0, "")
    await changed(api, 2, "other")
    more = await run("audit", "export", "--since", "7")
    file.write_text(exported.out + more.out)
    assert (await run("audit", "verify", str(file), "--against-hub")).code == 0
    old = await run("audit", "verify", str(file), "--head", head)
    assert old.code == 1
    assert f"not at {head}: it was cut off, or rewritten" in old.err


async def test_what_was_touched_is_named_and_ends_with_1(api, run):
    await changed(api, 3)
    exported = (await run("audit", "export")).out
    file = api.folder / "audit.jsonl"
    file.write_text(exported.replace('"who":"ada"', '"who":"bob"', 1))
    touched = await run("audit", "verify", str(file))
    assert touched.code == 1
    assert "line 2 (revision 1): was changed: it is not what its digest is of" in touched.err
    assert "is not as the hub wrote it" in touched.err
    await api.store.within(
        lambda db: db.execute(update(history).where(history.c.revision == 5).values(who="bob"))
    )
    edited = await run("audit", "export")
    assert edited.code == 1
    assert "(revision 5)" in edited.err


async def test_the_commands_of_the_audits_page(api, run):
    await changed(api, 2)
    commands = re.findall(r"^\$ transom (audit .*?)$", (PAGES / "audit.md").read_text(), re.MULTILINE)
    assert len(commands) >= 4
    told = {"HEAD": "", "KEY": SIGNER.public_text, "REVISION": "6", "TENANT": "acme"}
    for command in commands:
        words, _, file = re.sub(r"\s+", " ", command).partition(">")
        arguments = [told.get(word, word) for word in words.split()]
        ran = await run(*arguments)
        assert ran.code == 0, (command, ran)
        if file:
            path = api.folder / file.strip("> ").strip()
            path.write_text((path.read_text() if file.startswith(">") else "") + ran.out)
            last = msgspec.json.decode(ran.out.splitlines()[-1])["head"]
            told["HEAD"], told["REVISION"] = last["hash"], str(last["revision"])


async def test_the_quota_of_its_page_holds_as_the_page_says(api, run):
    page = (PAGES / "quotas.md").read_text()
    (api.folder / "quota.yaml").write_text(re.search(r"```yaml\n(.*?)```", page, re.DOTALL)[1])
    made = await run("apply", "-f", "quota.yaml")
    assert made.code == 0, made
    shown = await run("get", "quotas", "-n", "acme")
    assert re.search(r"^team-a\b", shown.out, re.MULTILINE)
    for number in range(2):
        await api.store.write(put(deployment(f"d{number}", instances=20)))
    refused = await api.ask("POST", DEPLOYMENTS, manifest("shop", instances=11))
    said = re.search(r"^Error.*?(deployments\.transom\.dev \"shop\" is forbidden: .*?)$", page, re.MULTILINE)[
        1
    ]
    assert refused.body["message"] == said
