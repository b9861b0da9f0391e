"""`transom layers`, `regions`, `processes` and `version`: the hub itself."""

import click

from transom import __version__
from transom.cli.common import Way, hub_options, output_option, run
from transom.cli.contexts_told import ready_of
from transom.cli.output import echo_json, echo_table, harmless, span
from transom.model.errors import InvalidError
from transom.model.resources import JsonObject

_REGIONS_HEAD = (
    "REGION",
    "ENVIRONMENT",
    "REACHABLE",
    "DOWN LAG",
    "UP LAG",
    "KNOWS AGE",
    "CONTEXT AGE",
    "GATEWAYS",
    "SWEPT",
    "PROBLEMS",
)

_UNREACHABLE = "UnreachableError: "
"""How the state of a worker begins that cannot reach the other side."""


@click.command("layers")
@output_option("table", "json")
@hub_options
def layers_command(output: str, way: Way) -> None:
    """The kinds by floor: who owns each, and what its owner reads."""
    run(_layers(way, output))


@click.command("regions")
@output_option("table", "json")
@hub_options
def regions_command(output: str, way: Way) -> None:
    """The roads to every region: reachable, records waiting down and up, how old what it knows is."""
    run(_regions(way, output))


@click.command("processes")
@output_option("table", "json")
@hub_options
def processes_command(output: str, way: Way) -> None:
    """The processes of the hub: where each is reached, whether it lives, and what it does for all."""
    run(_processes(way, output))


@click.command("version")
@output_option("text", "json")
@hub_options
def version_command(output: str, way: Way) -> None:
    """Which release this is, and, where a hub is known, which one it is."""
    run(_version(way, output))


async def _layers(way: Way, output: str) -> None:
    async with way.connect() as client:
        items = await client.layers()
    if output == "json":
        echo_json(items)
        return
    rows = [
        (str(item["layer"]), item["kind"], item["owner"], item["statusOwner"] or "-", _joined(item["reads"]))
        for item in items
    ]
    echo_table(("LAYER", "KIND", "OWNER", "STATUS OWNER", "READS"), rows)


async def _regions(way: Way, output: str) -> None:
    async with way.connect() as client:
        items = await client.regions()
    if output == "json":
        echo_json(items)
        return
    echo_table(_REGIONS_HEAD, [_region(item) for item in items])


def _region(item: JsonObject) -> tuple[str, ...]:
    problems: dict[str, str] = item.get("problems", {})
    return (
        item["region"],
        item.get("environment", "-"),
        "yes" if item["reachable"] else "no",
        _number(item.get("down_lag")),
        _number(item.get("up_lag")),
        _span(item.get("knows_age_seconds")),
        _span(item.get("context_age_seconds"), "-"),
        _gateways(item.get("gateways")),
        _span(item.get("last_sweep_age_seconds")),
        harmless(_told(problems)) or "-",
    )


def _told(problems: dict[str, str]) -> str:
    """Each cause once, for whatever ails of it: a region that is down keeps five roads waiting."""
    parts: dict[str, list[str]] = {}
    for part, why in problems.items():
        parts.setdefault(why, []).append(part)
    return "; ".join(
        f"{why.removeprefix(_UNREACHABLE)} ({len(names)} roads wait)"
        if why.startswith(_UNREACHABLE) and len(names) > 1
        else f"{', '.join(names)}: {why.removeprefix(_UNREACHABLE)}"
        for why, names in parts.items()
    )


async def _processes(way: Way, output: str) -> None:
    async with way.connect() as client:
        items = await client.processes()
    if output == "json":
        echo_json(items)
        return
    rows = [
        (
            item["address"] + (" (answers)" if item["here"] else ""),
            "yes" if item["alive"] else "no",
            _joined(item["duties"]),
        )
        for item in items
    ]
    echo_table(("PROCESS", "ALIVE", "DUTIES"), rows)


async def _version(way: Way, output: str) -> None:
    told = {"client": __version__}
    try:
        way.find()
    except InvalidError:
        if way.said:
            raise
    else:
        async with way.connect() as client:
            # Behind the release of Kubernetes that the hub keeps to (`hub.api.health`).
            told["hub"] = str((await client.version())["gitVersion"]).rpartition("+transom.")[2]
    if output == "json":
        echo_json(told)
        return
    for part, release in told.items():
        click.echo(f"{part} {release}")


def _joined(names: list[str]) -> str:
    return ", ".join(names) or "-"


def _number(value: int | None) -> str:
    return "?" if value is None else str(value)


def _span(seconds: float | None, unknown: str = "?") -> str:
    return unknown if seconds is None else span(seconds)


def _gateways(beats: list[JsonObject] | None) -> str:
    return "-" if not beats else ready_of(beats)
