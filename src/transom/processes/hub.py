"""The hub's process: configuration in, a running hub until it is told to stop."""

from pathlib import Path

from transom.catalog.deployment.controller import DeploymentController
from transom.catalog.kinds import shipped
from transom.hub.config import HubConfig
from transom.hub.service import running_hub
from transom.processes.lifetime import collect_seldom, until_told_to_stop
from transom.runtime.clock import SystemClock
from transom.runtime.config import beside, load
from transom.runtime.randomness import Randomness
from transom.runtime.telemetry import configure_logging, get_logger

log = get_logger(__name__)


async def run_hub(config_path: Path) -> None:
    """Run the hub of a configuration file until SIGTERM or SIGINT. Raises what `running_hub` raises."""
    config = hub_config(config_path)
    configure_logging("hub", config.log_level)
    parts = running_hub(config, shipped(), [DeploymentController()], SystemClock(), Randomness(), _announce)
    async with parts:
        collect_seldom()
        await until_told_to_stop()


def hub_config(path: Path) -> HubConfig:
    """The configuration in a file, with its paths made absolute."""
    config = load(path, HubConfig)
    paths = {
        name: beside(path, value)
        for name in ("data", "link_keys", "trust", "tls_cert", "tls_key")
        if (value := getattr(config, name)) is not None
    }
    return config.model_copy(update=paths)


def _announce(port: int) -> None:
    log.info("serving", port=port)
