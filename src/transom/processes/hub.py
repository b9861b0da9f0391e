"""The hub's process: configuration in, a running hub until it is told to stop."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from transom.catalog.contexts import shipped_contexts
from transom.catalog.deployment.controller import DeploymentController
from transom.catalog.kinds import shipped
from transom.hub.config import HubConfig
from transom.hub.regional import regional_controllers
from transom.hub.service import running_hub
from transom.model.own import OwnKinds
from transom.processes.lifetime import collect_seldom, open_many_files, started, until_told_to_stop
from transom.runtime.clock import SystemClock
from transom.runtime.config import load
from transom.runtime.randomness import Randomness
from transom.runtime.telemetry import configure_logging, get_logger

log = get_logger(__name__)


async def run_hub(config_path: Path) -> None:
    """Run the hub of a configuration file until SIGTERM or SIGINT; it begins once its store and log answer.

    Raises what `running_hub` raises, and `InvalidError` for what is wrong with kinds of somebody's own.
    """
    config = load(config_path, HubConfig)
    configure_logging("hub", config.log_level)
    open_many_files()
    kinds = shipped_contexts(config.context_modules)
    own = OwnKinds(config.kind_modules, config_path.parent)
    catalog = shipped(own.kinds)
    controllers = [DeploymentController(), *regional_controllers(own.kinds), *own.controllers()]
    clock, randomness = SystemClock(), Randomness()

    def parts() -> AbstractAsyncContextManager[object]:
        return running_hub(config, catalog, kinds, controllers, clock, randomness, ready=_announce)

    async with started(parts, clock):
        collect_seldom()
        await until_told_to_stop()


def _announce(port: int) -> None:
    log.info("serving", port=port)
