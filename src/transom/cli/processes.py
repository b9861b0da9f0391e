"""`transom up`, `hub`, `region`, `gateway`, `drill`: starting `processes`, each loaded when it is used."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import click

from transom.cli.common import output_option
from transom.cli.exit_codes import INTERRUPTED, REFUSED
from transom.cli.output import echo_json, echo_table

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
    from transom.processes.region import run_region  # noqa: PLC0415

    _run(run_region(config or Path(".transom/regions") / name / "region.toml", name))


@click.command("gateway")
@click.argument("region")
@_config_option
def gateway_command(region: str, config: Path | None) -> None:
    """Run the gateway of REGION in FILE (.transom/regions/REGION/gateway.toml) until SIGTERM or Ctrl-C.

    It serves on what its own disk holds, whatever else is gone.
    """
    from transom.processes.gateway import run_gateway  # noqa: PLC0415

    _run(run_gateway(config or Path(".transom/regions") / region / "gateway.toml", region))


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
@click.option(
    "--kinds",
    multiple=True,
    metavar="FILE",
    help="Module with kinds of your own: a file, or what can be imported. For a new folder.",
)
@click.option("--demo", is_flag=True, help="Then run a small app in all regions, and say what to try.")
def up_command(
    folder: Path,
    port: int | None,
    regions: str | None,
    kinds: tuple[str, ...],
    demo: bool,  # noqa: FBT001  # as click passes a flag
) -> None:
    """Run a hub and regions on this machine until Ctrl-C, which ends all of it, workloads included.

    What dies is not started again: the line that does it is printed. What runs already is taken over.
    """
    from transom.processes.up import run_up  # noqa: PLC0415

    names = None if regions is None else tuple(name.strip() for name in regions.split(","))
    _run(run_up(folder, port, names, demo=demo, kinds=kinds))


@click.command("drill")
@click.argument("what", type=click.Choice(["hub", "region"]))
@click.argument("name", default="")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".transom"),
    show_default=True,
    help="The folder of `transom up`.",
)
@click.option("-n", "--tenant", default="acme", show_default=True, help="Whose app is asked.")
@click.option("--app", default="hello", show_default=True, help="The Deployment that is asked.")
@click.option("--away", type=click.FloatRange(0, 3600), default=10.0, show_default=True, help="Seconds.")
@click.option(
    "--rate", type=click.FloatRange(0.1, 200), default=20.0, show_default=True, help="Requests a second."
)
@output_option("table", "json")
def drill_command(
    what: str, name: str, folder: Path, tenant: str, app: str, away: float, rate: float, output: str
) -> None:
    """Kill the hub, or region NAME with its gateway, keep asking all gateways, start it again, and report.

    Exit code 1 when a request failed at a gateway that was not taken away. Ctrl-C cuts it short: what was
    taken away is brought back, then it reports what it saw (exit code 130).
    """
    from transom.processes.drill import run_drill  # noqa: PLC0415  # most verbs run no parts

    if (what == "region") == (not name):
        raise click.UsageError("say `drill hub`, or `drill region NAME`")
    drill = run_drill(
        folder,
        name or None,
        tenant=tenant,
        app=app,
        away_seconds=away,
        rate=rate,
        tell=lambda text: click.echo(text, err=True),
    )
    report = asyncio.run(drill)
    if output == "json":
        echo_json(report)
    else:
        rows = [
            (gateway, str(count), str(report.failed[gateway])) for gateway, count in report.requests.items()
        ]
        echo_table(("GATEWAY", "REQUESTS", "FAILED"), rows)
        noticed = report.noticed_after_seconds
        click.echo(
            f"{report.taken_away} was away for {report.away_seconds} s; "
            + ("not noticed by then, " if noticed is None else f"noticed after {noticed} s, ")
            + f"recovered {report.recovered_after_seconds} s after its start"
        )
    if report.cut_short:
        raise SystemExit(INTERRUPTED)
    if report.failed_elsewhere:
        raise SystemExit(REFUSED)


def _run(work: Coroutine[Any, Any, None]) -> None:
    import uvloop  # noqa: PLC0415

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)
