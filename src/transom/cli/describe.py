"""`transom describe`: one resource, for people."""

import click
import msgspec

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
)
from transom.cli.history import CHANGES_HEAD, told_change
from transom.cli.output import age, aligned, as_yaml, echo_json, harmless
from transom.client.hub import ApiError, HubClient
from transom.model.kinds import Kind
from transom.model.resources import JsonObject, Resource, conditions_of

_CHANGES_SHOWN = 10


@click.command("describe")
@click.argument("kind", metavar="KIND[/NAME]")
@click.argument("name", required=False, default="")
@tenant_option
@output_option("text", "json")
@hub_options
def describe_command(kind: str, name: str, tenant: str, output: str, way: Way) -> None:
    """All there is to say of the resource of KIND called NAME."""
    kind, name = named(kind, name)
    if not name:
        raise click.UsageError(f"say which one: {kind} NAME")
    run(_describe(way, kind, name, tenant, output))


async def _describe(way: Way, called: str, name: str, tenant: str, output: str) -> None:
    async with way.connect() as client:
        kind = await kind_called(client, called)
        tenant = await tenant_for(client, kind, tenant)
        written = await client.get_object(kind, name, tenant)
        changes = await _changes(client, kind, name, tenant)
    if output == "json":
        echo_json({"resource": written, "history": changes})
    else:
        _tell(kind, written, changes)


async def _changes(client: HubClient, kind: Kind, name: str, tenant: str) -> list[JsonObject]:
    """Its newest changes; none of a kind that is in no history (a Lease, an Event)."""
    try:
        return await client.history(kind, name, tenant, _CHANGES_SHOWN)
    except ApiError as error:
        if error.reason != "NotFound":
            raise
        return []


def _tell(kind: Kind, written: JsonObject, changes: list[JsonObject]) -> None:
    resource = msgspec.convert(written, Resource)
    meta = resource.metadata
    facts = [
        ("Name", reference(kind, meta.name)),
        ("Tenant", meta.namespace),
        ("Uid", meta.uid),
        ("Generation", str(meta.generation)),
        ("Created", f"{age(meta.creation_timestamp)} ago"),
        ("Deleting", f"since {age(meta.deletion_timestamp)}" if meta.deletion_timestamp else ""),
        ("Finalizers", ", ".join(meta.finalizers)),
        ("Labels", ", ".join(f"{label}={value}" for label, value in sorted(meta.labels.items()))),
        ("Made for", f"{resource.owner.kind}/{resource.owner.name}" if resource.owner else ""),
    ]
    for line in aligned([(f"{name}:", value) for name, value in facts if value]):
        click.echo(harmless(line))
    _section("Annotations", as_yaml(meta.annotations) if meta.annotations else "")
    _section("Spec", as_yaml(resource.spec) if resource.spec else "")
    # Of a flat kind (an Event) what was declared stands beside the metadata.
    beside = {name: value for name, value in written.items() if name not in Resource.__struct_encode_fields__}
    _section("Fields", as_yaml(beside) if beside else "")
    rest = {name: value for name, value in resource.status.items() if name != "conditions"}
    _section("Status", as_yaml(rest) if rest else "")
    conditions = [
        (held.type, held.status, held.reason or "-", age(held.last_transition_time), held.message or "-")
        for held in conditions_of(resource.status)
    ]
    if conditions:
        _section("Conditions", "\n".join(_told_conditions(conditions)))
    rows = [CHANGES_HEAD, *(told_change(item) for item in changes)]
    _section("Changes", "\n".join(aligned(rows)) if changes else "")


def _told_conditions(conditions: list[tuple[str, ...]]) -> list[str]:
    """A table of conditions; a message of several lines goes below its condition."""
    lines: list[str] = []
    short = [condition[:-1] for condition in conditions]
    head, *rows = aligned([("TYPE", "STATUS", "REASON", "SINCE"), *short])
    lines.append(head)
    for row, condition in zip(rows, conditions, strict=True):
        lines.append(row)
        if condition[-1] != "-":
            lines += [f"  {line}" for line in condition[-1].splitlines()]
    return lines


def _section(title: str, text: str) -> None:
    if text:
        click.echo(f"{title}:")
        for line in text.rstrip("\n").splitlines():
            click.echo(f"  {harmless(line)}")
