"""`transom restore` and `transom purge`: a deletion undone, or made final."""

import click

from transom.cli.common import (
    Way,
    hub_options,
    kind_called,
    output_option,
    run,
    split_reference,
    tenant_for,
    tenant_option,
    why_option,
)
from transom.cli.output import echo_json, echo_yaml, harmless
from transom.model.resources import JsonObject

_dry_run_option = click.option("--dry-run", is_flag=True, help="Only say what would happen.")


@click.command("restore")
@click.argument("resource", metavar="KIND/NAME")
@tenant_option
@why_option
@_dry_run_option
@output_option("text", "json", "yaml")
@hub_options
def restore_command(
    resource: str,
    tenant: str,
    why: str,
    dry_run: bool,  # noqa: FBT001  # as click passes a flag
    output: str,
    way: Way,
) -> None:
    """Bring back KIND/NAME, which was deleted, and all that was deleted because of it.

    It has its uid again, and what it declared when its deletion was asked for. That is possible until its
    retention ends (30 days, unless the hub is configured otherwise) and nothing else has its name.
    """
    called, name = split_reference(resource)
    run(_do("restore", way, called, name, tenant, why, output, dry_run=dry_run))


@click.command("purge")
@click.argument("resource", metavar="KIND/NAME")
@tenant_option
@click.option("--why", required=True, metavar="TEXT", help="The reason, for the history.")
@_dry_run_option
@output_option("text", "json", "yaml")
@hub_options
def purge_command(
    resource: str,
    tenant: str,
    why: str,
    dry_run: bool,  # noqa: FBT001  # as click passes a flag
    output: str,
    way: Way,
) -> None:
    """Keep nothing of KIND/NAME, which was deleted, nor of what was deleted because of it.

    That it was there, who changed it, when and why stays in the history; what it was does not. It cannot be
    undone. Without this it happens by itself when the retention ends.
    """
    called, name = split_reference(resource)
    run(_do("purge", way, called, name, tenant, why, output, dry_run=dry_run))


async def _do(
    verb: str, way: Way, called: str, name: str, tenant: str, why: str, output: str, *, dry_run: bool
) -> None:
    async with way.connect() as client:
        kind = await kind_called(client, called)
        inside = await tenant_for(client, kind, tenant)
        ask = client.restore if verb == "restore" else client.purge
        found = await ask(kind, name, inside, why, dry_run=dry_run)
    if output != "text":
        (echo_json if output == "json" else echo_yaml)(found)
        return
    done = "restored" if verb == "restore" else "purged"
    for item in found["items"]:
        click.echo(harmless(f"{_named(item)} {f'would be {done}' if dry_run else done}"))
    for item in found.get("left", []):
        click.echo(harmless(f"{_named(item)} stays deleted: {item['why']}"))


def _named(item: JsonObject) -> str:
    return f"{str(item['kind']).lower()}/{item['name']}"
