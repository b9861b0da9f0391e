"""A region's process: configuration in, a running region until it is told to stop. What it runs goes on."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from transom.catalog.deployment.driver import RegionalDeploymentPlanner
from transom.catalog.deployment.kind import REGIONAL_DEPLOYMENT
from transom.catalog.kinds import shipped
from transom.model.errors import InvalidError, Problem
from transom.model.own import OwnKinds
from transom.processes.lifetime import collect_seldom, started, until_told_to_stop
from transom.region.config import RegionConfig
from transom.region.made import MadePlanner
from transom.region.planning import Planner
from transom.region.service import running_region
from transom.runtime.clock import SystemClock
from transom.runtime.config import load
from transom.runtime.randomness import Randomness
from transom.runtime.telemetry import configure_logging, get_logger

log = get_logger(__name__)


async def run_region(config_path: Path, name: str | None = None) -> None:
    """Run the region of a configuration file until SIGTERM or SIGINT; it begins once its log answers.

    Raises what `running_region` raises, and `InvalidError` when the file is not of the region `name`
    or kinds of somebody's own have a mistake.
    """
    config = load(config_path, RegionConfig)
    if name not in (None, config.name):
        wrong = f"is the configuration of region {config.name!r}, not {name!r}"
        raise InvalidError(f"configuration {config_path}", [Problem("name", wrong)])
    configure_logging(f"region/{config.name}", config.log_level)
    own = OwnKinds(config.kind_modules, config_path.parent)
    makers = own.drivers()
    planners: dict[str, Planner] = {
        REGIONAL_DEPLOYMENT.name: RegionalDeploymentPlanner(),
        **{kind.name: MadePlanner(kind) for kind in shipped(own.kinds) if kind.name in makers},
    }
    clock, randomness = SystemClock(), Randomness()

    def parts() -> AbstractAsyncContextManager[object]:
        return running_region(config, planners, makers, clock, randomness, _announce)

    async with started(parts, clock):
        collect_seldom()
        await until_told_to_stop()


def _announce(port: int) -> None:
    log.info("serving", port=port)
