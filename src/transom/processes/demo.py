"""What `transom up --demo` shows: a tenant, a small app in every region, and lines to try on them."""

import asyncio
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import yaml

from transom.catalog.deployment.kind import DEPLOYMENT
from transom.catalog.instance.kind import INSTANCE
from transom.catalog.tenant.kind import TENANT
from transom.client.hub import HubClient
from transom.client.waiting import until_condition, wait_for
from transom.model.resources import API_VERSION, JsonObject
from transom.processes.parts import Part, program
from transom.runtime.clock import SystemClock

_TENANT = "acme"
_APP = "hello"
_INSTANCES = 2
_READY_SECONDS = 60.0
_ASK_SECONDS = 2.0
_LOOK_SECONDS = 0.1


async def show_demo(hub: HubClient, folder: Path, hub_part: Part, regions: Sequence[Part]) -> None:
    """Declare the demo in all regions, wait until it is ready, and print what to try."""
    names = [part.name.removeprefix("region ") for part in regions]
    manifests = [_tenant(), _deployment(names)]
    file = folder / f"{_APP}.yaml"
    if not file.exists():
        text = yaml.safe_dump_all(manifests, sort_keys=False)
        await asyncio.to_thread(file.write_text, text, encoding="utf-8")
    # Only what is missing: whoever went on with the demo keeps what they made of it.
    for kind, manifest, tenant in ((TENANT, manifests[0], ""), (DEPLOYMENT, manifests[1], _TENANT)):
        if await hub.find(kind, manifest["metadata"]["name"], tenant) is None:
            await hub.create(kind, manifest, tenant, why="transom up --demo")
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
    print(_what_to_try(folder, hub_part, regions[0], where, pid), flush=True)


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


def _what_to_try(folder: Path, hub: Part, region: Part, where: str, pid: int) -> str:
    t, file = program(), shlex.quote(str(folder / f"{_APP}.yaml"))
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

  kill -9 {hub.pid()}      # the hub: the regions go on without it
  {hub.command_line} &
  kill -9 {region.pid()}      # a region: what it runs goes on, and is taken over by
  {region.command_line} &

Ctrl-C here ends all of it, what it runs included."""
