"""The commands of docs/how-to/access.md do what the page says, and its issuer's people get what it binds."""

import re
import shlex
import stat
import tomllib
from pathlib import Path

import pytest
import yaml

from cli_here import hub_here, refused, runner
from hub_parts import CLOCK
from transom.catalog.kinds import shipped
from transom.hub.access.rights import Decision, Rights
from transom.hub.access.rules import Asked
from transom.hub.access.tokens import caller_of_claims
from transom.hub.config import HubConfig
from transom.model.resources import Metadata, Resource

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "access.md").read_text(encoding="utf-8")
BINDING = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1]


@pytest.fixture
async def hub(tmp_path, monkeypatch):
    async with hub_here(tmp_path, monkeypatch) as api:
        yield api


async def test_every_command_of_the_page_works(hub, tmp_path, monkeypatch, capsys):
    transom = runner(monkeypatch, capsys)
    (named,) = re.findall(r"transom apply -f (\S+)", PAGE)
    (tmp_path / named).write_text(BINDING)
    (block,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    said = []
    for line in block.splitlines():
        settings, _, verb = line.partition("transom ")
        with monkeypatch.context() as environment:
            for setting in settings.split():
                environment.setenv(*setting.split("="))
            told = await transom(*shlex.split(verb, comments=True))
        assert told.code == 0, (line, told)
        said.append(told)
    made, _, who, may, _ = said
    assert (made.out, stat.S_IMODE((tmp_path / "ci.key").stat().st_mode)) == ("", 0o600)
    assert who.out.split() == ["key:ci", "system:authenticated"]
    assert may.out == "yes\n"
    monkeypatch.setenv("TRANSOM_KEY_FILE", "ci.key")
    told = await transom("auth", "whoami")
    refused(told, 1, f"{hub.address} does not take the key in ci.key", "--key-file")


def test_the_people_of_its_issuer_have_what_its_binding_gives():
    settings = tomllib.loads(re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)[1])
    (issuer,) = HubConfig(**settings).oidc
    binding = yaml.safe_load(BINDING)
    rights = Rights(shipped())
    rights.put(Resource(binding["kind"], Metadata(**binding["metadata"]), spec=binding["spec"]))
    now = CLOCK.wall()
    claims = {"iss": issuer.issuer, "aud": "transom", "exp": now + 60}
    people = {
        "by address": {"email": "ada@example.com"},
        "by group": {"email": "bob@example.com", "groups": ["acme-devs"]},
        "a stranger": {"email": "eve@example.com", "groups": ["other-devs"]},
    }
    may = {
        who: rights.decide(
            caller_of_claims(claims | person, issuer, "127.0.0.1", now),
            Asked("create", "transom.dev", "deployments", tenant="acme"),
        )
        for who, person in people.items()
    }
    assert may == {
        "by address": Decision.ALLOWED,
        "by group": Decision.ALLOWED,
        "a stranger": Decision.HIDDEN,
    }
