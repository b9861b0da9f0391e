"""One region, put together: its log and the server before it, its desired table, an agent for each zone.

Everything is opened in the order it stands on each other and closed in the other; what the drivers run is
left running (invariant 5).
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path

from transom.model.resources import to_json
from transom.model.roads import DESIRED, DESIRED_TABLE
from transom.region.agent import Agent
from transom.region.config import RegionConfig, ZoneConfig
from transom.region.desired import DesiredTable
from transom.region.driver import Driver
from transom.region.drivers.null import NullDriver
from transom.region.drivers.process import ProcessDriver
from transom.region.heartbeat import Heartbeat
from transom.region.own_log import own_log
from transom.region.planning import Place, Planner
from transom.region.reports import Reports
from transom.region.topics import TOPICS
from transom.runtime.clock import Clock
from transom.runtime.http import AsgiApp, Receive, Scope, Send, check_free, serve, server_tls
from transom.runtime.processes import folder_held
from transom.runtime.randomness import Randomness
from transom.runtime.tasks import Workers, workers
from transom.runtime.telemetry import exposition
from transom.tables.keeper import keep
from transom.tables.sqlite import SqliteTable
from transom.tables.sweeps import answer_sweeps


@contextlib.asynccontextmanager
async def running_region(
    config: RegionConfig,
    planners: Mapping[str, Planner],
    clock: Clock,
    randomness: Randomness,
    announce: Callable[[int], None],
) -> AsyncGenerator[None]:
    """The region of `config`, running inside the block; `announce` is called with its port.

    Raises `ExistsError` (another process has the data folder), `NewerDataError`, `InvalidError` (the port is
    in use, the certificate cannot be read, the data folder cannot be made); inside an exception group when
    workers were running. `LogLostError`, in such a group: the log's file was removed or replaced meanwhile.
    """
    what = f"configuration of region {config.name}"
    tls = server_tls(what, config.tls_cert, config.tls_key)
    check_free(config.host, config.port)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(folder_held(config.data, what))
        log, chores, served = await stack.enter_async_context(own_log(config, clock, randomness))
        await log.create(TOPICS)
        table = await SqliteTable.open(config.data / "desired.db")
        stack.push_async_callback(table.close)
        desired = DesiredTable(table)
        agents: list[Agent] = []
        for zone in config.zones:
            place = Place(config.name, zone.name)
            driver = await stack.enter_async_context(open_driver(zone, config.data, clock, randomness))
            memory = await SqliteTable.open(config.data / f"reports-{zone.name}.db")
            stack.push_async_callback(memory.close)
            reports = await Reports.open(place, memory, log, clock)
            agents.append(
                Agent(place, desired, desired.inbox(), driver, reports, planners, clock, randomness)
            )
        group = await stack.enter_async_context(workers(clock, randomness))
        heartbeat = Heartbeat(
            config.name, log, desired, lambda: group.states, clock, randomness, config.heartbeat_seconds
        )
        group.start("desired table", lambda: keep(desired, log, [DESIRED]))
        group.start("sweep answers", lambda: answer_sweeps(DESIRED_TABLE, desired, log))
        for agent in agents:
            group.start(f"agent {agent.place.zone}", agent.run)
        group.start("heartbeat", heartbeat.run)
        for name, chore in chores.items():
            group.start(name, chore)
        app = _with_health(served, config, group)
        async with asyncio.TaskGroup() as server:
            # Not a supervised worker: a region that cannot be reached must say so and end.
            serving = server.create_task(serve(app, config.host, config.port, tls=tls, ready=announce))
            yield
            serving.cancel()


@contextlib.asynccontextmanager
async def open_driver(
    zone: ZoneConfig, data: Path, clock: Clock, randomness: Randomness
) -> AsyncGenerator[Driver]:
    """The zone's driver; what runs in the zone has its folders in `data`/workloads/<zone>."""
    if zone.driver == "null":
        async with NullDriver.open(clock) as null:
            yield null
        return
    async with ProcessDriver.open(workloads(data) / zone.name, clock, randomness) as process:
        yield process


def workloads(data: Path) -> Path:
    """Where a region's processes have their folders; see `drivers.process.stop_everything`."""
    return data / "workloads"


def _with_health(inner: AsgiApp, config: RegionConfig, group: Workers) -> AsgiApp:
    """GET /healthz and GET /metrics, which anyone may see; all else is the log's."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] == "http" and scope["method"] == "GET" and path in ("/healthz", "/metrics"):
            body = exposition() if path == "/metrics" else to_json(_health(config, group))
            kind = b"text/plain; version=0.0.4" if path == "/metrics" else b"application/json"
            headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        else:
            await inner(scope, receive, send)

    return app


def _health(config: RegionConfig, group: Workers) -> dict[str, object]:
    return {
        "region": config.name,
        "workers": {
            name: {"state": state.state, "error": state.error} for name, state in group.states.items()
        },
    }
