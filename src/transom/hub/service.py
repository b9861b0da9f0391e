"""A hub, put together: store, log, relay, controllers, roads and API, started and stopped in layer order."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from transom.hub.api import hub_api
from transom.hub.config import HubConfig
from transom.hub.contexts.service import Contexts, check_subjects
from transom.hub.contexts.signer import hub_signer
from transom.hub.controllers import Controller, ControllerRunner, check_controllers
from transom.hub.network import RoadNetwork
from transom.hub.relay import CHANGES, Relay, check_incarnation
from transom.hub.store import Store
from transom.hub.store_engine import named_database
from transom.links.positions import POSITIONS
from transom.logs.opening import LogPlace, open_log
from transom.logs.protocol import Log
from transom.logs.sqlite import SqliteLog
from transom.model.contexts import ContextKinds
from transom.model.kinds import Catalog
from transom.runtime.clock import Clock, rfc3339
from transom.runtime.http import check_free, serve, server_tls
from transom.runtime.processes import folder_held
from transom.runtime.randomness import Randomness
from transom.runtime.secret_files import ensure_secret, hash_secret
from transom.runtime.tasks import Workers, workers

_STATUS_HISTORY_SECONDS = 86_400.0
_HISTORY_SECONDS = 30 * 86_400.0


@dataclass
class Hub:
    """The parts of a running hub, for whoever composes or tests it."""

    store: Store
    log: Log
    network: RoadNetwork
    contexts: Contexts
    controllers: Sequence[ControllerRunner]
    workers: Workers


@contextlib.asynccontextmanager
async def running_hub(
    config: HubConfig,
    catalog: Catalog,
    context_kinds: ContextKinds,
    controllers: Sequence[Controller],
    clock: Clock,
    randomness: Randomness,
    ready: Callable[[int], None] | None = None,
) -> AsyncGenerator[Hub]:
    """Run a hub while the block runs. Paths in `config` are absolute.

    Raises `InvalidError`, `NewerDataError`, `ExistsError` (its folder is in use) before anything was started.
    """
    check_controllers(catalog, controllers)
    check_subjects(catalog, context_kinds)
    check_free(config.host, config.port)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(folder_held(config.data, "configuration of the hub"))
        admin_key_hash = hash_secret(ensure_secret(config.data / "admin.key"))
        database = named_database(
            config.store, config.data / "store.db", config.store_password_file, config.store_trust
        )
        store = await Store.open(database, catalog, clock, randomness)
        stack.push_async_callback(store.close)
        signer = await hub_signer(store, config.signing_key)
        log, clean = await _own_log(config, clock, randomness)
        stack.push_async_callback(log.close)
        await log.create([POSITIONS, CHANGES])
        await check_incarnation(store, log)
        contexts = await Contexts.open(store, context_kinds, config.contexts, signer, clock)
        stack.push_async_callback(contexts.close)
        group = await stack.enter_async_context(workers(clock, randomness))
        network = RoadNetwork(
            store, log, clock, randomness, config.link_keys, config.sweep_seconds, config.trust, contexts
        )
        runners = [ControllerRunner(each, store, log, clock, randomness) for each in controllers]
        group.start("relay", Relay(store, log).run)
        for runner in runners:
            group.start(runner.controller.name, runner.run)
        contexts.start(group)
        group.start("roads", lambda: network.run(group))
        stack.push_async_callback(network.close)
        group.start("housekeeping", lambda: _keep_tidy(store, clean, config.clean_seconds, clock, randomness))
        api = hub_api(
            store,
            admin_key_hash=admin_key_hash,
            roads=network,
            states=group.states.values,
            clock=clock,
            contexts=contexts,
        )
        tls = server_tls("configuration of the hub", config.tls_cert, config.tls_key)
        async with asyncio.TaskGroup() as server:
            # Not a supervised worker: a hub that cannot be reached must say so and end.
            serving = server.create_task(serve(api, config.host, config.port, tls=tls, ready=ready))
            yield Hub(store, log, network, contexts, runners, group)
            serving.cancel()


async def _own_log(
    config: HubConfig, clock: Clock, randomness: Randomness
) -> tuple[Log, Callable[[], Awaitable[object]]]:
    """The hub's log, and what cleans it up: Kafka does that by itself."""
    if config.log:
        place = LogPlace(config.log, config.log_key_file, config.log_trust)
        return await open_log(place, clock, randomness), _nothing
    log = await SqliteLog.open(config.data / "log.db", clock)
    return log, lambda: log.clean(clock)


async def _nothing() -> None:
    pass


async def _keep_tidy(
    store: Store,
    clean: Callable[[], Awaitable[object]],
    every_seconds: float,
    clock: Clock,
    randomness: Randomness,
) -> None:
    """Compact the log and forget old history, again and again."""
    while True:
        await clock.sleep(randomness.jitter(every_seconds))
        await clean()
        now = clock.wall()
        await store.prune_history(rfc3339(now - _STATUS_HISTORY_SECONDS), rfc3339(now - _HISTORY_SECONDS))
