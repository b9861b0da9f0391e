"""The kind of docs/how-to/your-own-kind.md, and its example, do what the page says."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from api_parts import KEY, served
from cli_here import refused, runner
from tls_parts import say_where
from transom.catalog.kinds import shipped
from transom.model.own import OwnKinds

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "your-own-kind.md").read_text()


@pytest.fixture
def notes(tmp_path, monkeypatch):
    """The page's module, named as the page names it; the stores of this test have its kind."""
    (tmp_path / "notes.py").write_text(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1])
    (named,) = re.findall(r'kind_modules = \["(.*)"\]', PAGE)
    own = OwnKinds([named], tmp_path)
    monkeypatch.setattr("hub_parts.shipped", lambda: shipped(own.kinds))
    yield own
    del sys.modules["notes"]


async def test_a_declared_kind_is_served_and_its_status_written_by_whoever_watches_it(notes, tmp_path):
    (path,) = re.findall(r"`(/apis/acme\S+)`", PAGE)
    path = path.replace("TENANT", "acme")
    note = {"apiVersion": "acme.example/v1", "kind": "Note", "metadata": {"name": "a"}}
    async with served(tmp_path) as api:
        wrong = await api.ask("POST", path, {**note, "spec": {"urgent": 1}})
        assert (wrong.code, len(wrong.body["details"]["causes"])) == (422, 2)
        made = await api.ask("POST", path, {**note, "spec": {"text": "Mind the gap"}})
        assert (made.code, made.body["spec"]) == (201, {"text": "Mind the gap", "urgent": False})
        merge = "application/merge-patch+json"
        held = {"metadata": {"finalizers": ["acme.example/screen"]}}
        assert (await api.ask("PATCH", f"{path}/a", held, media=merge)).code == 200
        patch = {"status": {"shown": True}}
        written = await api.ask("PATCH", f"{path}/a/status", patch, media=merge)
        assert written.body["status"] == {"shown": True}
        assert (await api.ask("DELETE", f"{path}/a")).body["metadata"]["deletionTimestamp"]
        free = {"metadata": {"finalizers": None}}
        assert (await api.ask("PATCH", f"{path}/a", free, media=merge)).code == 200
        assert (await api.ask("GET", f"{path}/a")).code == 404
        groups = (await api.ask("GET", "/apis")).body["groups"]
        assert "acme.example" in {group["name"] for group in groups}


async def test_its_commands_know_the_kinds_of_the_hub(tmp_path, monkeypatch, capsys):
    up, apply = re.findall(r"^    transom (.*)", PAGE, re.MULTILINE)
    own = OwnKinds([str(ROOT / shlex.split(up)[-1])])
    monkeypatch.setattr("hub_parts.shipped", lambda: shipped(own.kinds))
    transom = runner(monkeypatch, capsys)
    async with served(tmp_path / "hub") as api:
        say_where(tmp_path, api.address, KEY)
        monkeypatch.chdir(tmp_path)
        (tmp_path / "examples").symlink_to(ROOT / "examples")
        applied = await transom(*shlex.split(apply))
        assert (applied.code, applied.out) == (0, "tenant/acme unchanged\ndatabase/shop created\n")
        assert (await transom(*shlex.split(apply))).out.endswith("database/shop unchanged\n")
        head, row = (await transom("get", "db")).out.splitlines()
        columns = [column.title for column in own.kinds[0].columns]
        assert head.split() == ["NAME", *" ".join(columns).upper().split(), "AGE"]
        assert row.startswith("shop ")
        for code, *verb in (
            (0, "describe", "databases", "shop"),
            (0, "history", "database/shop"),
            (0, "diff", "db/shop@1"),
            (0, "auth", "can-i", "create", "databases.acme.example"),
            (4, "wait", "database/shop", "--for=condition=Ready", "--timeout=100ms"),
            (0, "delete", "Database", "shop"),
            (1, "restore", "database/shop"),
            (1, "purge", "db/shop", "--why=gone"),
        ):
            told = await transom(*verb)
            assert told.code == code, (verb, told)
            assert not code or "database" in told.err.lower(), told
        wrong = (ROOT / "examples" / "01-own-kind" / "shop.yaml").read_text().replace("acme.example/", "x/")
        (tmp_path / "wrong.yaml").write_text(wrong)
        refused(await transom("apply", "-f", "wrong.yaml"), 1, "'Database' of 'x/v1'", "acme.example/v1")
        refused(await transom("get", "dbs"), 2, "unknown kind 'dbs'", "Database")


def test_the_page_names_files_that_are_there():
    for name in re.findall(r"examples/[\w/.-]+", PAGE):
        assert (ROOT / name).exists(), name
