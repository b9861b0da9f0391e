"""What `transom up --demo` shows: a tenant, a small app in every region, and lines to try on them."""

import asyncio
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import yaml

from transom.catalog.api_key.kind import API_KEY
from transom.catalog.deployment.kind import DEPLOYMENT
from transom.catalog.instance.kind import INSTANCE
from transom.catalog.tenant.kind import TENANT
from transom.client.hub import HubClient
from transom.client.waiting import until_condition, wait_for
from transom.model.api_keys import hash_of, new_api_key
from transom.model.resources import API_VERSION, JsonObject
from transom.processes.parts import Part, program
from transom.processes.up_files import Setup, address
from transom.runtime.clock import SystemClock
from transom.runtime.randomness import choose_secret
from transom.runtime.secret_files import read_secret, write_private

_TENANT = "acme"
_APP = "hello"
_INSTANCES = 2
_READY_SECONDS = 60.0
_ASK_SECONDS = 2.0
_LOOK_SECONDS = 0.1


async def show_demo(hub: HubClient, setup: Setup, parts: Sequence[Part]) -> None:
    """Declare the demo in all regions, wait until it is ready, and print what to try."""
    names = list(setup.regions)
    manifests = [_tenant(), _deployment(names)]
    file = setup.folder / f"{_APP}.yaml"
    if not file.exists():
        text = yaml.safe_dump_all(manifests, sort_keys=False)
        await asyncio.to_thread(file.write_text, text, encoding="utf-8")
    # Only what is missing: whoever went on with the demo keeps what they made of it.
    for kind, manifest, tenant in ((TENANT, manifests[0], ""), (DEPLOYMENT, manifests[1], _TENANT)):
        if await hub.find(kind, manifest["metadata"]["name"], tenant) is None:
            await hub.create(kind, manifest, tenant, why="transom up --demo")
    key = _kept_key(setup.folder / "demo.key")
    await _declare_key(hub, key)
    missing = "nothing was heard of it"

    def tell(text: str) -> None:
        nonlocal missing
        missing = text

    print(f"starting {_INSTANCES} instances of {_APP} in each of {', '.join(names)} …", flush=True)
    try:
        async with asyncio.timeout(_READY_SECONDS):
            await wait_for(hub, DEPLOYMENT, _APP, _TENANT, until_condition("Ready"), tell)
            where, pid = await _an_instance(hub)
    except TimeoutError:
        print(f"{_APP} is not ready: {missing}", flush=True)
        return
    gateways = [address(config) for config in setup.gateways.values()]
    async with aiohttp.ClientSession() as http:
        await asyncio.gather(*(_until_served(http, gateway, key) for gateway in gateways))
    print(_what_to_try(setup, parts, key, where, pid), flush=True)


def _kept_key(file: Path) -> str:
    """The demo's API key; made once."""
    if not file.exists():
        write_private(file, new_api_key(choose_secret) + "\n")
    return read_secret(file)


async def _declare_key(hub: HubClient, key: str) -> None:
    """Declare the key's hash at the hub, when it is not there."""
    # Named after its hash: another folder's demo, or a key that was revoked, is another key.
    name = f"demo-{hash_of(key.encode()).hex()[:8]}"
    if await hub.find(API_KEY, name, _TENANT) is None:
        manifest: JsonObject = {
            "apiVersion": API_VERSION,
            "kind": API_KEY.name,
            "metadata": {"name": name, "namespace": _TENANT},
            "spec": {"hash": hash_of(key.encode()).hex()},
        }
        await hub.create(API_KEY, manifest, _TENANT, why="transom up --demo")


async def _until_served(http: aiohttp.ClientSession, gateway: str, key: str) -> None:
    """Wait until a gateway knows the key and has somewhere to send its requests."""
    headers = {"Authorization": f"Bearer {key}"}
    timeout = aiohttp.ClientTimeout(total=_ASK_SECONDS)
    while True:
        try:
            async with http.get(f"{gateway}/apps/{_APP}/", headers=headers, timeout=timeout) as response:
                if response.ok:
                    return
        except (aiohttp.ClientError, TimeoutError):
            pass
        await SystemClock().sleep(_LOOK_SECONDS)


def _tenant() -> JsonObject:
    return {
        "apiVersion": API_VERSION,
        "kind": TENANT.name,
        "metadata": {"name": _TENANT},
        "spec": {"title": "The demo's tenant"},
    }


def _deployment(regions: Sequence[str]) -> JsonObject:
    return {
        "apiVersion": API_VERSION,
        "kind": DEPLOYMENT.name,
        "metadata": {"name": _APP, "namespace": _TENANT},
        "spec": {
            "app": _APP,
            "version": "1",
            "command": [sys.executable, "-m", "transom.processes.demo_app"],
            "instances": _INSTANCES,
            "regions": list(regions),
            "healthCheck": {"kind": "http", "path": "/healthz"},
        },
    }


async def _an_instance(hub: HubClient) -> tuple[str, int]:
    """The address of one instance, and its process, once all that the hub shows answer.

    Right after a start the hub still shows what was before it was stopped: only asking tells.
    """
    async with aiohttp.ClientSession() as http:
        while True:
            shown = [item.status for item in (await hub.list_all(INSTANCE, _TENANT)).items]
            places = [f"http://{s['host']}:{s['port']}/" for s in shown if s["app"] == _APP]
            try:
                pids = [await _pid_at(http, place) for place in places]
            except (aiohttp.ClientError, TimeoutError):
                pids = []
            if pids:
                return places[0], pids[0]
            await SystemClock().sleep(_LOOK_SECONDS)


async def _pid_at(http: aiohttp.ClientSession, place: str) -> int:
    async with http.get(place, timeout=aiohttp.ClientTimeout(total=_ASK_SECONDS)) as response:
        return int((await response.json())["pid"])


def _what_to_try(setup: Setup, parts: Sequence[Part], key: str, where: str, pid: int) -> str:
    t, file = program(), shlex.quote(str(setup.folder / f"{_APP}.yaml"))
    hub, region = parts[0], parts[1]
    calls = "\n".join(
        f'  curl -H "X-Api-Key: $KEY" {address(gateway)}/apps/{_APP}/' for gateway in setup.gateways.values()
    )
    return f"""\
{_APP} is ready. Things to try, in another terminal in this folder:

  {t} get deployments
  {t} get instances
  {t} regions
  curl {where}
  kill -9 {pid}      # an instance: its region starts it again
  sed 's/version: .1./version: "2"/' {file} | {t} apply -f -
  {t} wait --for=condition=Ready deployment/{_APP}
  {t} history deployment/{_APP}

Through each region's gateway, with a key that was made for this demo:

  KEY={key}
{calls}

  kill -9 {hub.pid()}      # the hub: the regions go on without it, the gateways too
  {hub.command_line} &
  kill -9 {region.pid()}      # a region: what it runs goes on, and is taken over by
  {region.command_line} &

Ctrl-C here ends all of it, what it runs included."""
