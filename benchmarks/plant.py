"""A real hub, real regions and gateways, as processes of this machine: for figures and for tests.

Nothing is faked: the same configuration files and the same entry points as `transom hub` and
`transom region` use. Ports are chosen by asking the system for free ones.
"""

import asyncio
import contextlib
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import aiohttp
import psutil

from engines.process import free_ports, until_ended
from transom.catalog.kinds import shipped
from transom.client.hub import HubClient
from transom.model.resources import API_VERSION, JsonObject
from transom.processes.up_files import Engines
from transom.runtime.authority import ensure_authority
from transom.runtime.clock import SystemClock
from transom.runtime.randomness import new_secret
from transom.runtime.secret_files import ensure_secret, hash_secret, write_private
from transom.runtime.signing import ensure_signing_key

CATALOG = shipped()
TENANT = CATALOG["Tenant"]
REGION = CATALOG["Region"]
DEPLOYMENT = CATALOG["Deployment"]

_HUB = "from transom.processes.hub import run_hub as run"
_REGION = "from transom.processes.region import run_region as run"
_GATEWAY = "from transom.processes.gateway import run_gateway as run"
_READY_SECONDS = 30.0
_KEYS = {"link_keys": "link-keys", "signing_key": "signing.key", "tls_authority": "authority.pem"}


class Process(Protocol):
    """What is asked of a process, as `subprocess.Popen` has it."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None:
        """Its code once it has ended."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """Its code when it has ended."""
        ...

    def send_signal(self, number: int, /) -> None:
        """Send it a signal."""
        ...

    def kill(self) -> None:
        """SIGKILL."""
        ...


def fresh(program: str, argument: str, environment: Mapping[str, str], output: Path) -> Process:
    """An interpreter of its own for `program`; what it writes goes to the end of `output`."""
    with output.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-c", program, argument],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=environment,
            start_new_session=True,
        )


class Part:
    """One process of a plant."""

    launch = staticmethod(fresh)
    """How processes are started; tests have a quicker way (`warm_start`)."""

    def __init__(
        self, name: str, folder: Path, port: int, entry: str, tls: ssl.SSLContext | None = None
    ) -> None:
        self.name = name
        self.folder = folder
        self.port = port
        self.tls = tls
        self.address = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        self.entry = entry
        self.process: Process | None = None

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self.process is not None and self.process.poll() is None

    def start(self, die_at: str = "", freeze_at: str = "") -> None:
        """Start it; `die_at` ("store.committed:3") has it kill itself there, `freeze_at` stop there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        program = f"{self.entry}\nimport sys, uvloop, pathlib\nuvloop.run(run(pathlib.Path(sys.argv[1])))"
        environment = {**os.environ, "TRANSOM_DIE_AT": die_at, "TRANSOM_FREEZE_AT": freeze_at}
        self.process = self.launch(
            program, str(self.folder / "config.toml"), environment, self.folder / "output.log"
        )

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    @property
    def frozen(self) -> bool:
        """Whether its process is stopped (SIGSTOP)."""
        return self.process is not None and psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED

    def signal(self, number: int) -> None:
        """Send it a signal."""
        if self.process is not None:
            self.process.send_signal(number)

    def output(self) -> str:
        """What it has printed."""
        return (self.folder / "output.log").read_text(errors="replace")

    async def ready(self) -> None:
        """Wait until it answers. Raises `RuntimeError` with its last output when it ends instead."""
        async with aiohttp.ClientSession() as session, asyncio.timeout(_READY_SECONDS):
            while True:
                if not self.running:
                    raise RuntimeError(f"{self.name} ended:\n{self.output()[-3000:]}")
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"{self.address}/healthz", ssl=self.tls or True) as answer:
                        if answer.ok:
                            return
                await asyncio.sleep(0.02)


class Plant:
    """A hub and regions below `folder`, not started yet.

    `hub_settings` and `gateways` are TOML, put into the hub's file and each gateway's; no gateways for None.
    Stores and logs are files, or in `engines`, where the hub may have `further_hubs` processes beside it.
    """

    def __init__(
        self,
        folder: Path,
        regions: Sequence[str],
        zones: JsonObject,
        settings: str = "",
        *,
        hub_settings: str = "",
        gateways: str | None = None,
        engines: Engines | None = None,
        further_hubs: int = 0,
    ) -> None:
        self.folder = folder
        self.engines = engines
        self.zones = zones
        authority = ensure_authority(folder / "hub" / "authority.pem", SystemClock().wall())
        self.tls = ssl.create_default_context(cafile=authority.ca_file)
        """Whom to trust at the hub."""
        self.hub = Part("hub", folder / "hub", free_ports(1), _HUB, self.tls)
        self.regions = {
            name: Part(name, folder / "regions" / name, free_ports(1), _REGION) for name in regions
        }
        self.hubs = [self.hub]
        admin_key = new_secret()
        if further_hubs:
            ensure_signing_key(self.hub.folder / "signing.key")
        for number in range(2, 2 + further_hubs):
            self.hubs.append(Part(f"hub {number}", folder / f"hub-{number}", free_ports(1), _HUB, self.tls))
        # Every process of the hub has the same keys; what else is in its folder is its own.
        keys = "".join(f'{name} = "{self.hub.folder / file}"\n' for name, file in _KEYS.items())
        store = f'store = "{engines.store}"\n' if engines else ""
        for part in self.hubs:
            self._write(part, f'data = "data"\n{store}{self._log("hub")}{keys}{settings}', hub_settings)
            if further_hubs:
                write_private(part.folder / "data" / "admin.key", admin_key)
        self.gateways: dict[str, Part] = {}
        for name, part in self.regions.items():
            key = ensure_secret(self.hub.folder / "link-keys" / f"{name}.key")
            log = self._log(name) or f'link_key_hash = "{hash_secret(key)}"\n'
            tables = "".join(
                f'[[zones]]\nname = "{zone}"\ndriver = "{kind}"\n' for zone, kind in zones.items()
            )
            self._write(
                part,
                f'name = "{name}"\ndata = "data"\n{log}{settings}',
                tables,
            )
        if gateways is not None:
            self._add_gateways(gateways)

    def _add_gateways(self, settings: str) -> None:
        signer = ensure_signing_key(self.hub.folder / "signing.key")
        for name, region in self.regions.items():
            part = Part(f"gateway {name}", self.folder / "gateways" / name, free_ports(1), _GATEWAY)
            log = self._log(name) or f'log = "{region.folder / "data" / "log.db"}"\n'
            lines = [
                f'region = "{name}"\nname = "gateway"\ndata = "data"\n{log}',
                f'trusted_signers = ["{signer.public_text}"]',
            ]
            self._write(part, "\n".join(lines), settings)
            self.gateways[name] = part

    def _log(self, name: str) -> str:
        """The line that names a log which is no file."""
        return f'log = "{self.engines.logs[name]}"\n' if self.engines else ""

    def _write(self, part: Part, text: str, tables: str = "") -> None:
        part.folder.mkdir(parents=True, exist_ok=True)
        (part.folder / "config.toml").write_text(f"port = {part.port}\n{text}\n{tables}")

    @property
    def parts(self) -> list[Part]:
        """Hub, regions and gateways."""
        return [*self.hubs, *self.regions.values(), *self.gateways.values()]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[HubClient]:
        """Start everything, declare tenant acme and the regions; end everything after the block."""
        try:
            for part in self.parts:
                part.start()
            for part in self.parts:
                await part.ready()
            async with self.client() as hub:
                await self.declare(hub)
                yield hub
        except BaseException as error:
            for part in self.parts:
                if not part.running:
                    error.add_note(f"{part.name} ended:\n{part.output()[-3000:]}")
            raise
        finally:
            for part in self.parts:
                part.kill()
            self.end_workloads()

    async def declare(self, hub: HubClient) -> None:
        """Declare tenant acme and the regions."""
        await hub.apply(TENANT, manifest("Tenant", {"name": "acme"}))
        for name, part in self.regions.items():
            zones = [{"name": zone, "driver": kind} for zone, kind in self.zones.items()]
            log = self.engines.logs[name] if self.engines else part.address
            spec = {"log": log, "zones": zones}
            await hub.apply(REGION, manifest("Region", {"name": name}, spec))

    def client(self, hub: Part | None = None) -> HubClient:
        """A client of one process of the hub, the first by default, with the administrator's key."""
        key = (self.hub.folder / "data" / "admin.key").read_text().strip()
        return HubClient((hub or self.hub).address, key, self.tls)

    def workloads(self) -> list[psutil.Process]:
        """The processes that the regions' drivers have started: those that carry our folder's mark."""
        mark = str(self.folder)
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("PLANT") == mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def end_workloads(self) -> None:
        """Kill what the regions have left running, as they should."""
        running = self.workloads()
        for process in running:
            with contextlib.suppress(psutil.Error):
                process.kill()
        until_ended(running)


def deployment(name: str, regions: Sequence[str], **spec: object) -> JsonObject:
    """A manifest of a Deployment."""
    given = {"app": name, "version": "1", "command": ["true"], "regions": list(regions), **spec}
    return manifest("Deployment", {"name": name, "namespace": "acme"}, given)


def manifest(kind: str, metadata: JsonObject, spec: JsonObject | None = None) -> JsonObject:
    """A manifest."""
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec or {}}
