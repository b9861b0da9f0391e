"""`transom apply` and `transom delete`: documents, or a name, sent to the hub in order.

When a document cannot be read, nothing is sent. When the hub refuses one, the others are still sent, every
refusal is told with all its mistakes, and the exit code is 1.
"""

import sys
from collections.abc import Awaitable, Callable

import click

from transom.cli.common import (
    Way,
    hub_options,
    kind_called,
    named,
    output_option,
    reference,
    run,
    tenant_for,
    tenant_option,
    why_option,
)
from transom.cli.exit_codes import REFUSED
from transom.cli.failures import mistakes_of, tell_one
from transom.cli.manifests import Document, Manifest, manifests_in, read_documents
from transom.cli.output import echo_json
from transom.client.hub import ApiError, HubClient
from transom.client.kinds import kinds_of
from transom.model.kinds import Kind
from transom.model.resources import JsonObject

_files_option = click.option(
    "-f", "--file", "files", multiple=True, metavar="FILE", help="YAML or JSON; '-' is standard input."
)


@click.command("apply")
@_files_option
@tenant_option
@why_option
@output_option("text", "json")
@hub_options
def apply_command(files: tuple[str, ...], tenant: str, why: str, output: str, way: Way) -> None:
    """Create or change what the documents in FILE declare, in their order."""
    if not files:
        raise click.UsageError("say what to apply, with -f FILE (or -f - for standard input)")

    async def one(client: HubClient, manifest: Manifest, inside: str) -> str:
        _, result = await client.apply(manifest.kind, manifest.body, inside, why)
        return result

    documents = read_documents(files)

    async def declared(client: HubClient) -> list[Manifest]:
        return await _readable(client, documents)

    run(_all(way, declared, tenant, output, one))


@click.command("delete")
@click.argument("kind", metavar="[KIND[/NAME]]", required=False, default="")
@click.argument("name", required=False, default="")
@_files_option
@tenant_option
@why_option
@output_option("text", "json")
@hub_options
def delete_command(
    kind: str,
    name: str,
    files: tuple[str, ...],
    tenant: str,
    why: str,
    output: str,
    way: Way,
) -> None:
    """Delete KIND NAME, or what the documents in FILE declare, the last one first."""
    kind, name = named(kind, name)
    if bool(files) == bool(kind) or bool(kind) != bool(name):
        raise click.UsageError("say what to delete: KIND NAME, or -f FILE")
    documents = read_documents(files)

    async def last_first(client: HubClient) -> list[Manifest]:
        if files:
            return (await _readable(client, documents))[::-1]
        return [Manifest("", await kind_called(client, kind), name, "", {})]

    async def one(client: HubClient, manifest: Manifest, inside: str) -> str:
        held = await client.delete(manifest.kind, manifest.name, inside, why)
        return "deleted" if held is None else f"deleting, waits for {', '.join(held.metadata.finalizers)}"

    run(_all(way, last_first, tenant, output, one))


async def _readable(client: HubClient, documents: list[Document]) -> list[Manifest]:
    manifests, errors = manifests_in(documents, await kinds_of(client))
    if errors:
        for error in errors:
            tell_one(error)
        click.echo("nothing was sent to the hub", err=True)
        sys.exit(REFUSED)
    return manifests


async def _all(
    way: Way,
    found: Callable[[HubClient], Awaitable[list[Manifest]]],
    tenant: str,
    output: str,
    one: Callable[[HubClient, Manifest, str], Awaitable[str]],
) -> None:
    """Do `one` with each manifest `found`, in order; what was refused is told, and told of at the end."""
    results: list[JsonObject] = []
    refused = 0
    async with way.connect() as client:
        manifests = await found(client)
        for manifest in manifests:
            named = reference(manifest.kind, manifest.name)
            told: JsonObject = {"kind": manifest.kind.name, "name": manifest.name}
            try:
                inside = await _tenant(client, manifest, tenant)
                result = await one(client, manifest, inside)
                results.append({**told, "tenant": inside, "result": result})
                if output == "text":
                    click.echo(f"{named} {result}")
            except ApiError as error:
                refused += 1
                causes = [{"field": path, "message": message} for path, message in mistakes_of(error)]
                results.append({**told, "result": "refused", "message": str(error), "causes": causes})
                tell_one(error, f"{manifest.place} ({named})" if manifest.place else named)
    if output == "json":
        echo_json(results)
    if refused:
        if len(manifests) > 1:
            click.echo(f"{refused} of {len(manifests)} documents were refused, the others are done", err=True)
        sys.exit(REFUSED)


async def _tenant(client: HubClient, manifest: Manifest, given: str) -> str:
    kind: Kind = manifest.kind
    if manifest.tenant and given and manifest.tenant != given:
        raise click.UsageError(f"{manifest.place} is for tenant {manifest.tenant!r}, -n says {given!r}")
    return await tenant_for(client, kind, manifest.tenant or given)
