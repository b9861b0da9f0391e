"""`transom kubeconfig`: how kubectl, and whatever else reads a kubeconfig, finds the hub."""

from pathlib import Path

import click

from transom.cli.common import TENANT, Way, hub_options, run, tenant_option
from transom.client.config import read_key
from transom.client.kubeconfig import kubeconfig, write_kubeconfig

_STDOUT = "-"


@click.command("kubeconfig")
@click.option(
    "-o", "--output", default=_STDOUT, metavar="FILE", help="Where to write it, for you alone; - is stdout."
)
@click.option("--force", is_flag=True, help="Replace FILE even if it holds something else.")
@tenant_option
@hub_options
def kubeconfig_command(output: str, force: bool, tenant: str, way: Way) -> None:  # noqa: FBT001
    """Write a kubeconfig for the hub, with the key in it: KUBECONFIG=FILE kubectl get deployments.

    Its namespace is the tenant. The hub is asked first, so a file that is written works.
    """
    run(_kubeconfig(output, tenant, way, force=force))


async def _kubeconfig(output: str, tenant: str, way: Way, *, force: bool) -> None:
    async with way.connect() as client:
        if tenant:
            await client.get(TENANT, tenant)
        else:
            tenants = (await client.list_all(TENANT)).items
            tenant = tenants[0].metadata.name if len(tenants) == 1 else ""
    if not tenant:
        click.echo("no namespace is set: say which tenant, here or to kubectl, with -n", err=True)
    config = way.find()
    text = kubeconfig(config, read_key(config), tenant)
    if output == _STDOUT:
        click.echo(text, nl=False)
        return
    write_kubeconfig(Path(output), text, force=force)
    click.echo(f"{output} is written; use it as: KUBECONFIG={output} kubectl get deployments", err=True)
