"""The hub's API for tests: a real store behind a real socket, and a client that shows everything."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from hub_parts import CLOCK, open_store
from tls_parts import TRUST
from transom.client.hub import HubClient
from transom.hub.access.limits import LimitsConfig
from transom.hub.api.app import hub_api
from transom.hub.audit import Audit
from transom.hub.store import Store
from transom.model.resources import JsonObject
from transom.runtime.http import serve
from transom.runtime.secret_files import hash_secret
from transom.runtime.signing import new_signer
from transom.runtime.tasks import WorkerState

SIGNER = new_signer()
KEY = "the-administrators-key"
ROOT = "/apis/transom.dev/v1"
DEPLOYMENTS = f"{ROOT}/namespaces/acme/deployments"


class FixedRoads:
    """Roads that always say the same."""

    async def describe(self) -> list[JsonObject]:
        return [{"region": "eu", "environment": "production", "reachable": True, "down_lag": 0, "up_lag": 0}]


@dataclass
class Answer:
    code: int
    body: Any
    headers: Any


@dataclass
class Api:
    """A served API: `ask` for one answer, `client` for the shipped client."""

    store: Store
    address: str
    session: aiohttp.ClientSession

    async def ask(
        self, method: str, path: str, body: Any = None, *, media: str = "application/json", key: str = KEY
    ) -> Answer:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        data = body if isinstance(body, bytes) or body is None else msgspec.json.encode(body)
        if data is not None:
            headers["Content-Type"] = media
        async with self.session.request(method, self.address + path, data=data, headers=headers) as response:
            text = await response.read()
            is_json = response.content_type == "application/json" and text
            return Answer(response.status, msgspec.json.decode(text) if is_json else text, response.headers)

    def client(self) -> HubClient:
        return HubClient(self.address, KEY, TRUST.client)

    async def revision(self) -> int:
        return self.store.changed.value


@contextlib.asynccontextmanager
async def served(
    folder: Path,
    states: Callable[[], Iterable[WorkerState]] = list,
    contexts: Callable[[Store], Any] = lambda _store: None,
    limits: LimitsConfig | None = None,
):
    """The API over a store with tenant acme and regions ap, eu, us."""
    connector = aiohttp.TCPConnector(ssl=TRUST.client)
    async with open_store(folder) as store, aiohttp.ClientSession(connector=connector) as session:
        app = hub_api(
            store,
            admin_key_hash=hash_secret(KEY),
            roads=FixedRoads(),
            states=states,
            clock=CLOCK,
            contexts=contexts(store),
            limits=limits,
            audit=Audit(store, SIGNER, CLOCK),
        )
        ports: asyncio.Queue[int] = asyncio.Queue()
        async with asyncio.TaskGroup() as group:
            server = group.create_task(serve(app, "127.0.0.1", 0, tls=TRUST.server, ready=ports.put_nowait))
            try:
                yield Api(store, f"https://127.0.0.1:{await ports.get()}", session)
            finally:
                server.cancel()


def manifest(name: str = "shop", **spec: Any) -> JsonObject:
    given = {"app": "shop", "version": "1", "command": ["serve"], "regions": ["eu", "us"], **spec}
    return {
        "apiVersion": "transom.dev/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": given,
    }
