"""One gateway, put together: its own tables, the workers that feed them from the region's log, the server.

A gateway needs nobody to serve: it starts on what its own disk holds, hub and log gone, and its workers try
again for ever. What a worker meets never ends the process. Only what no gateway can do without ends it: its
data folder, its address, its certificate, its configuration.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from transom.model.contexts import ContextKinds
from transom.model.errors import Advice, TransomError, advice_for, members_of
from transom.model.roads import CONTEXTS, CONTEXTS_BULK, STATUS, context_table
from transom.region.contexts.door import Door
from transom.region.contexts.table import ContextTable
from transom.region.gateway.access_log import AccessLog
from transom.region.gateway.broken import BrokenTable
from transom.region.gateway.config import GatewayConfig
from transom.region.gateway.decider import KeyDecider
from transom.region.gateway.heartbeat import GatewayHeart, next_epoch
from transom.region.gateway.instances import InstanceTable, read_instance
from transom.region.gateway.limits import GatewayLimits
from transom.region.gateway.metrics_page import metrics_page
from transom.region.gateway.region_log import RegionLog
from transom.region.gateway.server import GatewayServer
from transom.runtime.clock import Clock
from transom.runtime.http import check_free, serve
from transom.runtime.processes import folder_held
from transom.runtime.randomness import Randomness
from transom.runtime.serving_tls import operators_tls
from transom.runtime.signing import Trust
from transom.runtime.tasks import WorkerState, workers
from transom.runtime.telemetry import get_logger
from transom.tables.keeper import keep
from transom.tables.protocol import Table
from transom.tables.seals import Seals
from transom.tables.sqlite import SqliteTable
from transom.tables.sweeps import answer_sweeps

T = TypeVar("T")
log_event = get_logger(__name__)

_CONTEXTS_FILE = "contexts.db"
_INSTANCES_FILE = "instances.db"


class GatewayWorkerError(TransomError):
    """A worker of a gateway failed; serving goes on with what is held, and the worker tries again."""

    advice = Advice.RETRY


@dataclass
class Gateway:
    """The parts of a running gateway."""

    config: GatewayConfig
    door: Door
    contexts: ContextTable
    instances: InstanceTable
    decider: KeyDecider
    clock: Clock
    randomness: Randomness
    broken: tuple[str, ...] = ()
    port: int = 0
    states: list[Mapping[str, WorkerState]] = field(default_factory=list[Mapping[str, WorkerState]])
    namesake: Callable[[], bool] = lambda: False

    def ready(self) -> bool:
        """Whether it can answer every request: hub and log may be gone, its own knowledge may not.

        Nor is it ready while another has its name: the hub hears nothing of it then, and compares it with
        nothing.
        """
        return not self.broken and self.contexts.knows.complete and not self.namesake()

    def health(self) -> tuple[int, dict[str, object]]:
        """The answer to `/readyz`: 200 or 503, and why.

        Anybody may ask: it names no tenant, no key, no file and no address; the log and the beat do.
        """
        knows = self.contexts.knows
        wrong = ["what it keeps on its disk cannot be read: its log says which file"] if self.broken else []
        if not self.broken and not knows.complete:
            wrong.append(
                "the contexts of this region have not all arrived yet: unknown keys are answered 503"
            )
        if self.namesake():
            wrong.append("another gateway of this region has the same name: give one of them another")
        return (200 if self.ready() else 503), {
            "region": self.config.region,
            "gateway": self.config.name,
            "ready": self.ready(),
            "wrong": wrong,
            "epoch": knows.epoch,
            "revision": knows.revision,
            "bulkRevision": knows.bulk_revision,
            "ageSeconds": knows.age_seconds(self.clock),
            "refusedCount": self.door.refused_count,
            "workers": {name: {"state": state.state} for name, state in self.workers().items()},
        }

    def knows(self) -> str:
        """The header that tells, on demand, how old the knowledge is that a request was decided on."""
        knows = self.contexts.knows
        age = knows.age_seconds(self.clock)
        told = f"epoch={knows.epoch}; revision={knows.revision}; bulk-revision={knows.bulk_revision}"
        return f"{told}; age={'unknown' if age is None else f'{age:.3f}'}; complete={int(knows.complete)}"

    def workers(self) -> dict[str, WorkerState]:
        """All workers, those that need the log among them."""
        return {name: state for group in self.states for name, state in group.items()}

    def address(self) -> str:
        """Where it listens."""
        scheme = "http" if self.config.tls_cert is None else "https"
        return f"{scheme}://{self.config.host}:{self.port}" if self.port else ""


@contextlib.asynccontextmanager
async def running_gateway(
    config: GatewayConfig,
    kinds: ContextKinds,
    clock: Clock,
    randomness: Randomness,
    announce: Callable[[int], None],
) -> AsyncGenerator[Gateway]:
    """The gateway of `config`, running inside the block; `announce` is called with its port.

    Raises `ExistsError` (another process has the data folder), `InvalidError` (the port is in use, the
    certificate, a signer or the log's key cannot be read, the data folder or the access log cannot be
    written to); inside an exception group when workers were running.
    """
    what = f"configuration of gateway {config.name}"
    tls = operators_tls(what, config.tls_cert, config.tls_key, clock)
    context = None if tls is None else tls.context
    check_free(config.host, config.port)
    if config.metrics_port is not None:
        check_free(config.metrics_host, config.metrics_port)
    reaching = RegionLog(config, clock, randomness)
    await reaching.check()
    door = Door(Seals(config.region, Trust(config.trusted_signers)), kinds)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(folder_held(config.data, what))
        access_log = None
        if config.access_log is not None:
            access_log = AccessLog(config.access_log, clock)
            access_log.check(what)
        gateway = await _put_together(config, door, clock, randomness, stack)
        group = await stack.enter_async_context(workers(clock, randomness))
        gateway.states.append(group.states)
        heart = _heart(gateway, next_epoch(config.data, clock))
        gateway.namesake = lambda: bool(heart.taken)
        if tls is not None:
            group.start("certificate", tls.keep)
        group.start("region log", _kept_going(lambda: _use_log(gateway, heart, reaching)))
        server = GatewayServer(
            gateway.decider,
            gateway.instances,
            clock=clock,
            randomness=randomness,
            limits=_limits(config),
            access_log=access_log,
            knows=gateway.knows,
            health=gateway.health,
        )

        def listening(port: int) -> None:
            gateway.port = port
            announce(port)

        async with asyncio.TaskGroup() as serving:
            # Not supervised workers: a gateway that cannot be reached must say so and end.
            front = server.serve(config.host, config.port, tls=context, ready=listening)
            tasks = [serving.create_task(front)]
            if config.metrics_port is not None:
                page = serve(metrics_page, config.metrics_host, config.metrics_port, tls=context)
                tasks.append(serving.create_task(page))
            yield gateway
            for task in tasks:
                task.cancel()


async def _put_together(
    config: GatewayConfig, door: Door, clock: Clock, randomness: Randomness, stack: contextlib.AsyncExitStack
) -> Gateway:
    broken: list[str] = []

    async def contexts_in(inner: Table) -> ContextTable:
        return await ContextTable.open(inner, door, clock, config.rows)

    contexts = await _opened(config.data / _CONTEXTS_FILE, contexts_in, broken)
    if contexts is None:
        contexts = ContextTable(BrokenTable(broken[-1]), door, clock, config.rows)
    stack.push_async_callback(contexts.close)
    # Without it nothing can be forwarded, but everything can be decided.
    instances = await _opened(config.data / _INSTANCES_FILE, InstanceTable.open, broken)
    if instances is None:
        instances = InstanceTable(BrokenTable(broken[-1]))
    stack.push_async_callback(instances.close)
    decider = KeyDecider(contexts, door, clock, randomness, cache_entries=config.cache_entries)
    await stack.enter_async_context(decider)
    return Gateway(config, door, contexts, instances, decider, clock, randomness, tuple(broken))


async def _opened(path: Path, wrap: Callable[[Table], Awaitable[T]], broken: list[str]) -> T | None:
    """The table in `path`, wrapped. None, and why in `broken`, when it cannot be read; it stays as it is."""
    table: SqliteTable | None = None
    try:
        table = await SqliteTable.open(path)
        return await wrap(table)
    except Exception as error:  # noqa: BLE001  # whatever is wrong with the file, the gateway is to start
        if table is not None:
            await table.close()
        told = f"{type(error).__name__}: {error}"
        why = f"table {path} cannot be read ({told}); move it away and start again, and it is filled anew"
        log_event.warning("a table cannot be read", table=str(path), error=told)
        broken.append(why)
        return None


def _limits(config: GatewayConfig) -> GatewayLimits:
    return GatewayLimits(
        connections_max=config.connections,
        fronts=config.fronts,
        body_bytes=config.body_bytes,
        answer_seconds=config.answer_seconds,
        drain_seconds=config.drain_seconds,
    )


def _heart(gateway: Gateway, epoch: int) -> GatewayHeart:
    return GatewayHeart(
        region=gateway.config.region,
        gateway=gateway.config.name,
        epoch=epoch,
        table=gateway.contexts,
        door=gateway.door,
        ready=gateway.ready,
        errors=lambda: gateway.decider.errors,
        address=gateway.address,
        states=gateway.workers,
        clock=gateway.clock,
        randomness=gateway.randomness,
        period_seconds=gateway.config.heartbeat_seconds,
    )


async def _use_log(gateway: Gateway, heart: GatewayHeart, reaching: RegionLog) -> None:
    """All that needs the region's log, until the log is another; each part tries again by itself."""
    contexts, config = gateway.contexts, gateway.config

    def unfinished() -> bool:
        return not contexts.knows.complete

    async with reaching.opened() as log, workers(gateway.clock, gateway.randomness) as group:
        gateway.states.append(group.states)
        try:
            topics = (CONTEXTS, CONTEXTS_BULK)
            reading = partial(keep, hurry=unfinished, tell=contexts.set_behind)
            group.start("contexts", _kept_going(lambda: reading(contexts, log, topics, gateway.door.read)))
            group.start(
                "instances", _kept_going(lambda: keep(gateway.instances, log, [STATUS], read_instance))
            )
            table = context_table(config.name)
            answering = _kept_going(lambda: heart.alone(answer_sweeps(table, contexts, log)))
            group.start("sweep answers", answering)
            group.start("heartbeat", _kept_going(lambda: heart.run(log)))
            await reaching.until_replaced()
        finally:
            gateway.states.remove(group.states)


def _kept_going(work: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    """`work`, whose failures are all tried again: a gateway serves, whatever ails its feed."""

    async def kept_going() -> None:
        try:
            await work()
        except Exception as error:
            if advice_for(error) is Advice.RETRY:
                raise
            told = "; ".join(f"{type(each).__name__}: {each}" for each in members_of(error))
            log_event.debug("a worker failed; what is held is served on", exc_info=True)
            raise GatewayWorkerError(told) from error

    return kept_going
