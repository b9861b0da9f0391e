"""A gateway's speed on one core: its decision endpoint beside a constant from the same server, and its proxy
beside nginx, which asks the same gateway (`auth_request`) and forwards to the same app.

The gateway is a process of its own with the real decider, pinned to one core; nginx, one worker of it as
docs/how-to/nginx.md configures it, has the same core. 64 kept connections load them from the other core,
where the app is, too: `wrk` (Debian's package) if it is there, else a small client of our own, which is
slower and may then be what is measured. Every request brings another of 100,000 keys, all of them in the
cache; of the keys of "limits" two in three have a rate limit. The constant is answered as soon as a request's
head is read: no key, no path, no decision, and an answer as long as a real one.

What is compared takes turns. "A core" is requests for each second of processor time, which others on a busy
machine disturb less than what a clock says; shares are of those. `profile WHAT` prints where the time of
"constant", "decide", "limits" (rate limits, access log) or "proxy" goes.
"""

import asyncio
import contextlib
import cProfile
import json
import multiprocessing
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import psutil
import uvloop

from benchmarks.decision import Generated
from benchmarks.report import figure, note, percentile
from engines.process import free_ports
from transom.catalog.contexts import shipped_contexts
from transom.model.api_keys import new_api_key
from transom.processes.lifetime import collect_seldom
from transom.region.contexts.door import Door
from transom.region.contexts.table import ContextTable
from transom.region.gateway.access_log import AccessLog
from transom.region.gateway.decider import KeyDecider
from transom.region.gateway.decision import Endpoint
from transom.region.gateway.fakes import FakeEndpoints
from transom.region.gateway.http1 import Request
from transom.region.gateway.server import GatewayServer
from transom.runtime.clock import SystemClock
from transom.runtime.randomness import Randomness

_CONNECTIONS = 64
_SECONDS = 2
_ROUNDS = 5
_KEYS = 100_000
_CORE, _OTHER_CORE = 0, 1
_DECIDE, _PROXY = "/decide/apps/shop/things", "/apps/shop/things"
_PATHS = {"constant": _DECIDE, "decide": _DECIDE, "limits": _DECIDE, "proxy": _PROXY, "nginx": _PROXY}
_HOW_TO = Path(__file__).parents[1] / "docs" / "how-to" / "nginx.md"
_WRK_SCRIPT = """
local keys, at = {}, %d
for line in io.lines("%s") do keys[#keys + 1] = line end
request = function()
  at = at %% #keys + 1
  local head = "GET %s HTTP/1.1\\r\\nHost: gw\\r\\nAccept: */*\\r\\nAuthorization: Bearer "
  return head .. keys[at] .. "\\r\\n\\r\\n"
end
done = function(summary, latency)
  io.write(string.format("RESULT %%f %%f %%d\\n", summary.requests / summary.duration * 1e6,
    latency:percentile(99) / 1000, summary.errors.status + summary.errors.read + summary.errors.timeout))
end
"""


class Run(NamedTuple):
    """What one run gave: requests a second, p99 in ms, requests for each second of processor time."""

    rate: float
    tail: float
    capacity: float


# --- what is measured -----------------------------------------------------------------------------------


def gateway(keys: Sequence[str], app_port: int, folder: Path, ready: Connection) -> None:
    """Serve each way of answering at a port of its own, in this process; tells the ports."""
    _pin(_CORE)
    uvloop.run(_gateway([key.encode() for key in keys], app_port, folder, ready))


async def _gateway(keys: Sequence[bytes], app_port: int, folder: Path, ready: Connection) -> None:
    async with contextlib.AsyncExitStack() as stack:
        free = await stack.enter_async_context(_deciding(Generated(keys, limit=None), keys))
        limited = await stack.enter_async_context(_deciding(Generated(keys, limit=1e9), keys))
        # An app's instances belong to one tenant, and so do the connections to them.
        of_one = await stack.enter_async_context(_deciding(Generated(keys, tenants=1, limit=None), keys))
        endpoints = FakeEndpoints()
        endpoints.instances["tenant-0", "shop"] = (Endpoint("shop-0", "127.0.0.1", app_port),)
        clock = SystemClock()
        server = partial(GatewayServer, endpoints=endpoints, clock=clock, randomness=Randomness())
        servers = {
            "constant": server(free),
            "decide": server(free),
            "limits": server(limited, access_log=AccessLog(folder / "access.log", clock)),
            "proxy": server(of_one),
        }
        _answer_a_constant(servers["constant"])
        collect_seldom()
        ports: dict[str, int] = {}
        async with asyncio.TaskGroup() as group:
            for what, each in servers.items():
                listening = asyncio.Event()

                def told(port: int, what: str = what, listening: asyncio.Event = listening) -> None:
                    ports[what] = port
                    listening.set()

                group.create_task(each.serve("127.0.0.1", 0, ready=told))
                await listening.wait()
            ready.send(ports)
            if profiled := os.environ.get("GATEWAY_PROFILE"):
                group.create_task(_profile_here(float(profiled)))


@contextlib.asynccontextmanager
async def _deciding(table: Generated, keys: Sequence[bytes]) -> AsyncGenerator[KeyDecider]:
    """A decider that has all of `keys` in its cache."""
    door, clock = Door(None, shipped_contexts()), SystemClock()
    contexts = await ContextTable.open(table, door, clock, 10 * _KEYS)
    async with KeyDecider(contexts, door, clock, Randomness(), cache_entries=2 * _KEYS) as decider:
        for key in keys:
            decision = await decider.decide(key, "shop", "GET")
            assert decision.status == 200, decision
        yield decider


def _answer_a_constant(server: GatewayServer) -> None:
    """Have every request answered alike as soon as its head is read."""
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n"
    head += b"x-transom-tenant: tenant-0\r\nx-transom-key: key-12345\r\n"
    head += b"x-transom-scopes: app:shop\r\nx-transom-virtual-cluster: \r\n"
    desk = server._desk  # pyright: ignore[reportPrivateUsage]  # noqa: SLF001

    def begin(connection: Any, request: Request) -> None:
        request.began = desk._monotonic()  # pyright: ignore[reportPrivateUsage]  # noqa: SLF001
        request.route = "decide"
        connection.respond(request, head)

    desk.begin = begin


async def _profile_here(seconds: float) -> None:
    await asyncio.sleep(seconds / 2)
    with cProfile.Profile() as profiler:
        await asyncio.sleep(seconds)
    profiler.print_stats("tottime")


class _App(asyncio.Protocol):
    """The smallest app: one answer for each read."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # pyright: ignore[reportAttributeAccessIssue]

    def data_received(self, data: bytes) -> None:  # noqa: ARG002
        self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\nhello, world!")


def app(ready: Connection) -> None:
    """Run the app behind the proxies."""
    _pin(_OTHER_CORE)

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(_App, "127.0.0.1", 0)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(serve())


@contextlib.contextmanager
def running(target: Callable[..., None], *arguments: object) -> Generator[tuple[Any, psutil.Process]]:
    """A process, and what it says once it is ready."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.Process(target=target, args=(*arguments, there), daemon=True)
    process.start()
    try:
        yield here.recv(), psutil.Process(process.pid)
    finally:
        process.terminate()
        process.join()


@contextlib.contextmanager
def nginx(folder: Path, decide_port: int, app_port: int) -> Generator[tuple[int, psutil.Process] | None]:
    """Run nginx as the how-to configures it, one worker, on the gateway's core; None when there is none."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        yield None
        return
    server = _HOW_TO.read_text().partition("```nginx\n")[2].partition("```")[0]
    port = free_ports(1)
    for printed, real in (("8080", port), ("8484", decide_port), ("9000", app_port)):
        server = server.replace(printed, str(real))
    places = "".join(
        f"{each}_temp_path {folder}/{each};" for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log;\n"
        f"events {{ worker_connections 1024; }}\n"
        f"http {{ access_log off; keepalive_requests 1000000000; {places}\n{server}\n}}\n"
    )
    command = [program, "-c", str(config)]
    with subprocess.Popen(command, preexec_fn=partial(_pin, _CORE)) as process:  # noqa: PLW1509
        try:
            parent = psutil.Process(process.pid)
            while not (workers := parent.children()):
                time.sleep(0.05)
            yield port, workers[0]
        finally:
            process.terminate()


def _pin(core: int) -> None:
    with contextlib.suppress(AttributeError, OSError, ValueError):
        os.sched_setaffinity(0, {core})


# --- the load -------------------------------------------------------------------------------------------


def load(port: int, path: str, keys: Path, turn: int) -> tuple[float, float]:
    """Requests a second, and the p99 in milliseconds."""
    if shutil.which("wrk") is None:
        command = [sys.executable, "-m", "benchmarks.gateway", "load", str(port), path, str(keys)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rate, tail = json.loads(done.stdout)
        return rate, tail
    script = keys.with_suffix(".lua")
    script.write_text(_WRK_SCRIPT % (turn * 17_011 % _KEYS, keys, path))
    command = ["wrk", "-t1", f"-c{_CONNECTIONS}", f"-d{_SECONDS}s", "-s", str(script)]
    command.append(f"http://127.0.0.1:{port}")
    pinned = partial(_pin, _OTHER_CORE)
    done = subprocess.run(command, capture_output=True, text=True, check=True, preexec_fn=pinned)
    found = re.search(r"RESULT (\S+) (\S+) (\d+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    assert found[3] == "0", f"{found[3]} requests failed"
    return float(found[1]), float(found[2])


class _Loader(asyncio.Protocol):
    """One connection that asks again as soon as it is answered."""

    def __init__(self, requests: Iterator[bytes], times: list[float]) -> None:
        self._requests, self._times = requests, times

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # pyright: ignore[reportAttributeAccessIssue]
        self._clock = asyncio.get_running_loop().time
        self._ask()

    def _ask(self) -> None:
        self._began = self._clock()
        self._transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        assert data.startswith(b"HTTP/1.1 200"), data
        self._times.append(self._clock() - self._began)
        self._ask()


async def _load_here(port: int, path: str, keys: Sequence[str]) -> None:
    _pin(_OTHER_CORE)
    head = f"GET {path} HTTP/1.1\r\nHost: gw\r\nAccept: */*\r\nAuthorization: Bearer "
    lines = [f"{head}{key}\r\n\r\n".encode() for key in keys]

    def requests() -> Iterator[bytes]:
        while True:
            yield from lines

    asked, times = requests(), list[float]()
    loop = asyncio.get_running_loop()
    for _ in range(_CONNECTIONS):
        await loop.create_connection(lambda: _Loader(asked, times), "127.0.0.1", port)
    await asyncio.sleep(_SECONDS)
    print(json.dumps([len(times) / _SECONDS, 1000 * percentile(times, 99)]))


# --- the figures ----------------------------------------------------------------------------------------


def main(rounds: int) -> None:
    """Print the figures."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="transom-")))
        keys, listed = _keys(folder)
        app_port, _ = stack.enter_context(running(app))
        ports, process = stack.enter_context(running(gateway, keys, app_port, folder))
        busy = {what: [process] for what in ports}
        beside = stack.enter_context(nginx(folder, ports["proxy"], app_port))
        if beside is None:
            print("no nginx on this machine: the proxy is not compared", file=sys.stderr)
        else:
            ports["nginx"], busy["nginx"] = beside[0], [process, beside[1]]
        runs: dict[str, list[Run]] = {what: [] for what in ports}
        for turn in range(rounds):
            for what, port in ports.items():
                runs[what].append(_run(port, _PATHS[what], listed, turn, busy[what]))
    _report(runs)


def _keys(folder: Path) -> tuple[list[str], Path]:
    choose = random.Random(7).choice  # keys of a benchmark  # noqa: S311
    keys = [new_api_key(choose) for _ in range(_KEYS)]
    listed = folder / "keys"
    listed.write_text("\n".join(keys))
    return keys, listed


def _run(port: int, path: str, keys: Path, turn: int, busy: Sequence[psutil.Process]) -> Run:
    before = _seconds(busy)
    rate, tail = load(port, path, keys, turn)
    return Run(rate, tail, rate * _SECONDS / (_seconds(busy) - before))


def _seconds(busy: Sequence[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in busy)


def _report(runs: dict[str, list[Run]]) -> None:
    promised = [("decide", "constant", 0.85), ("limits", "constant", 0.7), ("proxy", "nginx", 0.5)]
    for what, base, share in promised:
        if base not in runs:
            continue
        shares = [
            mine.capacity / theirs.capacity for mine, theirs in zip(runs[what], runs[base], strict=True)
        ]
        figure(f"gateway_{what}_over_{base}", median(shares), "", target=f">= {share}", runs=shares)
    pairs = zip(runs["decide"], runs["constant"], strict=True)
    added = [mine.tail - theirs.tail for mine, theirs in pairs]
    figure("gateway_decide_p99_added", median(added), "ms", target="<= 1", runs=added)
    for what, measured in runs.items():
        capacities = [run.capacity for run in measured]
        note(f"gateway_{what}_a_core", median(capacities), "requests/s", runs=capacities)
        rates = [run.rate for run in measured]
        note(f"gateway_{what}_a_second", median(rates), "requests/s", runs=rates)


def profile(what: str) -> None:
    """Print where a gateway's time goes."""
    os.environ["GATEWAY_PROFILE"] = str(_SECONDS / 2)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="transom-")))
        keys, listed = _keys(folder)
        app_port, _ = stack.enter_context(running(app))
        ports, _ = stack.enter_context(running(gateway, keys, app_port, folder))
        print(load(ports[what], _PATHS[what], listed, 0))
        time.sleep(1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["load"]:
        uvloop.run(_load_here(int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]).read_text().split()))
    elif sys.argv[1:2] == ["profile"]:
        profile(sys.argv[2])
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else _ROUNDS)
