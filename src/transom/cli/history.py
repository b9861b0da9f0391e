"""`transom history` and `transom diff`: what happened to one resource, for people and programs."""

import re

import click
import msgspec

from transom.cli.common import (
    Way,
    hub_options,
    kind_called,
    output_option,
    reference,
    run,
    split_reference,
    tenant_for,
    tenant_option,
)
from transom.cli.output import age, echo_json, echo_table, echo_yaml, harmless
from transom.model.resources import JsonObject

CHANGES_HEAD = ("REVISION", "GENERATION", "EVENT", "WHO", "FROM", "AGE", "CHANGED", "WHY")

_PATHS_SHOWN = 3
_AT = re.compile(r"@([1-9][0-9]{0,17})\Z")


@click.command("history")
@click.argument("resource", metavar="KIND/NAME")
@tenant_option
@click.option("--limit", type=click.IntRange(1), default=500, show_default=True, help="How many changes.")
@output_option("table", "json", "yaml")
@hub_options
def history_command(resource: str, tenant: str, limit: int, output: str, way: Way) -> None:
    """Who changed KIND/NAME, when, from where, why, and what; newest first.

    A deleted one has its history too, and a name that was declared anew has that of all its lives. As JSON or
    YAML each change has its old and new values.
    """
    called, name = split_reference(resource)
    run(_history(way, called, name, tenant, limit, output))


@click.command("diff")
@click.argument("resource", metavar="KIND/NAME@GENERATION")
@click.argument("other", metavar="[@GENERATION]", required=False, default="")
@tenant_option
@output_option("text", "json", "yaml")
@hub_options
def diff_command(resource: str, other: str, tenant: str, output: str, way: Way) -> None:
    """What changed from one generation of KIND/NAME to another, or to what is declared now.

    deployment/shop@7 @9 compares what was declared last at generations 7 and 9.
    """
    called, named = split_reference(resource)
    first, last = _AT.search(named), _AT.fullmatch(other)
    if first is None or (other and last is None):
        raise click.UsageError(f"expected KIND/NAME@7 or KIND/NAME@7 @9, not {resource!r}")
    numbers = int(first[1]), int(last[1]) if last else None
    run(_diff(way, called, named[: first.start()], numbers, tenant, output))


async def _history(way: Way, called: str, name: str, tenant: str, limit: int, output: str) -> None:
    async with way.connect() as client:
        kind = await kind_called(client, called)
        items = await client.history(kind, name, await tenant_for(client, kind, tenant), limit)
    if output == "table":
        echo_table(CHANGES_HEAD, [told_change(item) for item in items])
    else:
        _echo(output, items)


async def _diff(
    way: Way, called: str, name: str, numbers: tuple[int, int | None], tenant: str, output: str
) -> None:
    async with way.connect() as client:
        kind = await kind_called(client, called)
        found = await client.diff(kind, name, *numbers, await tenant_for(client, kind, tenant))
    if output != "text":
        _echo(output, found)
        return
    for sign, side in (("---", found["from"]), ("+++", found["to"])):
        click.echo(harmless(f"{sign} {reference(kind, name)}@{side['generation']}  {_told_side(side)}"))
    for change in found["changes"]:
        for sign, word in (("-", "old"), ("+", "new")):
            if word in change:
                click.echo(harmless(f"{sign} {change['path']}: {msgspec.json.encode(change[word]).decode()}"))
    if not found["changes"]:
        click.echo("nothing that was declared is different")


def told_change(item: JsonObject) -> tuple[str, ...]:
    """A change as a row under `CHANGES_HEAD`."""
    # All that was declared at first is no news.
    paths = [] if item["event"] == "ADDED" else [str(change["path"]) for change in item["changes"]]
    more = [f"{len(paths) - _PATHS_SHOWN} more"] if len(paths) > _PATHS_SHOWN else []
    return (
        str(item["revision"]),
        str(item["generation"]),
        item["event"],
        item["who"],
        item["source"] or "-",
        age(item["at"]),
        ", ".join([*paths[:_PATHS_SHOWN], *more]) or "-",
        item["why"] or "-",
    )


def _told_side(side: JsonObject) -> str:
    why = f": {side['why']}" if side["why"] else ""
    return f"{side['event']} by {side['who']} at {side['at']}{why}"


def _echo(output: str, value: object) -> None:
    (echo_json if output == "json" else echo_yaml)(value)
