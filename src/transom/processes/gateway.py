"""A gateway's process: configuration in, a running gateway until it is told to stop; no hub needed."""

import sys
from pathlib import Path

from transom.catalog.contexts import shipped_contexts
from transom.model.errors import InvalidError, Problem
from transom.processes.lifetime import collect_seldom, until_told_to_stop
from transom.region.gateway.config import GatewayConfig
from transom.region.gateway.service import running_gateway
from transom.runtime.clock import SystemClock
from transom.runtime.config import load
from transom.runtime.randomness import Randomness
from transom.runtime.telemetry import configure_logging, get_logger

log = get_logger(__name__)

_SWITCH_SECONDS = 0.0002


async def run_gateway(config_path: Path, region: str | None = None) -> None:
    """Run the gateway of a configuration file until SIGTERM or SIGINT.

    Raises what `running_gateway` raises, and `InvalidError` when the file is not of a gateway of `region`, or
    names modules without context kinds.
    """
    config = load(config_path, GatewayConfig)
    if region not in (None, config.region):
        wrong = f"is the configuration of a gateway of region {config.region!r}, not {region!r}"
        raise InvalidError(f"configuration {config_path}", [Problem("region", wrong)])
    kinds = shipped_contexts(config.context_modules)
    # A thread that decodes or sweeps gives way to requests this soon; Python's 5 ms would be felt in each.
    sys.setswitchinterval(_SWITCH_SECONDS)
    configure_logging(f"gateway/{config.region}/{config.name}", config.log_level)
    async with running_gateway(config, kinds, SystemClock(), Randomness(), _announce):
        collect_seldom()
        await until_told_to_stop()


def _announce(port: int) -> None:
    log.info("serving", port=port)
