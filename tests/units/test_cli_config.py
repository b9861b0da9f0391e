"""Finding the hub, starting single parts, exit codes, and what --help costs."""

import asyncio
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cli_here import transom
from transom.client.config import find
from transom.model.errors import InvalidError
from transom.runtime.secret_files import write_private

LOADED = "import sys, transom.cli.main; print(*sorted(m for m in sys.modules if m.startswith(%r)))"


async def test_help_tells_the_exit_codes(tmp_path):
    told = await transom("--help", cwd=tmp_path)
    assert told.code == 0
    for said in ("up ", "wait ", "Exit codes", "4  the time was up"):
        assert said in told.out


def test_help_loads_no_verb():
    script = LOADED % (("transom", "pydantic", "aiohttp", "asyncio"),)
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == ["transom", "transom.cli", "transom.cli.exit_codes", "transom.cli.main"]


WRONG = (
    ["nonsense"],
    ["get"],
    ["get", "widgets"],
    ["apply"],
    ["up", "--port", "0"],
    ["up", "--regions", "eu,Eu"],
    ["get", "tenants"],
    ["get", "tenants", "--hub", "http://127.0.0.1:1", "--key-file", "k"],
    ["get", "tenants", "--hub", "https://127.0.0.1:1", "--key-file", "missing.key"],
    ["get", "tenants", "--hub", "https://127.0.0.1:1", "--key-file", "open.key"],
    ["get", "tenants", "--hub", "https://127.0.0.1:1", "--key-file", "good.key", "--ca-file", "missing.pem"],
    ["get", "tenants", "--hub", "https://127.0.0.1:1", "--key-file", "good.key", "--ca-file", "open.key"],
    ["hub", "-c", "broken.toml"],
    ["hub", "-c", "missing.toml"],
    ["region", "eu", "-c", "broken.toml"],
)


async def test_wrong_usage_and_wrong_configuration_are_exit_code_2(tmp_path):
    (tmp_path / "open.key").write_text("secret")
    (tmp_path / "open.key").chmod(0o644)
    write_private(tmp_path / "good.key", "secret")
    (tmp_path / "broken.toml").write_text('prot = 1\nport = "x"\nlog_level = "loud"\n')
    before = sorted(tmp_path.rglob("*"))
    for arguments, ran in zip(
        WRONG, await asyncio.gather(*(transom(*arguments, cwd=tmp_path) for arguments in WRONG)), strict=True
    ):
        assert ran.code == 2, (arguments, ran)
        assert "rror: " in ran.err
        assert "Traceback" not in ran.err
        if "broken.toml" in arguments:
            for field in ("prot", "port", "log_level"):
                assert f"\n  {field} " in ran.err
    assert sorted(tmp_path.rglob("*")) == before, "nothing was made"


async def test_a_hub_that_does_not_answer_is_exit_code_3(tmp_path):
    write_private(tmp_path / "key", "secret")
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    said = {"TRANSOM_HUB": f"https://127.0.0.1:{port}", "TRANSOM_KEY_FILE": "key"}
    verbs = (["get", "tenants"], ["wait", "--for=delete", "tenant/a"], ["version"])
    for ran in await asyncio.gather(*(transom(*verb, cwd=tmp_path, **said) for verb in verbs)):
        assert ran.code == 3, ran
        assert ran.err == f"error: cannot reach the hub at https://127.0.0.1:{port}: connection refused\n"
        assert "secret" not in ran.err


def test_options_come_before_the_environment_and_that_before_the_file(tmp_path, monkeypatch):
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    (tmp_path / ".transom").mkdir()
    text = 'hub = "https://127.0.0.1:1"\nkey_file = "k"\nca_file = "ca.pem"\n'
    (tmp_path / ".transom" / "client.toml").write_text(text)
    for name in ("TRANSOM_HUB", "TRANSOM_KEY_FILE", "TRANSOM_CA_FILE"):
        monkeypatch.delenv(name, raising=False)
    found = find(folder=folder)
    home = tmp_path / ".transom"
    assert (found.hub, found.key_file, found.ca_file) == (
        "https://127.0.0.1:1",
        home / "k",
        home / "ca.pem",
    )
    monkeypatch.setenv("TRANSOM_HUB", "https://hub.example.com/")
    assert find(folder=folder).hub == "https://hub.example.com"
    assert find(folder=folder).ca_file is None, "it was said of another hub"
    monkeypatch.setenv("TRANSOM_CA_FILE", "of-the-environment.pem")
    assert find(folder=folder).ca_file == Path("of-the-environment.pem")
    assert find(ca_file="given.pem", folder=folder).ca_file == Path("given.pem")
    assert find(hub="https://localhost:2", folder=folder).hub == "https://localhost:2"
    for wrong in ("http://127.0.0.1:8480", "https://", "127.0.0.1:8480", "ftp://a"):
        with pytest.raises(InvalidError, match="expected https://HOST:PORT"):
            find(hub=wrong, folder=folder)
    monkeypatch.delenv("TRANSOM_HUB")
    (tmp_path / ".transom" / "client.toml").unlink()
    with pytest.raises(InvalidError, match="transom up"):
        find(folder=folder)
