"""`transom get`: resources as a table, JSON or YAML, and as they change."""

import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import NamedTuple

import click

from transom.cli.common import (
    Way,
    hub_options,
    kind_called,
    named,
    output_option,
    run,
    tenant_for,
    tenant_option,
)
from transom.cli.output import aligned, as_yaml, echo_json, echo_yaml, harmless
from transom.client.hub import HubClient
from transom.client.tables import Row, Table
from transom.model.errors import UnreachableError
from transom.model.kinds import Kind
from transom.model.resources import JsonObject, to_json
from transom.runtime.clock import SystemClock

_AGAIN_SECONDS = 0.5


@click.command("get")
@click.argument("kind", metavar="KIND[/NAME]")
@click.argument("name", required=False, default="")
@click.option("-w", "--watch", "follow", is_flag=True, help="Then show what changes, until interrupted.")
@click.option("-l", "--selector", default="", metavar="LABEL=VALUE,…", help="Only those with these labels.")
@tenant_option
@output_option("table", "json", "yaml")
@hub_options
def get_command(
    kind: str,
    name: str,
    follow: bool,  # noqa: FBT001  # as click passes a flag
    selector: str,
    tenant: str,
    output: str,
    way: Way,
) -> None:
    """List the resources of KIND (of all tenants, without -n), or show the one called NAME."""
    kind, name = named(kind, name)
    if name and selector:
        raise click.UsageError("give a NAME or a selector, not both")
    run(_get(way, kind, name, tenant, selector, output, follow=follow))


async def _get(
    way: Way, called: str, name: str, tenant: str, selector: str, output: str, *, follow: bool
) -> None:
    async with way.connect() as client:
        kind = await kind_called(client, called)
        if name:
            tenant = await tenant_for(client, kind, tenant)
        shown = _Shown(client, kind, name, tenant, selector)
        printer = _Rows(shown) if output == "table" else _Documents(shown, output)
        revision = await printer.first(follow=follow)
        if follow:
            await _follow(printer, revision)


async def _follow(printer: "_Rows | _Documents", revision: str) -> None:
    clock, told = SystemClock(), False
    while True:
        try:
            async with aclosing(printer.changed(revision)) as revisions:
                async for seen in revisions:
                    told, revision = False, seen
                    sys.stdout.flush()
        except UnreachableError as error:
            if not told:
                click.echo(f"{error}; going on when it is back", err=True)
            told = True
            await clock.sleep(_AGAIN_SECONDS)


class _Shown(NamedTuple):
    """What is to be shown: resources of a kind, or the one called `name`."""

    client: HubClient
    kind: Kind
    name: str
    tenant: str
    selector: str


class _Rows:
    """Prints resources as rows of the table that the hub makes, and later changes below them."""

    def __init__(self, shown: _Shown) -> None:
        self._shown = shown
        self._with_tenant = False
        self._widths: list[int] = []

    async def first(self, *, follow: bool) -> str:
        """Print what there is; returns the revision it is of."""
        client, kind, name, tenant, selector = self._shown
        found = await client.table(kind, tenant, name, selector)
        tenants = {row.object.metadata.namespace for row in found.rows}
        self._with_tenant = kind.namespaced and len(tenants) > 1
        if found.rows or follow:
            self._print(found)
        else:
            click.echo(f"no {kind.plural} found", err=True)
        return found.revision

    async def changed(self, revision: str) -> AsyncGenerator[str]:
        """Print what changes after `revision`, and give the revision of each change."""
        client, kind, name, tenant, selector = self._shown
        async with aclosing(client.watch_table(kind, tenant, revision, selector)) as changes:
            async for event, table in changes:
                for row in table.rows:
                    if name in ("", row.object.metadata.name):
                        gone = "   (deleted)" if event == "DELETED" else ""
                        click.echo(aligned([self._cells(row)], self._widths)[0] + gone)
                yield table.revision

    def _print(self, found: Table) -> None:
        name, *rest = (column.upper() for column in found.columns)
        head = [name, *(["TENANT"] if self._with_tenant else []), *rest]
        table = [head, *(self._cells(row) for row in found.rows)]
        self._widths = [max(len(harmless(cell)) for cell in column) for column in zip(*table, strict=True)]
        for line in aligned(table):
            click.echo(line)
        sys.stdout.flush()

    def _cells(self, row: Row) -> list[str]:
        name, *rest = row.cells
        tenant = [row.object.metadata.namespace] if self._with_tenant else []
        return [name, *tenant, *(cell or "-" for cell in rest)]


class _Documents:
    """Prints resources as JSON or YAML, and later changes as a line or a document each."""

    def __init__(self, shown: _Shown, output: str) -> None:
        self._shown = shown
        self._output = output

    async def first(self, *, follow: bool) -> str:
        """Print what there is; returns the revision it is of."""
        client, kind, name, tenant, selector = self._shown
        if name:
            found = [await client.get_object(kind, name, tenant)]
            revision = str(found[0]["metadata"]["resourceVersion"])
        else:
            found, revision = await client.list_objects(kind, tenant, selector)
        if follow:
            for resource in found:
                self._print_change("ADDED", resource)
        else:
            whole = found[0] if name else _listed(kind, found, revision)
            (echo_json if self._output == "json" else echo_yaml)(whole)
        return revision

    async def changed(self, revision: str) -> AsyncGenerator[str]:
        """Print what changes after `revision`, and give the revision of each change."""
        client, kind, name, tenant, selector = self._shown
        async with aclosing(client.watch_objects(kind, tenant, revision, selector)) as events:
            async for event, resource in events:
                if name in ("", resource["metadata"]["name"]):
                    self._print_change(event, resource)
                yield resource["metadata"]["resourceVersion"]

    def _print_change(self, event: str, resource: JsonObject) -> None:
        change = {"type": event, "object": resource}
        if self._output == "json":
            click.echo(to_json(change))
        else:
            click.echo(f"---\n{as_yaml(change)}", nl=False)


def _listed(kind: Kind, found: Sequence[JsonObject], revision: str) -> JsonObject:
    metadata = {"resourceVersion": revision}
    return {
        "apiVersion": kind.api_version,
        "kind": f"{kind.name}List",
        "metadata": metadata,
        "items": list(found),
    }
