"""`transom up`, `hub` and `region`: starting what is in `processes`, each loaded only when it is started."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import click

_config_option = click.option(
    "-c", "--config", "config", type=click.Path(path_type=Path), metavar="FILE", help="Its configuration."
)


@click.command("hub")
@_config_option
def hub_command(config: Path | None) -> None:
    """Run the hub of FILE (.transom/hub/hub.toml) until SIGTERM or Ctrl-C."""
    from transom.processes.hub import run_hub  # noqa: PLC0415  # a region must not load the hub

    _run(run_hub(config or Path(".transom/hub/hub.toml")))


@click.command("region")
@click.argument("name")
@_config_option
def region_command(name: str, config: Path | None) -> None:
    """Run region NAME of FILE (.transom/regions/NAME/region.toml); what it runs goes on when it ends."""
    from transom.processes.region import region_config, run_region  # noqa: PLC0415

    path = config or Path(".transom/regions") / name / "region.toml"
    configured = region_config(path)
    if configured.name != name:
        raise click.UsageError(f"{path} is the configuration of region {configured.name!r}, not {name!r}")
    _run(run_region(path))


@click.command("up")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".transom"),
    show_default=True,
    help="Folder for everything: configuration, keys, data, logs.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65_000),
    help="Port of the hub; regions have the next ones. For a new folder.  [default: 8480]",
)
@click.option(
    "--regions", metavar="NAME,…", help="Names of the regions.  [default: those there are, or eu,us,ap]"
)
@click.option("--demo", is_flag=True, help="Then run a small app in all regions, and say what to try.")
def up_command(folder: Path, port: int | None, regions: str | None, demo: bool) -> None:  # noqa: FBT001
    """Run a hub and regions on this machine until Ctrl-C, which ends all of it, workloads included.

    What dies is not started again: the line that does it is printed. What runs already is taken over.
    """
    from transom.processes.up import run_up  # noqa: PLC0415

    names = None if regions is None else tuple(name.strip() for name in regions.split(","))
    _run(run_up(folder, port, names, demo=demo))


def _run(work: Coroutine[Any, Any, None]) -> None:
    import uvloop  # noqa: PLC0415

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)
