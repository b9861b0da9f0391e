"""`transom wait`: until a condition holds for what was declared last, or a resource is gone."""

import asyncio
import sys

import click

from transom.cli.common import (
    Way,
    hub_options,
    kind_called,
    output_option,
    reference,
    run,
    seconds_of,
    split_reference,
    tenant_for,
    tenant_option,
)
from transom.cli.exit_codes import REFUSED, TIMED_OUT
from transom.cli.output import echo_json, harmless
from transom.client.hub import ApiError
from transom.client.waiting import Missing, until_condition, until_deleted, wait_for


@click.command("wait")
@click.argument("resource", metavar="KIND/NAME")
@click.option(
    "--for", "wanted", required=True, metavar="WHAT", help="condition=NAME, condition=NAME=VALUE, or delete."
)
@click.option("--timeout", default="60s", show_default=True, metavar="TIME", help="As 90s, 1m30s, 500ms.")
@tenant_option
@output_option("text", "json")
@hub_options
def wait_command(resource: str, wanted: str, timeout: str, tenant: str, output: str, way: Way) -> None:
    """Wait until KIND/NAME is ready (--for=condition=Ready), or gone (--for=delete)."""
    called, name = split_reference(resource)
    missing, met = _wanted(wanted)
    run(_wait(way, called, name, tenant, missing, met, seconds_of("--timeout", timeout), output))


def _wanted(what: str) -> tuple[Missing, str]:
    """What tells that it is not so yet, and how to say that it is."""
    if what == "delete":
        return until_deleted, "is gone"
    word, _, rest = what.partition("=")
    condition, _, value = rest.partition("=")
    if word != "condition" or not condition:
        raise click.UsageError("--for takes condition=NAME, condition=NAME=VALUE or delete")
    met = f"is {condition}" if value in ("", "True") else f"has {condition} {value}"
    return until_condition(condition, value or "True"), met


async def _wait(
    way: Way,
    called: str,
    name: str,
    tenant: str,
    missing: Missing,
    met: str,
    seconds: float,
    output: str,
) -> None:
    named = f"{called.lower()}/{name}"
    last = said = "the hub did not answer"

    def tell(text: str) -> None:
        nonlocal last, said
        last, line = text, text.partition("\n")[0]
        if line != said:
            click.echo(f"waiting for {named}: {harmless(line)}", err=True)
        said = line

    async with way.connect() as client:
        try:
            async with asyncio.timeout(seconds):
                kind = await kind_called(client, called)
                named = reference(kind, name)
                tenant = await tenant_for(client, kind, tenant)
                await wait_for(client, kind, name, tenant, missing, tell)
        except TimeoutError:
            click.echo(f"error: {named}: the time is up after {seconds:g} s; {harmless(last)}", err=True)
            sys.exit(TIMED_OUT)
        except ApiError as error:
            click.echo(f"error: {named}: {error}", err=True)
            sys.exit(REFUSED)
    if output == "json":
        echo_json({"kind": kind.name, "name": name, "tenant": tenant, "result": met})
    else:
        click.echo(f"{named} {met}")
