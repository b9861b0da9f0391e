"""`transom auth`: who you are to the hub, what you may do there, and keys to the hub itself.

A key is made here; the hub is sent its hash alone. It is written to a file of its owner's, or shown once.
"""

import contextlib
import sys
from collections.abc import Generator
from pathlib import Path

import click

from transom.catalog.hub_key.kind import HUB_KEY
from transom.cli.common import (
    Way,
    hub_options,
    kind_called,
    reference,
    run,
    seconds_of,
    tenant_option,
    time_after,
    why_option,
)
from transom.cli.output import harmless
from transom.model.api_keys import HUB_PREFIX, hash_of, new_api_key
from transom.model.resources import API_VERSION, JsonObject
from transom.runtime.randomness import choose_secret
from transom.runtime.secret_files import write_private

_NO = 1


@click.group("auth")
def auth_command() -> None:
    """Who you are to the hub, what you may do, and keys to the hub."""


@auth_command.command("whoami")
@hub_options
def whoami_command(way: Way) -> None:
    """The name and the groups the hub knows you by."""
    run(_whoami(way))


@auth_command.command("can-i")
@click.argument("verb")
@click.argument("what", metavar="KIND[/NAME]")
@tenant_option
@hub_options
def can_i_command(verb: str, what: str, tenant: str, way: Way) -> None:
    """Whether you may VERB a KIND in a tenant; without one, in all tenants. Exit code 1 is no."""
    run(_can_i(way, verb, what, tenant))


@auth_command.command("create-key")
@click.argument("name")
@click.option("--expires", default="", metavar="TIME", help="When it ends, as 90d or 12h.")
@click.option("--save", type=click.Path(path_type=Path), metavar="FILE", help="Write it there, mode 0600.")
@why_option
@hub_options
def create_key_command(name: str, expires: str, save: Path | None, why: str, way: Way) -> None:
    """Make a key to the hub called NAME. It may do nothing until a binding says what."""
    if save is not None and save.exists():
        raise click.UsageError(f"--save {save}: is there already; choose another file")
    ends = {"expiresAt": time_after("--expires", seconds_of("--expires", expires))} if expires else {}
    run(_create_key(way, name, ends, save, why))


@auth_command.command("revoke-key")
@click.argument("name")
@why_option
@hub_options
def revoke_key_command(name: str, why: str, way: Way) -> None:
    """Revoke the key to the hub called NAME, for good."""
    run(_revoke_key(way, name, why))


async def _whoami(way: Way) -> None:
    async with way.connect() as client:
        user = (await client.review("authentication.k8s.io", "SelfSubjectReview", {}))["status"]["userInfo"]
    click.echo(harmless(user["username"]))
    for group in user["groups"]:
        click.echo(f"  {harmless(group)}")


async def _can_i(way: Way, verb: str, what: str, tenant: str) -> None:
    called, _, name = what.partition("/")
    async with way.connect() as client:
        kind = await kind_called(client, called)
        wish = {"verb": verb, "group": kind.group, "resource": kind.plural, "namespace": tenant, "name": name}
        spec: JsonObject = {"resourceAttributes": wish}
        told = await client.review("authorization.k8s.io", "SelfSubjectAccessReview", spec)
    click.echo("yes" if told["status"]["allowed"] else "no")
    if not told["status"]["allowed"]:
        sys.exit(_NO)


async def _create_key(way: Way, name: str, ends: JsonObject, save: Path | None, why: str) -> None:
    key = new_api_key(choose_secret, HUB_PREFIX)
    if save is not None:
        # First, so that a key the hub believes is never lost.
        write_private(save, key + "\n")
    spec = {"hash": hash_of(key.encode()).hex(), **ends}
    manifest = {"apiVersion": API_VERSION, "kind": HUB_KEY.name, "metadata": {"name": name}, "spec": spec}
    with _kept(save):
        async with way.connect() as client:
            await client.create(HUB_KEY, manifest, why=why)
    if save is None:
        click.echo(key)
    where = f"it is in {save}" if save is not None else "it is shown this once"
    click.echo(f"{reference(HUB_KEY, name)} was made; {where}", err=True)


@contextlib.contextmanager
def _kept(file: Path | None) -> Generator[None]:
    """Keep the key in `file` only if the block makes it good."""
    try:
        yield
    except BaseException:
        if file is not None:
            file.unlink(missing_ok=True)
        raise


async def _revoke_key(way: Way, name: str, why: str) -> None:
    async with way.connect() as client:
        await client.patch(HUB_KEY, name, {"spec": {"revoked": True}}, why=why)
    click.echo(f"{reference(HUB_KEY, name)} revoked")
