"""nginx and Envoy in front, asking a real gateway about every request, configured as the how-tos say.

The load mixes good, unknown, expired, revoked and other tenants' keys: every answer must be the right one,
whatever is asked beside it.
"""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import aiohttp
import pytest
from benchmarks.plant import CATALOG, TENANT, Plant, deployment, manifest

from engines.process import free_ports
from transom.catalog.api_key.kind import API_KEY
from transom.model.api_keys import hash_of, new_api_key
from transom.runtime.randomness import choose_secret

ROOT = Path(__file__).parents[2]
INSTANCE = CATALOG["Instance"]
REQUESTS = 1500
AT_ONCE = 32
WHAT_IS_WHAT = {"good": 200, "none": 401, "garbage": 401, "unknown": 401, "expired": 401, "revoked": 401,
                "other": 404, "narrow": 403}  # fmt: skip


def tool(name):
    """The program's path. On CI it must be there; elsewhere its absence is said, loudly, as a skip."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        assert not os.environ.get("CI"), f"{name} is missing, and CI must have it"
        pytest.skip(f"NO {name.upper()} ON THIS MACHINE: what docs/how-to/{name}.md promises is not tested")
    return found


def from_how_to(name, language):
    return re.search(rf"```{language}\n(.*?)```", (ROOT / f"docs/how-to/{name}.md").read_text(), re.DOTALL)[1]


@contextlib.asynccontextmanager
async def a_region(folder):
    """One region with its gateway, an app called shop, and a key of every sort."""
    plant = Plant(folder, ["eu"], {"a": "process"}, gateways="")
    async with plant.running() as hub:
        await hub.apply(TENANT, manifest("Tenant", {"name": "other"}))
        command = [sys.executable, "-m", "transom.processes.demo_app"]
        app = deployment("shop", ["eu"], command=command, env={"PLANT": str(folder)})
        await hub.apply(CATALOG["Deployment"], app, "acme")
        keys = {
            "good": await a_key(hub, "good"),
            "expired": await a_key(hub, "expired", expiresAt="2020-01-01T00:00:00Z"),
            "revoked": await a_key(hub, "revoked", revoked=True),
            "other": await a_key(hub, "other", tenant="other"),
            "narrow": await a_key(hub, "narrow", scopes=["app:till"]),
            "slow": await a_key(hub, "slow", requestsPerSecond=0.1),
            "unknown": new_api_key(choose_secret),
            "garbage": "tsm_garbage",
            "none": "",
        }
        gateway = f"http://127.0.0.1:{plant.gateways['eu'].port}"
        async with aiohttp.ClientSession() as http:
            await until(http, f"{gateway}/apps/shop/", keys["good"], 200)
            await until(http, f"{gateway}/decide/apps/shop/", keys["other"], 404)
            await until(http, f"{gateway}/decide/apps/shop/", keys["narrow"], 403)
            instance = (await hub.list_all(INSTANCE, "acme")).items[0].status
            yield plant, keys, instance["port"], http


async def a_key(hub, name, tenant="acme", **spec):
    key = new_api_key(choose_secret)
    given = {"hash": hash_of(key.encode()).hex(), **spec}
    await hub.apply(API_KEY, manifest("ApiKey", {"name": name, "namespace": tenant}, given), tenant)
    return key


async def until(http, url, key, status):
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with http.get(url, headers=bearing(key)) as answer:
                    if answer.status == status:
                        return
            await asyncio.sleep(0.05)


def bearing(key):
    return {"X-Api-Key": key} if key else {}


@contextlib.asynccontextmanager
async def running(command, port, folder):
    with (folder / "front.log").open("wb") as output:
        process = subprocess.Popen(  # noqa: ASYNC220
            command, stdout=output, stderr=output, start_new_session=True
        )
    try:
        async with asyncio.timeout(60):
            while True:
                assert process.poll() is None, (folder / "front.log").read_text()[-3000:]
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                await asyncio.sleep(0.05)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def with_ports(text, front, gateway, app):
    for printed, port in (("8080", front), ("8484", gateway), ("9000", app)):
        assert printed in text
        text = text.replace(printed, str(port))
    return text


async def ask(http, url, sort, keys, seen):
    headers = {**bearing(keys[sort]), "X-Transom-Tenant": "forged"}
    async with http.get(url, headers=headers) as answer:
        seen[sort, answer.status] += 1
        if answer.status == 401:
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")


async def under_load(http, url, keys):
    """How often each sort of key got which status."""
    seen = Counter()
    sorts = list(WHAT_IS_WHAT)

    async def client(number):
        for turn in range(REQUESTS // AT_ONCE):
            await ask(http, url, sorts[(number + turn) % len(sorts)], keys, seen)

    async with asyncio.TaskGroup() as group:
        for number in range(AT_ONCE):
            group.create_task(client(number))
    return seen


def expected(seen):
    return {(sort, WHAT_IS_WHAT[sort]) for sort in WHAT_IS_WHAT} == set(seen)


@contextlib.asynccontextmanager
async def nginx(folder, gateway, app):
    front = free_ports(1)
    server = with_ports(from_how_to("nginx", "nginx"), front, gateway, app)
    places = "\n".join(
        f"{what}_temp_path {folder}/{what};" for what in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file = folder / "nginx.conf"
    file.write_text(
        f"daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; worker_processes 1;\n"
        f"events {{ worker_connections 512; }}\nhttp {{ access_log off; {places}\n{server}\n}}\n"
    )
    async with running([tool("nginx"), "-p", str(folder), "-c", str(file)], front, folder):
        yield f"http://127.0.0.1:{front}/"


@contextlib.asynccontextmanager
async def envoy(folder, gateway, app):
    front = free_ports(1)
    file = folder / "envoy.yaml"
    file.write_text(with_ports(from_how_to("envoy", "yaml"), front, gateway, app))
    command = [tool("envoy"), "-c", str(file), "--concurrency", "1", "--disable-hot-restart", "-l", "warning"]
    async with running(command, front, folder):
        yield f"http://127.0.0.1:{front}/apps/shop/"


@pytest.mark.parametrize("front", [nginx, envoy])
async def test_every_answer_is_the_right_one_under_load(front, tmp_path):
    tool(front.__name__)
    async with a_region(tmp_path) as (plant, keys, app, http):
        gateway = plant.gateways["eu"]
        async with front(tmp_path, gateway.port, app) as url:
            await until(http, url, keys["good"], 200)
            seen = await under_load(http, url, keys)
            assert expected(seen), seen
            await until(http, url, keys["slow"], 429)
            async with http.get(url, headers=bearing(keys["slow"])) as answer:
                assert (answer.status, int(answer.headers["Retry-After"]) > 0) == (429, True)
            gateway.kill()
            await until(http, url, keys["good"], 503)
            gone = Counter()
            for sort in WHAT_IS_WHAT:
                await ask(http, url, sort, keys, gone)
            assert {status for _, status in gone} == {503}, gone
            plant.hub.kill()
            gateway.start()
            await until(http, url, keys["good"], 200)
            assert expected(await under_load(http, url, keys))


def test_the_check_can_fail():
    assert not expected(Counter({("good", 503): 1}))
