"""`transom get`: resources as a table, JSON or YAML, and as they change."""

import sys
from collections.abc import Sequence
from contextlib import aclosing

import click

from transom.cli.common import (
    Way,
    hub_options,
    kind_called,
    output_option,
    run,
    tenant_for,
    tenant_option,
)
from transom.cli.output import aligned, as_yaml, echo_json, echo_yaml, head_of, row_of
from transom.client.hub import HubClient, WatchEvent
from transom.model.errors import UnreachableError
from transom.model.kinds import Kind
from transom.model.resources import API_VERSION, Resource, to_json
from transom.runtime.clock import SystemClock

_AGAIN_SECONDS = 0.5


@click.command("get")
@click.argument("kind")
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
    if name and selector:
        raise click.UsageError("give a NAME or a selector, not both")
    run(_get(way, kind_called(kind), name, tenant, selector, output, follow=follow))


async def _get(
    way: Way, kind: Kind, name: str, tenant: str, selector: str, output: str, *, follow: bool
) -> None:
    async with way.connect() as client:
        if name:
            tenant = await tenant_for(client, kind, tenant)
            found = [await client.get(kind, name, tenant)]
            revision = found[0].metadata.resource_version
        else:
            found, revision = await client.list_all(kind, tenant, selector)
        printer = _Printer(kind, output, found, one=bool(name))
        printer.first(found, follow=follow)
        if follow:
            await _follow(client, kind, name, tenant, revision, selector, printer)


async def _follow(
    client: HubClient, kind: Kind, name: str, tenant: str, revision: str, selector: str, printer: "_Printer"
) -> None:
    clock, told = SystemClock(), False
    while True:
        try:
            async with aclosing(client.watch(kind, tenant, revision, selector)) as events:
                async for event in events:
                    told, revision = False, event.object.metadata.resource_version
                    if name in ("", event.object.metadata.name):
                        printer.changed(event)
                        sys.stdout.flush()
        except UnreachableError as error:
            if not told:
                click.echo(f"{error}; going on when it is back", err=True)
            told = True
            await clock.sleep(_AGAIN_SECONDS)


class _Printer:
    """Prints resources of one kind, and later changes below them."""

    def __init__(self, kind: Kind, output: str, found: Sequence[Resource], *, one: bool) -> None:
        self._kind = kind
        self._output = output
        self._one = one
        self._with_tenant = kind.namespaced and len({item.metadata.namespace for item in found}) > 1
        self._widths: list[int] = []

    def first(self, found: Sequence[Resource], *, follow: bool) -> None:
        """Print what there is."""
        if self._output == "table":
            self._table(found, follow=follow)
        elif follow:
            for resource in found:
                self.changed(WatchEvent("ADDED", resource))
        else:
            listed = {"kind": f"{self._kind.name}List", "apiVersion": API_VERSION, "items": list(found)}
            (echo_json if self._output == "json" else echo_yaml)(found[0] if self._one else listed)

    def changed(self, event: WatchEvent) -> None:
        """Print a change: a row of the table, a line of JSON, a document of YAML."""
        if self._output == "json":
            click.echo(to_json(event))
        elif self._output == "yaml":
            click.echo(f"---\n{as_yaml(event)}", nl=False)
        else:
            row = row_of(self._kind, event.object, with_tenant=self._with_tenant)
            gone = "   (deleted)" if event.type == "DELETED" else ""
            click.echo(aligned([row], self._widths)[0] + gone)

    def _table(self, found: Sequence[Resource], *, follow: bool) -> None:
        rows = [row_of(self._kind, resource, with_tenant=self._with_tenant) for resource in found]
        if not rows and not follow:
            click.echo(f"no {self._kind.plural} found", err=True)
            return
        table = [head_of(self._kind, with_tenant=self._with_tenant), *rows]
        self._widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
        for line in aligned(table):
            click.echo(line)
        sys.stdout.flush()
