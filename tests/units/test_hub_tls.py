"""The hub over TLS: by whom it is certified, for which hosts, and what it refuses before it starts."""

import asyncio
import ssl
from pathlib import Path

import aiohttp
import pytest

from engines.certificates import Authority as Operator
from hub_parts import CLOCK
from transom.catalog.contexts import shipped_contexts
from transom.catalog.deployment.controller import DeploymentController
from transom.catalog.kinds import shipped
from transom.hub.config import HubConfig
from transom.hub.service import running_hub
from transom.model.errors import InvalidError
from transom.runtime.config import load
from transom.runtime.randomness import Randomness


def hub(config: HubConfig, ready=None):
    return running_hub(
        config, shipped(), shipped_contexts([]), [DeploymentController()], CLOCK, Randomness(7), ready=ready
    )


def configured(folder: Path, text: str = "") -> HubConfig:
    file = folder / "hub.toml"
    file.write_text(f'port = 0\ndata = "data"\n{text}\n')
    return load(file, HubConfig)


async def test_it_is_certified_by_its_own_authority_for_all_that_it_is_called(tmp_path: Path):
    config = configured(tmp_path, 'address = "https://hub.example.com:443"')
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    async with hub(config, port.set_result), aiohttp.ClientSession() as http:
        assert config.ca_file == tmp_path / "data" / "ca.pem"
        client = ssl.create_default_context(cafile=config.ca_file)
        for host in ("127.0.0.1", "localhost"):
            async with http.get(f"https://{host}:{await port}/healthz", ssl=client) as answer:
                assert answer.ok
        _, writer = await asyncio.open_connection(
            "127.0.0.1", await port, ssl=client, server_hostname="hub.example.com"
        )
        writer.close()
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await http.get(f"https://127.0.0.1:{await port}/healthz")
    held = (tmp_path / "data" / "authority.pem").read_bytes()
    async with hub(config):
        assert (tmp_path / "data" / "authority.pem").read_bytes() == held, "it is made once"


async def test_the_operators_certificate_replaces_the_authority(tmp_path: Path):
    operator = Operator(tmp_path)
    both = operator.issue("hub")
    config = configured(tmp_path, f'tls_cert = "{both}"\ntls_key = "{both}"\ntrust = "{operator.trust}"')
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    async with hub(config, port.set_result), aiohttp.ClientSession() as http:
        client = ssl.create_default_context(cafile=operator.trust)
        async with http.get(f"https://127.0.0.1:{await port}/healthz", ssl=client) as answer:
            assert answer.ok
    assert config.ca_file == operator.trust
    assert not list((tmp_path / "data").glob("*.pem"))


async def test_a_wrong_certificate_is_told_before_anything_starts(tmp_path: Path):
    both = Operator(tmp_path).issue("hub", ["elsewhere.example.com"])
    brought = f'tls_cert = "{both}"\ntls_key = "{both}"\naddress = "https://hub.example.com:1"'
    with pytest.raises(InvalidError, match=r"does not name 'hub.example.com'"):
        async with hub(configured(tmp_path, brought)):
            pass
    (tmp_path / "data" / "authority.pem").write_text("nonsense")
    (tmp_path / "data" / "authority.pem").chmod(0o600)
    with pytest.raises(InvalidError, match=r"authority.pem.* put the right file back"):
        async with hub(configured(tmp_path)):
            pass
    assert {file.name for file in (tmp_path / "data").iterdir()} == {"owner.lock", "authority.pem"}


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('address = "http://127.0.0.1:1"', "expected https://HOST:PORT"),
        ('address = "https://hub:1/path"', "expected https://HOST:PORT"),
        ('tls_cert = "cert.pem"', "tls_cert and tls_key belong together"),
        ('tls_key = "key.pem"', "tls_cert and tls_key belong together"),
        ('tls_cert = "a"\ntls_key = "b"\ntls_authority = "c"', "give one of them"),
        ('host = "0.0.0.0"', "address is missing"),
        ('host = "::"', "address is missing"),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path: Path, text: str, wrong: str):
    with pytest.raises(InvalidError, match=wrong):
        configured(tmp_path, text)


def test_several_processes_share_one_authority(tmp_path: Path):
    config = configured(tmp_path, 'tls_authority = "shared/authority.pem"')
    assert config.authority_file == tmp_path / "shared" / "authority.pem"
    assert config.ca_file == tmp_path / "shared" / "ca.pem"
