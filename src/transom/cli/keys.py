"""`transom keys`: API keys, made here. The hub is sent the hash alone; the key is shown once, on stdout.

A key stands in no argument, no file, no log and no message of an error: it is printed, or it is lost.
"""

import os
import sys
from typing import Any

import click

from transom.catalog.api_key.kind import API_KEY
from transom.cli.common import (
    TENANT,
    Way,
    hub_options,
    of_all_tenants,
    output_option,
    reference,
    run,
    seconds_of,
    tenant_for,
    tenant_option,
    time_after,
    why_option,
)
from transom.cli.output import age, echo_json, echo_table, span
from transom.client.hub import ApiError, HubClient
from transom.model.access import EVERYTHING
from transom.model.api_keys import hash_of, new_api_key
from transom.model.errors import UnreachableError
from transom.model.resources import API_VERSION, JsonObject, Resource
from transom.model.times import read_time
from transom.runtime.clock import SystemClock
from transom.runtime.randomness import choose_secret


@click.group("keys")
def keys_command() -> None:
    """Make, list and revoke API keys."""


@keys_command.command("create")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    metavar="SCOPE",
    help="What it may do: '*', 'app:NAME', 'app:*', each with ':read' for reading alone. May be repeated."
    "  [default: *]",
)
@click.option(
    "--expires", default="", metavar="TIME", help="When it ends: 30d, 12h, or 2030-01-31T12:00:00Z."
)
@click.option("--virtual-cluster", default="", metavar="NAME", help="The part of the tenant it is for.")
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    help="At most so many requests a second at each gateway.",
)
@tenant_option
@why_option
@output_option("text", "json")
@hub_options
def create_command(
    name: str,
    scopes: tuple[str, ...],
    expires: str,
    virtual_cluster: str,
    rate: float | None,
    tenant: str,
    why: str,
    output: str,
    way: Way,
) -> None:
    """Make a key called NAME and print it. It is shown this once: the hub gets only its hash."""
    spec: JsonObject = {"scopes": list(scopes) or [EVERYTHING]}
    if expires:
        spec["expiresAt"] = _moment(expires)
    if virtual_cluster:
        spec["virtualCluster"] = virtual_cluster
    if rate is not None:
        spec["requestsPerSecond"] = rate
    run(_create(way, name, spec, tenant, why, output))


@keys_command.command("list")
@tenant_option
@output_option("table", "json")
@hub_options
def list_command(tenant: str, output: str, way: Way) -> None:
    """The keys of a tenant, or of all: what each may do, until when, whether it is good."""
    run(_list(way, tenant, output))


@keys_command.command("revoke")
@click.argument("name")
@tenant_option
@why_option
@output_option("text", "json")
@hub_options
def revoke_command(name: str, tenant: str, why: str, output: str, way: Way) -> None:
    """Revoke the key called NAME, for good. Each region refuses it as soon as it has heard of it."""
    run(_revoke(way, name, tenant, why, output))


async def _create(way: Way, name: str, spec: JsonObject, tenant: str, why: str, output: str) -> None:
    key = new_api_key(choose_secret)
    spec = {**spec, "hash": hash_of(key.encode()).hex()}
    async with way.connect() as client:
        tenant = await tenant_for(client, API_KEY, tenant)
        manifest = {
            "apiVersion": API_VERSION,
            "kind": API_KEY.name,
            "metadata": {"name": name, "namespace": tenant},
            "spec": spec,
        }
        made = await _declared(client, manifest, tenant, why)
    _show(key, made, output)


async def _declared(client: HubClient, manifest: JsonObject, tenant: str, why: str) -> Resource:
    """The resource, once it is certain that the hub holds it with this hash.

    Raises `UnreachableError` when that cannot be told: a key that may be worth nothing is not shown.
    """
    name, ours = manifest["metadata"]["name"], manifest["spec"]["hash"]
    try:
        return await client.create(API_KEY, manifest, tenant, why)
    except UnreachableError as error:
        unanswered = error
    # The answer was lost, perhaps not the request. A new key under the same name would have another hash.
    try:
        held = await client.find(API_KEY, name, tenant)
    except (UnreachableError, ApiError):
        held = None
    if held is not None and held.spec.get("hash") == ours:
        return held
    raise UnreachableError(
        f"{unanswered}; whether {reference(API_KEY, name)} was made is unknown. It was not shown, so nobody "
        "can use it: look for it with `transom keys list`, revoke or delete it if it is there, make another"
    )


def _show(key: str, made: Resource, output: str) -> None:
    named = reference(API_KEY, made.metadata.name)
    try:
        if output == "json":
            echo_json({**_told(made), "key": key})
        else:
            click.echo(key)
        sys.stdout.flush()
    except OSError as error:
        # What is left in the buffer must not be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        why = f"{named} was made but could not be shown ({error.strerror}): revoke it and make another"
        raise click.ClickException(why) from None
    click.echo(f"{named} of tenant {made.metadata.namespace} was made; its key is shown this once", err=True)


async def _list(way: Way, tenant: str, output: str) -> None:
    async with way.connect() as client:
        if tenant:
            keys = (await client.list_all(API_KEY, tenant)).items
            found = await client.find(TENANT, tenant)
            tenants = [found] if found else []
        else:
            with of_all_tenants():
                keys = (await client.list_all(API_KEY)).items
                tenants = (await client.list_all(TENANT)).items
    suspended = {each.metadata.name for each in tenants if each.spec.get("suspended")}
    if output == "json":
        echo_json([{**_told(key), "state": _state(key, suspended)} for key in keys])
    elif not keys:
        click.echo("no keys found", err=True)
    else:
        head = ("NAME", "TENANT", "SCOPES", "EXPIRES", "STATE", "AGE")
        echo_table(head, [_row(key, suspended) for key in keys])


async def _revoke(way: Way, name: str, tenant: str, why: str, output: str) -> None:
    async with way.connect() as client:
        tenant = await tenant_for(client, API_KEY, tenant)
        held = await client.get(API_KEY, name, tenant)
        done = "was revoked already"
        if not held.spec.get("revoked"):
            held = await client.patch(API_KEY, name, {"spec": {"revoked": True}}, tenant, why)
            done = "revoked"
    if output == "json":
        revision = held.metadata.resource_version
        echo_json({"name": name, "tenant": tenant, "result": done, "resourceVersion": revision})
    else:
        click.echo(f"{reference(API_KEY, name)} {done}")


def _moment(text: str) -> str:
    """A time to come, as it stands in a spec, from a length of time or a time."""
    if text.endswith(("s", "m", "h", "d")):  # a time ends in Z or in digits
        return time_after("--expires", seconds_of("--expires", text))
    try:
        if read_time(text) <= SystemClock().wall():
            raise click.UsageError(f"--expires {text!r}: is in the past")
    except ValueError as error:
        raise click.UsageError(f"--expires: {error}; or a length of time, as 30d") from None
    return text


def _told(key: Resource) -> dict[str, Any]:
    """What `-o json` says of a key; its hash is the hub's business."""
    spec = {word: value for word, value in key.spec.items() if word not in ("hash", "revoked")}
    return {"name": key.metadata.name, "tenant": key.metadata.namespace, **spec}


def _row(key: Resource, suspended: set[str]) -> tuple[str, ...]:
    meta = key.metadata
    scopes = ",".join(key.spec.get("scopes", []))
    return meta.name, meta.namespace, scopes, _ends(key), _state(key, suspended), age(meta.creation_timestamp)


def _ends(key: Resource) -> str:
    if "expiresAt" not in key.spec:
        return "never"
    left = read_time(key.spec["expiresAt"]) - SystemClock().wall()
    return f"in {span(left)}" if left > 0 else f"{span(-left)} ago"


def _state(key: Resource, suspended: set[str]) -> str:
    if key.spec.get("revoked") or key.deleting:
        return "revoked"
    if "expiresAt" in key.spec and read_time(key.spec["expiresAt"]) <= SystemClock().wall():
        return "expired"
    return "suspended" if key.metadata.namespace in suspended else "good"
