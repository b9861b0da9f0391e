"""One region, put together: its log and the server before it, its desired table, an agent for each zone.

Everything is opened in the order it stands on each other and closed in the other; what the drivers run is
left running (invariant 5).
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Callable, Mapping

from transom.model.resources import to_json
from transom.model.roads import DESIRED
from transom.region.config import RegionConfig
from transom.region.desired import DesiredTable
from transom.region.making import Maker
from transom.region.own_log import own_log
from transom.region.planning import Planner
from transom.region.registry import LogRegistry
from transom.region.topics import TOPICS
from transom.region.works import Works, alike_in
from transom.runtime.clock import Clock
from transom.runtime.duties import Alone, Duties, identity_in
from transom.runtime.http import AsgiApp, Receive, Scope, Send, check_free, serve
from transom.runtime.processes import folder_held
from transom.runtime.randomness import Randomness
from transom.runtime.serving_tls import operators_tls
from transom.runtime.tasks import Workers, workers
from transom.runtime.telemetry import exposition
from transom.tables.keeper import keep
from transom.tables.sqlite import SqliteTable

_LOOK_SECONDS = 2.0
"""Between two beats of one of several processes; each is an append to the log."""


@contextlib.asynccontextmanager
async def running_region(
    config: RegionConfig,
    planners: Mapping[str, Planner],
    makers: Mapping[str, Maker],
    clock: Clock,
    randomness: Randomness,
    announce: Callable[[int], None],
) -> AsyncGenerator[None]:
    """The region of `config`, running inside the block; `announce` is called with its port. `planners` and
    `makers` are by kind.

    Raises `ExistsError` (another process has the data folder), `NewerDataError`, `InvalidError` (the port is
    in use, the certificate cannot be read, the data folder cannot be made); inside an exception group when
    workers were running. `LogLostError`, in such a group: the log's file was removed or replaced meanwhile.
    """
    what = f"configuration of region {config.name}"
    tls = operators_tls(what, config.tls_cert, config.tls_key, clock)
    check_free(config.host, config.port)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(folder_held(config.data, what))
        log, chores, served = await stack.enter_async_context(own_log(config, clock, randomness))
        await log.create(TOPICS)
        table = await SqliteTable.open(config.data / "desired.db")
        stack.push_async_callback(table.close)
        desired = DesiredTable(table)
        group = await stack.enter_async_context(workers(clock, randomness))
        group.start("desired table", lambda: keep(desired, log, [DESIRED]))
        registry = LogRegistry(log) if config.log else Alone()
        duties = Duties(
            registry,
            group,
            clock,
            randomness,
            *identity_in(config.data, registry, randomness),
            alike_in(config) if config.log else {},
            f"{socket.gethostname()}:{config.data}",
            look_seconds=_LOOK_SECONDS,
            shared_evenly=False,
        )
        works = Works(config, log, desired, planners, makers, duties, clock, randomness)
        await duties.begin(works.by_duty())
        stack.push_async_callback(duties.close)
        group.start("duties", duties.run)
        for name, chore in chores.items():
            group.start(name, chore)
        if tls is not None:
            group.start("certificate", tls.keep)
        app = _with_health(served, config, group, duties)
        async with asyncio.TaskGroup() as server:
            # Not a supervised worker: a region that cannot be reached must say so and end.
            context = None if tls is None else tls.context
            serving = server.create_task(serve(app, config.host, config.port, tls=context, ready=announce))
            yield
            serving.cancel()


def _with_health(inner: AsgiApp, config: RegionConfig, group: Workers, duties: Duties) -> AsgiApp:
    """GET /healthz and GET /metrics, which anyone may see; all else is the log's."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] == "http" and scope["method"] == "GET" and path in ("/healthz", "/metrics"):
            body = exposition() if path == "/metrics" else to_json(_health(config, group, duties))
            kind = b"text/plain; version=0.0.4" if path == "/metrics" else b"application/json"
            headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        else:
            await inner(scope, receive, send)

    return app


def _health(config: RegionConfig, group: Workers, duties: Duties) -> dict[str, object]:
    return {
        "region": config.name,
        "processes": duties.describe(),
        "workers": {
            name: {"state": state.state, "error": state.error} for name, state in group.states.items()
        },
    }
