"""A hub's process, put together: store, log, its part of the duties, and the API, in layer order.

Several processes share one hub when its store is in PostgreSQL and its log in Kafka: each has the API and
runs controllers, and each duty is done by one of them (`duties`). Next on the data's way: `works`.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from transom.hub.access.issuers import OidcIssuer
from transom.hub.api.app import hub_api
from transom.hub.api.elsewhere import Elsewhere
from transom.hub.audit import Audit
from transom.hub.config import HubConfig
from transom.hub.contexts.service import Contexts, check_subjects
from transom.hub.contexts.signer import hub_signer
from transom.hub.controllers import Controller, ControllerRunner, check_controllers
from transom.hub.duties import StoreRegistry
from transom.hub.network import RoadNetwork
from transom.hub.relay import CHANGES, check_incarnation
from transom.hub.shards import Shards
from transom.hub.store import Store
from transom.hub.store_engine import named_database
from transom.hub.works import ROADS, ContextsHere, RoadsHere, Works
from transom.links.positions import POSITIONS
from transom.logs.opening import LogPlace, open_log
from transom.logs.protocol import Log
from transom.logs.sqlite import SqliteLog
from transom.model.contexts import ContextKinds
from transom.model.kinds import Catalog
from transom.runtime.authority import ensure_authority
from transom.runtime.clock import Clock
from transom.runtime.duties import Alone, Duties, identity_in
from transom.runtime.http import check_free, serve
from transom.runtime.processes import folder_held
from transom.runtime.randomness import Randomness
from transom.runtime.secret_files import ensure_secret, hash_secret
from transom.runtime.serving_tls import FromAuthority, FromFiles, ServerTls
from transom.runtime.tasks import Workers, workers
from transom.runtime.tls import client_tls

_FINGERPRINT_CHARACTERS = 16
_WHAT = "configuration of the hub"
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


@dataclass
class Hub:
    """The parts of a running hub, for whoever composes or tests it."""

    store: Store
    log: Log
    roads: RoadsHere
    duties: Duties
    controllers: Sequence[ControllerRunner]
    workers: Workers

    @property
    def network(self) -> RoadNetwork:
        """The roads. Raises `UnreachableError` while another process has them."""
        return self.roads.network

    @property
    def contexts(self) -> Contexts:
        """The contexts. Raises `UnreachableError` while another process has them."""
        return self.roads.contexts


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
        stack.enter_context(folder_held(config.data, _WHAT))
        tls = server_tls(config, clock)
        there = client_tls(_WHAT, "trust", config.ca_file)
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
        group = await stack.enter_async_context(workers(clock, randomness))
        group.start("certificate", tls.keep)
        shards = Shards()
        runners = [ControllerRunner(each, store, log, clock, randomness, shards) for each in controllers]
        for runner in runners:
            group.start(runner.controller.name, runner.run)
        roads = RoadsHere()
        contexts = ContextsHere(context_kinds, signer, roads)
        works = Works(config, store, log, clean, contexts, roads, shards, group, clock, randomness)
        registry = StoreRegistry(store) if database.is_shared else Alone()
        alike = {
            "log": (await log.topics([CHANGES.name]))[CHANGES.name].topic_id,
            "admin.key": admin_key_hash[:_FINGERPRINT_CHARACTERS],
            "signing_key": signer.key_id,
        }
        identity = identity_in(config.data, registry, randomness)
        duties = Duties(registry, group, clock, randomness, *identity, alike)
        issuers = [OidcIssuer(each, clock, randomness) for each in config.oidc]
        for issuer in issuers:
            group.start(f"issuer {issuer.config.prefix}", issuer.run)
        api = hub_api(
            store,
            admin_key_hash=admin_key_hash,
            roads=roads,
            states=group.states.values,
            clock=clock,
            contexts=contexts,
            audit=Audit(store, signer, clock),
            elsewhere=Elsewhere(duties, ROADS, there),
            issuers=issuers,
            limits=config.limits,
        )
        serving = asyncio.Event()

        def begun(port: int) -> None:
            duties.address = config.address or f"https://{config.host}:{port}"
            serving.set()
            if ready is not None:
                ready(port)

        async with asyncio.TaskGroup() as server:
            # Not a supervised worker: a hub that cannot be reached must say so and end.
            served = server.create_task(serve(api, config.host, config.port, tls=tls.context, ready=begun))
            await serving.wait()
            await duties.begin(works.by_duty())
            group.start("duties", duties.run)
            try:
                yield Hub(store, log, roads, duties, runners, group)
            finally:
                await duties.close()
            served.cancel()


def server_tls(config: HubConfig, clock: Clock) -> ServerTls:
    """The hub's side of TLS, by the operator's certificate or by one of its own authority, which is made when
    there is none. Raises `InvalidError`.
    """
    host = next(iter(config.called), "") if config.address or config.store else ""
    if config.tls_cert is not None and config.tls_key is not None:
        return ServerTls(FromFiles(_WHAT, config.tls_cert, config.tls_key, clock, host), clock)
    authority = ensure_authority(config.authority_file, clock.wall())
    hosts = (*config.called, *_THIS_MACHINE)
    return ServerTls(FromAuthority(authority, hosts, config.data / "server.pem", clock), clock)


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
