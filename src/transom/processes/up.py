"""`transom up`: a hub, regions and their gateways on this machine, each a process of its own.

What runs already is taken over, what does not is started, and when all are ready the regions are declared at
the hub and a table is printed. Then it stays and watches: what dies is named, with the line that starts it
again, and is not started by itself, so that people can see a system with a part missing. Ctrl-C ends all.
Beside: `processes.up_files` (the folder), `processes.parts` (one process), `processes.demo`.
"""

import asyncio
import errno
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from transom.catalog.region.kind import REGION
from transom.client.config import CLIENT_FILE
from transom.client.hub import HubClient
from transom.model.errors import InvalidError, Problem
from transom.model.resources import API_VERSION, JsonObject
from transom.processes.demo import show_demo
from transom.processes.parts import LOOK_SECONDS, Part
from transom.processes.up_files import (
    Engines,
    Setup,
    address,
    check_format,
    gateway_file,
    hub_file,
    plan,
    region_file,
    write,
)
from transom.runtime.clock import SystemClock
from transom.runtime.processes import folder_held

_INTERRUPTED = 130
_BOUND_OUTPUT_SECONDS = 60.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


async def run_up(
    folder: Path,
    port: int | None,
    names: Sequence[str] | None,
    *,
    demo: bool,
    engines: Engines | None = None,
    kinds: Sequence[str] = (),
) -> None:
    """Run everything in `folder` until SIGINT or SIGTERM; a second one leaves at once. What is kept, is kept
    in files, or in `engines`; `kinds` are modules of kinds for a folder that is made now.

    Raises `NewerDataError`, `ExistsError` (another `up` has the folder), `InvalidError` (a mistake in a
    file, a port in use, a part that does not start); then what this call has started is ended again.
    """
    check_format(folder)
    ports = plan(folder, port, names)
    with folder_held(folder):
        if hub_file(folder).exists():
            if kinds:
                wrong = f"is for a new folder; write kind_modules into {folder}/*/*.toml, or use --dir"
                raise InvalidError("--kinds", [Problem("", wrong)])
        else:
            # Before anything is written, so that the same folder can be used with another port.
            _check_ports([("127.0.0.1", each) for each in ports])
        brought = [_found(module) for module in kinds]
        up = _Up(write(folder, ports, SystemClock().wall(), engines, brought))
        async with asyncio.TaskGroup() as group:
            living = group.create_task(up.live(demo=demo))
            told = False

            def stop() -> None:
                nonlocal told
                if told:
                    _say("leaving at once; `transom up` again takes over what still runs")
                    os._exit(_INTERRUPTED)
                told = True
                living.cancel()

            for number in _SIGNALS:
                asyncio.get_running_loop().add_signal_handler(number, stop)
            await asyncio.wait({living})
            if told:
                await up.stop()


class _Up:
    """The parts of one `up`."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._clock = SystemClock()
        self._parts = parts_of(setup, self._clock)
        self._pids: dict[str, int] = {}

    async def live(self, *, demo: bool) -> None:
        """Bring everything up, then watch it, until cancelled."""
        async with aiohttp.ClientSession() as http:
            await self._start(http)
            async with self._setup.client() as hub:
                await self._declare_regions(hub)
                self._pids = {part.name: part.pid() for part in self._parts}
                self._show()
                if demo:
                    await show_demo(hub, self._setup, self._parts)
                else:
                    _say("Ctrl-C ends all of it, what it runs included.")
            await self._watch(http)

    async def stop(self) -> None:
        """End every part, then what the regions run."""
        _say("stopping the hub and the regions, then what they run …")
        async with asyncio.TaskGroup() as group:
            for part in self._parts:
                group.create_task(part.stop())
        # Loaded here, when nobody waits for it to start.
        from transom.region.drivers.process import stop_everything  # noqa: PLC0415
        from transom.region.works import workloads  # noqa: PLC0415

        running = 0
        for config in self._setup.regions.values():
            running += await stop_everything(workloads(config), self._clock)
        _say(f"stopped, and {running} running instances with it")

    async def _start(self, http: aiohttp.ClientSession) -> None:
        missing = [part for part in self._parts if not await part.adopt()]
        _check_ports([_listening_at(part) for part in missing])
        try:
            for part in missing:
                part.start()
            async with asyncio.TaskGroup() as group:
                for part in self._parts:
                    group.create_task(part.ready(http))
        except Exception:
            for part in missing:
                await part.stop()
            raise

    async def _declare_regions(self, hub: HubClient) -> None:
        """Declare the regions that are not; what people have changed since stays."""
        for name, config in self._setup.regions.items():
            if await hub.find(REGION, name) is None:
                manifest: JsonObject = {
                    "apiVersion": API_VERSION,
                    "kind": REGION.name,
                    "metadata": {"name": name},
                    "spec": {
                        "environment": config.environment,
                        "zones": [{"name": zone.name, "driver": zone.driver} for zone in config.zones],
                        "log": config.log or address(config),
                    },
                }
                await hub.create(REGION, manifest, why="transom up")

    def _show(self) -> None:
        rows = [("PART", "ADDRESS", "PID", "LOG")]
        rows += [(part.name, part.address, str(part.pid()), str(part.log)) for part in self._parts]
        widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
        for row in rows:
            _say("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        _say("")
        folder = self._setup.folder
        if folder.resolve() != CLIENT_FILE.parent.resolve():
            # Elsewhere the command line does not find the hub by itself.
            setup = self._setup
            trusted = f" TRANSOM_CA_FILE={setup.hub.ca_file}" if setup.hub.ca_file else ""
            _say(f"export TRANSOM_HUB={setup.hub_address} TRANSOM_KEY_FILE={setup.key_file}{trusted}\n")

    async def _watch(self, http: aiohttp.ClientSession) -> None:
        """Say what ends, and what has come back, for ever."""
        bounded_at = self._clock.monotonic()
        while True:
            for part in self._parts:
                await self._look(part, http)
            if self._clock.monotonic() - bounded_at > _BOUND_OUTPUT_SECONDS:
                bounded_at = self._clock.monotonic()
                for part in self._parts:
                    part.bound_log()
            await self._clock.sleep(LOOK_SECONDS)

    async def _look(self, part: Part, http: aiohttp.ClientSession) -> None:
        before, now = self._pids[part.name], part.pid()
        if now == before:
            return
        if before:
            await part.reap()
            self._pids[part.name] = 0
            _say(f"{part.name} (pid {before}) has ended; start it again with:\n  {part.command_line} &")
        if now and await part.answers(http):
            self._pids[part.name] = now
            _say(f"{part.name} is back (pid {now})")


def parts_of(setup: Setup, clock: SystemClock) -> list[Part]:
    """The hub, then the regions, then their gateways."""
    folder, run = setup.folder, setup.folder / "run"
    start_hub = ("hub", "-c", str(hub_file(folder)))
    parts = [Part("hub", start_hub, setup.hub_address, setup.hub.data, run / "hub", clock, setup.hub_tls)]
    for verb, file, configs in (
        ("region", region_file, setup.regions),
        ("gateway", gateway_file, setup.gateways),
    ):
        for name, config in configs.items():
            start = (verb, name, "-c", str(file(folder, name)))
            place = run / f"{verb}-{name}"
            parts.append(Part(f"{verb} {name}", start, address(config), config.data, place, clock))
    return parts


def _listening_at(part: Part) -> tuple[str, int]:
    parts = urlsplit(part.address)
    return parts.hostname or "", parts.port or 0


def _check_ports(addresses: Sequence[tuple[str, int]]) -> None:
    """Refuse ports that something else uses. Raises `InvalidError` that names all of them."""
    problems: list[Problem] = []
    for host, port in addresses:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            socket.create_server((host, port), family=family).close()
        except OSError as error:
            why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
            problems.append(Problem("", f"port {port} {why}; stop what uses it, or choose another --port"))
    if problems:
        raise InvalidError("the choice of ports", problems)


def _found(module: str) -> str:
    """A module of kinds as configuration names it: a file by its whole path."""
    return str(Path(module).absolute()) if module.endswith(".py") else module


def _say(text: str) -> None:
    print(text)
    sys.stdout.flush()
