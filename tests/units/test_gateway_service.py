"""A gateway put together: its configuration, what it says of itself, and what no worker of it can end."""

import asyncio
import contextlib
import os
import re
import socket
from pathlib import Path

import aiohttp
import msgspec
import pytest
from tests.context_parts import a_key, canaries, key_record
from tests.gateway_parts import free_port

from transom.catalog.contexts import shipped_contexts
from transom.logs.protocol import TopicPartition
from transom.logs.records import to_message
from transom.logs.remote import RemoteLog
from transom.logs.sqlite import SqliteLog
from transom.model.errors import (
    Advice,
    ExistsError,
    ForbiddenError,
    InvalidError,
    UnreachableError,
    advice_for,
    members_of,
)
from transom.model.roads import CONTEXTS, CONTEXTS_BULK, DESIRED, GATEWAYS
from transom.processes.gateway import run_gateway
from transom.region.config import RegionConfig, ZoneConfig
from transom.region.gateway.config import GatewayConfig
from transom.region.gateway.service import GatewayWorkerError, _kept_going, running_gateway
from transom.region.own_log import LogLostError
from transom.region.service import running_region
from transom.region.topics import TOPICS
from transom.runtime.clock import SystemClock
from transom.runtime.config import load
from transom.runtime.randomness import Randomness
from transom.runtime.secret_files import hash_secret
from transom.runtime.signing import new_signer
from transom.tables.seals import seal

CLOCK = SystemClock()


def a_file(folder, text):
    file = folder / "gateway.toml"
    file.write_text(text)
    return file


def test_a_log_is_a_file_beside_the_configuration_or_an_address(tmp_path) -> None:
    paths = 'log = "log.db"\ndata = "gateway"\naccess_log = "access.log"\n'
    text = f'region = "eu"\ntrusted_signers = ["x"]\n{paths}'
    config = load(a_file(tmp_path, text), GatewayConfig)
    assert config.log == tmp_path / "log.db"
    assert (config.data, config.access_log) == (tmp_path / "gateway", tmp_path / "access.log")
    remote = text.replace('"log.db"', '"https://log.example:8481"\nlog_key_file = "gateway.key"')
    assert load(a_file(tmp_path, remote), GatewayConfig).log == "https://log.example:8481"


def test_every_mistake_is_reported_at_once(tmp_path) -> None:
    text = 'region = "Not A Label"\nlog = "log.db"\nport = 99999\ntrusted_signers = []\ncolour = "blue"\n'
    with pytest.raises(InvalidError) as caught:
        load(a_file(tmp_path, text), GatewayConfig)
    assert {problem.path for problem in caught.value.problems} == {
        "region",
        "port",
        "trusted_signers",
        "colour",
    }


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('log = "https://log.example:8481"', "log_key_file"),
        ('log = "log.db"\nlog_key_file = "gateway.key"', "log_key_file"),
        ('log = "log.db"\ntls_cert = "cert.pem"', "belong together"),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path, text: str, what: str) -> None:
    with pytest.raises(InvalidError, match=what):
        load(a_file(tmp_path, f'region = "eu"\ntrusted_signers = ["x"]\n{text}\n'), GatewayConfig)


async def test_a_file_of_another_region_is_refused(tmp_path) -> None:
    file = a_file(tmp_path, 'region = "eu"\nlog = "log.db"\ntrusted_signers = ["x"]\n')
    with pytest.raises(InvalidError, match="gateway of region 'eu', not 'us'"):
        await run_gateway(file, "us")
    with pytest.raises(InvalidError, match="trusted signers"):
        await run_gateway(file, "eu")


@contextlib.asynccontextmanager
async def a_gateway(folder, signer, seed=1, **settings):
    given = {"region": "eu", "log": folder / "log.db", "data": folder / "data", "port": 0} | settings
    config = GatewayConfig(**given, trusted_signers=[signer.public_text])
    ports: list[int] = []
    async with running_gateway(config, shipped_contexts(), CLOCK, Randomness(seed), ports.append) as gateway:
        while not ports:
            await CLOCK.sleep(0.01)  # the server's own task
        yield gateway


async def test_its_metrics_have_an_address_of_their_own_and_its_health_shows_no_file(tmp_path) -> None:
    port = free_port()
    async with (
        a_gateway(tmp_path, new_signer(), metrics_port=port) as gateway,
        aiohttp.ClientSession() as http,
    ):
        while not any(state.error for state in gateway.workers().values()):
            await CLOCK.sleep(0.01)  # there is no log, and a worker says so
        async with http.get(f"{gateway.address()}/metrics") as answer:
            assert answer.status == 404
        async with http.get(f"{gateway.address()}/readyz") as answer:
            body = await answer.text()
        assert answer.status == 503
        assert '"region log"' in body
        assert str(tmp_path) not in body
        shown = ""
        async with asyncio.timeout(10):
            while not shown:
                with contextlib.suppress(aiohttp.ClientConnectionError):
                    async with http.get(f"http://127.0.0.1:{port}/metrics") as answer:
                        shown = await answer.text()
                await CLOCK.sleep(0.01)  # the page's own task
        assert "transom_gateway_requests_total" in shown
        async with http.get(f"http://127.0.0.1:{port}/decide") as answer:
            assert answer.status == 404
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with pytest.raises(InvalidError, match="in use"):
            async with a_gateway(tmp_path, new_signer(), metrics_port=port):
                pass


async def test_what_it_knows_is_told_on_demand(tmp_path) -> None:
    signer, key = new_signer(), a_key()
    log = await SqliteLog.open(tmp_path / "log.db", CLOCK)
    await log.create(TOPICS)
    fast, bulk = canaries(7, CLOCK.wall() - 60)
    for topic, records in ((CONTEXTS_BULK, [key_record(key, 3), bulk]), (CONTEXTS, [fast])):
        headers = seal(records, "eu", signer)
        await log.append([to_message(topic, *pair) for pair in zip(records, headers, strict=True)])
    async with a_gateway(tmp_path, signer) as gateway, aiohttp.ClientSession() as http:
        while not gateway.ready():
            await gateway.contexts.moved.above(gateway.contexts.moved.value)
        asked = {"x-api-key": key.decode(), "x-transom-knows": "1"}
        async with http.get(f"{gateway.address()}/decide/", headers=asked) as answer:
            assert answer.status == 200
            said = dict(part.split("=") for part in answer.headers["transom-knows"].split("; "))
        age = float(said.pop("age"))
        assert 60 <= age < 180
        assert said == {"epoch": "1", "revision": "7", "bulk-revision": "7", "complete": "1"}
        async with http.get(f"{gateway.address()}/readyz") as answer:
            body = msgspec.json.decode(await answer.read())
        assert (answer.status, body["ready"], body["revision"], body["wrong"]) == (200, True, 7, [])
        with pytest.raises(ExistsError, match="in use by process"):
            async with a_gateway(tmp_path, signer):
                pass
        gateway.namesake = lambda: True
        assert (gateway.ready(), gateway.health()[0]) == (False, 503)
    await log.close()


async def test_the_second_of_one_name_is_not_ready_and_says_why(tmp_path) -> None:
    signer = new_signer()
    log = await SqliteLog.open(tmp_path / "log.db", CLOCK)
    await log.create(TOPICS)
    settings = {"heartbeat_seconds": 0.1}
    async with (
        a_gateway(tmp_path, signer, **settings) as first,
        a_gateway(tmp_path, signer, seed=2, **settings, data=tmp_path / "other") as second,
        asyncio.timeout(20),
    ):
        while not (first.namesake() or second.namesake()):
            await CLOCK.sleep(0.01)  # until one hears the other
        # Begun within one second, either may be the later one.
        later, other = (second, first) if second.namesake() else (first, second)
        said = [why for why in later.health()[1]["wrong"] if "name" in why]
        assert said == ["another gateway of this region has the same name: give one of them another"]
        assert other.namesake() is False
    await log.close()


@pytest.mark.parametrize("error", [KeyError("a bug"), InvalidError("x", []), MemoryError()])
async def test_whatever_a_worker_meets_it_tries_again(error: Exception) -> None:
    async def failing() -> None:
        raise error

    with pytest.raises(GatewayWorkerError, match=type(error).__name__) as caught:
        await _kept_going(failing)()
    assert advice_for(caught.value) is Advice.RETRY


async def test_what_may_succeed_later_stays_what_it_is() -> None:
    async def away() -> None:
        raise UnreachableError("gone")

    with pytest.raises(UnreachableError):
        await _kept_going(away)()


async def test_a_regions_log_server_lets_its_gateways_in_for_their_topics_alone(tmp_path) -> None:
    key = "a gateway's key"
    config = RegionConfig(
        name="eu",
        data=tmp_path,
        port=0,
        zones=[ZoneConfig(name="a", driver="null")],
        link_key_hash="0" * 64,
        gateway_key_hash=hash_secret(key),
    )
    ports: list[int] = []
    async with running_region(config, {}, {}, CLOCK, Randomness(1), ports.append):
        while not ports:
            await CLOCK.sleep(0.01)  # the server's own task
        log = RemoteLog(f"http://127.0.0.1:{ports[0]}", key)
        try:
            assert await log.read({TopicPartition(CONTEXTS, 0): 0, TopicPartition(CONTEXTS_BULK, 0): 0}) == []
            await log.append([to_message(GATEWAYS, key_record(a_key(), 1))])
            assert len(await log.read({TopicPartition(GATEWAYS, 0): 0})) == 1
            with pytest.raises(ForbiddenError):
                await log.read({TopicPartition(DESIRED, 0): 0})
            with pytest.raises(ForbiddenError):
                await log.append([to_message(CONTEXTS, key_record(a_key(), 1))])
        finally:
            await log.close()


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"log": "https://log.example:8481", "log_key_file": "absent"}, "absent.* cannot be read"),
        ({"log": "https://log.example:8481", "log_key_file": "open"}, "chmod 600"),
        ({"log": "http://log.example:8481", "log_key_file": "private"}, "use https"),
        (
            {"log": "https://log.example:8481", "log_key_file": "private", "log_trust": "absent"},
            "log_trust: cannot be read",
        ),
        ({"access_log": "absent/access.log"}, "access_log: .*No such file"),
        ({"access_log": "."}, "access_log: .*Is a directory"),
        ({"data": "private/x"}, "configuration of gateway gateway is invalid: data: folder .*private/x"),
    ],
)
async def test_what_cannot_heal_by_itself_ends_it_before_it_serves(tmp_path, settings, what: str) -> None:
    for name, mode in (("private", 0o600), ("open", 0o644)):
        (tmp_path / name).write_text("a key")
        (tmp_path / name).chmod(mode)
    paths = {name: value if "://" in value else tmp_path / value for name, value in settings.items()}
    with pytest.raises(InvalidError, match=what):
        async with a_gateway(tmp_path, new_signer(), **paths):
            pass


async def test_an_access_log_whose_disk_is_full_keeps_no_gateway_from_serving(tmp_path) -> None:
    full = tmp_path / "pipe"
    os.mkfifo(full)  # which nobody reads: it cannot be opened now, and waits for nobody
    async with a_gateway(tmp_path, new_signer(), access_log=full) as gateway:
        assert gateway.port


async def test_a_region_whose_log_was_taken_away_ends_and_says_so(tmp_path) -> None:
    config = RegionConfig(
        name="eu", data=tmp_path, port=0, zones=[ZoneConfig(name="a", driver="null")], link_key_hash="0" * 64
    )

    async def taken_away() -> None:
        ports: list[int] = []
        async with running_region(config, {}, {}, CLOCK, Randomness(1), ports.append):
            while not ports:
                await CLOCK.sleep(0.01)
            (tmp_path / "log.db").rename(tmp_path / "elsewhere")
            await CLOCK.sleep(3600)

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.timeout(60):
            await taken_away()
    (error,) = members_of(caught.value)
    assert isinstance(error, LogLostError)
    assert f"log {tmp_path / 'log.db'} was removed or replaced" in str(error)


def test_the_configuration_in_the_reference_is_one(tmp_path) -> None:
    page = (Path(__file__).parents[2] / "docs/reference/gateway.md").read_text()
    text = re.search(r"```toml\n(.*?)```", page, re.DOTALL)[1]
    config = load(a_file(tmp_path, text), GatewayConfig)
    given = GatewayConfig(region="eu", log=tmp_path / "log.db", trusted_signers=["BASE64"])
    named = {"data": tmp_path / "gateway", "access_log": tmp_path / "gateway" / "access.log"}
    assert config == given.model_copy(update=named), "what it shows are the defaults"
