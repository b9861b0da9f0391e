"""`transom contexts`: what regions are told, and people's hand on it.

A freeze and an override are resources, so each is in the history, with who and why (`transom history
contextfreeze/REGION`).
"""

from pathlib import Path

import click

from transom.catalog.context_control.kind import CONTEXT_FREEZE, CONTEXT_OVERRIDE
from transom.catalog.contexts import CONTEXTS
from transom.cli.common import (
    Way,
    hub_options,
    kind_called,
    output_option,
    run,
    seconds_of,
    tenant_option,
    time_after,
    why_option,
)
from transom.cli.contexts_told import (
    DIFF_HEAD,
    HOLDS_HEAD,
    STATUS_HEAD,
    diff_row,
    gateway_lines,
    hold_row,
    refusal_line,
    rows_held,
    status_row,
)
from transom.cli.output import echo_json, echo_table, harmless
from transom.client.hub import ApiError
from transom.model.kinds import Kind
from transom.model.names import spoken
from transom.model.resources import API_VERSION, JsonObject
from transom.runtime.signing import make_signing_key, read_signing_key

_MISSING = 404

_why_needed = click.option("--why", required=True, metavar="TEXT", help="The reason, for the history.")


@click.group("contexts")
def contexts_command() -> None:
    """What regions are told to serve requests alone: how far it is, what is held back; freeze, allow."""


@contexts_command.command("status")
@output_option("table", "json")
@hub_options
def status_command(output: str, way: Way) -> None:
    """How far regions and their gateways are, and what was refused."""
    run(_status(way, output))


@contexts_command.command("diff")
@click.argument("region", required=False, default="")
@output_option("table", "json")
@hub_options
def diff_command(region: str, output: str, way: Way) -> None:
    """What would go out to REGION now, and has not. Without one, to every region."""
    run(_diff(way, region, output))


@contexts_command.command("freeze")
@click.argument("region")
@_why_needed
@hub_options
def freeze_command(region: str, why: str, way: Way) -> None:
    """Let no context go out to REGION until it is resumed. No revocation either."""
    run(_freeze(way, region, why))


@contexts_command.command("resume")
@click.argument("region")
@why_option
@hub_options
def resume_command(region: str, why: str, way: Way) -> None:
    """Let contexts go out to REGION again."""
    run(_resume(way, region, why))


@contexts_command.command("holds")
@output_option("table", "json")
@hub_options
def holds_command(output: str, way: Way) -> None:
    """What guards hold back, and by which name each can be allowed."""
    run(_holds(way, output))


@contexts_command.command("allow")
@click.argument("hold")
@click.option(
    "--up-to", type=click.IntRange(min=1), metavar="N", help="At most so many rows  [default: those held now]"
)
@click.option("--for", "lasts", default="1h", show_default=True, metavar="TIME", help="For so long.")
@_why_needed
@hub_options
def allow_command(hold: str, up_to: int | None, lasts: str, why: str, way: Way) -> None:
    """Let what a guard holds back pass. HOLD is its name, as `transom contexts holds` shows it."""
    seconds = seconds_of("--for", lasts)
    if not seconds:
        raise click.UsageError("--for: nothing passes in no time")
    run(_allow(way, hold, up_to, seconds, why))


@contexts_command.command("signer")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--new", is_flag=True, help="Make a key in FILE, which must not exist yet.")
def signer_command(file: Path, *, new: bool) -> None:
    """Print the public half of the signing key in FILE, for `trusted_signers`.

    To renew a hub's key: make the next one with --new, trust it at every gateway beside the old one, then
    name it in the hub's `signing_key`.
    """
    if not new and not file.exists():
        raise click.UsageError(f"there is no {file}; --new makes a signing key there")
    click.echo((make_signing_key(file) if new else read_signing_key(file)).public_text)


@contexts_command.command("restore")
@click.argument("kind")
@click.option(
    "--to",
    "revision",
    type=click.IntRange(min=1),
    required=True,
    metavar="REVISION",
    help="What they were at this revision.",
)
@click.option("--name", default="", metavar="NAME", help="This one alone.")
@tenant_option
@_why_needed
@output_option("text", "json")
@hub_options
def restore_command(
    kind: str, revision: int, name: str, tenant: str, why: str, output: str, way: Way
) -> None:
    """Make resources of KIND again what they were at a revision. KIND may be that of their contexts.

    They are written as new changes. What takes rights away stays: what was revoked, suspended or deleted
    since then is left out, and told.
    """
    # What holds and keys of rows print is the name of a context kind: `api_key` is made of an ApiKey.
    called = {each.name: each.subject for each in CONTEXTS}.get(kind, kind)
    run(_restore(way, called, revision, tenant, name, why, output))


async def _status(way: Way, output: str) -> None:
    async with way.connect() as client:
        told = await client.contexts()
    if output == "json":
        echo_json(told)
        return
    echo_table(STATUS_HEAD, [status_row(item) for item in told["items"]])
    lines = [refusal_line(item) for item in told.get("refused", [])]
    for item in told["items"]:
        lines += gateway_lines(item)
    if told.get("holds"):
        lines.append(f"{len(told['holds'])} held back by guards: see `transom contexts holds`")
    for line in lines:
        click.echo(harmless(line), err=True)


async def _diff(way: Way, region: str, output: str) -> None:
    async with way.connect() as client:
        names = [region] if region else [item["region"] for item in (await client.contexts())["items"]]
        found = {name: await client.contexts_diff(name) for name in names}
    if output == "json":
        echo_json([{"region": name, **diff} for name, diff in found.items()])
        return
    rows = [diff_row(name, item) for name, diff in found.items() for item in diff["items"]]
    if rows:
        echo_table(DIFF_HEAD, rows)
    held = {name: diff["held"] for name, diff in found.items() if diff.get("held")}
    if not rows:
        click.echo(f"nothing waits to go out{' but what is held back' if held else ''}", err=True)
    for name in (name for name, diff in found.items() if diff.get("more")):
        click.echo(f"{name}: there are more than these", err=True)
    for name, count in held.items():
        click.echo(f"{name}: {count} rows are held back by guards: see `transom contexts holds`", err=True)


async def _freeze(way: Way, region: str, why: str) -> None:
    async with way.connect() as client:
        manifest = _manifest(CONTEXT_FREEZE, region, {"reason": why})
        await client.apply(CONTEXT_FREEZE, manifest, why=why)
    click.echo(f"region/{region} is frozen; `transom contexts resume {region}` ends it")


async def _resume(way: Way, region: str, why: str) -> None:
    async with way.connect() as client:
        try:
            await client.delete(CONTEXT_FREEZE, region, why=why)
        except ApiError as error:
            if error.code != _MISSING:
                raise
            raise click.ClickException(f"region {region!r} is not frozen") from None
    click.echo(f"region/{region} is resumed")


async def _holds(way: Way, output: str) -> None:
    async with way.connect() as client:
        holds: list[JsonObject] = (await client.contexts())["holds"]
    if output == "json":
        echo_json(holds)
    elif holds:
        echo_table(HOLDS_HEAD, [hold_row(hold) for hold in holds])
        click.echo("let one pass with `transom contexts allow HOLD --why …`", err=True)
    else:
        click.echo("nothing is held back", err=True)


async def _allow(way: Way, hold: str, up_to: int | None, seconds: float, why: str) -> None:
    async with way.connect() as client:
        only: JsonObject = {}
        if up_to is None:
            holds: list[JsonObject] = (await client.contexts())["holds"]
            listed = next((held for held in holds if held["id"] == hold), None)
            # What is allowed is what was seen: if more is held by then, or other rows, that is held still.
            up_to = rows_held(listed) if listed else None
            if listed and listed.get("content"):
                only = {"content": listed["content"]}
        if not up_to:
            raise click.ClickException(
                f"nothing is held back as {hold!r}; see `transom contexts holds`, or allow what is still to "
                "come with --up-to"
            )
        until = time_after("--for", seconds)
        manifest = _manifest(CONTEXT_OVERRIDE, hold, {"upTo": up_to, "until": until, **only})
        await client.apply(CONTEXT_OVERRIDE, manifest, why=why)
    click.echo(f"{hold}: up to {up_to} rows may pass until {until}")
    if only:
        click.echo("these rows, and none if others are held by then", err=True)


async def _restore(
    way: Way, called: str, revision: int, tenant: str, name: str, why: str, output: str
) -> None:
    async with way.connect() as client:
        kind = await kind_called(client, called)
        if tenant and not kind.namespaced:
            raise click.UsageError(f"a {kind.name} belongs to no tenant; leave -n out")
        if name and kind.namespaced and not tenant:
            raise click.UsageError("say whose it is, with -n")
        told = await client.contexts_restore(kind, revision, tenant, name, why)
    if output == "json":
        echo_json(told)
        return
    for item in told["items"]:
        click.echo(harmless(spoken(f"{item['key']} {item['change']}")))
    for item in told["skipped"]:
        click.echo(harmless(spoken(f"{item['key']} left as it is: {item['why']}")), err=True)
    if not told["items"]:
        click.echo(f"nothing is other than it was at revision {revision}, but for what is left", err=True)


def _manifest(kind: Kind, name: str, spec: JsonObject) -> JsonObject:
    return {"apiVersion": API_VERSION, "kind": kind.name, "metadata": {"name": name}, "spec": spec}
