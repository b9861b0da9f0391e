"""`transom auth`: the real command against a served API."""

import stat

import pytest

from access_parts import binding
from api_parts import KEY, served
from cli_here import transom
from hub_parts import put
from tls_parts import say_where
from transom.model.names import Key


@pytest.fixture
async def hub(tmp_path):
    """A served API, and a folder from which the command line finds it."""
    async with served(tmp_path / "hub") as api:
        say_where(tmp_path, api.address, KEY)
        api.folder = tmp_path
        yield api


async def test_a_key_from_its_making_to_its_end(hub):
    made = await transom("auth", "create-key", "ci", "--expires", "1d", "--save", "ci.key", cwd=hub.folder)
    assert (made.code, made.out) == (0, ""), made.err
    file = hub.folder / "ci.key"
    key = file.read_text().strip()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert key not in made.err
    held = await hub.store.get(Key("HubKey", "", "ci"))
    assert key not in str(held)
    assert held.spec["expiresAt"]
    await hub.store.write(put(binding("b", "acme", "key:ci", role="viewer")))

    async def asked(*words):
        return await transom("auth", *words, "--key-file", "ci.key", cwd=hub.folder)

    assert (await asked("whoami")).out.split() == ["key:ci", "system:authenticated"]
    may = await asked("can-i", "get", "deployment/shop", "-n", "acme")
    assert (may.code, may.out) == (0, "yes\n")
    may = await asked("can-i", "create", "deployments", "-n", "acme")
    assert (may.code, may.out) == (1, "no\n")
    again = await transom("auth", "create-key", "ci", "--save", "again.key", cwd=hub.folder)
    assert again.code != 0
    assert not (hub.folder / "again.key").exists(), "a key that is worth nothing is not kept"
    assert (await transom("auth", "revoke-key", "ci", cwd=hub.folder)).code == 0
    assert (await asked("whoami")).code != 0
