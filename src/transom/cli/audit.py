"""`transom audit`: every change of what was declared, in lines that hold each other, and their verifying."""

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from transom.cli.common import Way, hub_options, run
from transom.cli.output import harmless
from transom.client.audit import signature_check, verified
from transom.model.audit import Verifier


@click.group("audit")
def audit_command() -> None:
    """Export who changed what, when and why; verify that nothing of it was touched."""


@audit_command.command("export")
@click.option(
    "--since",
    default="",
    metavar="REVISION|TIME",
    help="Only what changed after this revision, or from 2030-01-31T12:00:00Z on.  [default: all there is]",
)
@click.option(
    "-n", "--tenant", default="", metavar="TENANT", help="Show only what is its; of others the hashes alone."
)
@hub_options
def export_command(since: str, tenant: str, way: Way) -> None:
    """Write the changes to standard output, a line of JSON each; the last line is signed by the hub."""
    run(_export(way, since, tenant))


@audit_command.command("verify")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--head", default="", metavar="HASH", help="Where it must end: the hash of a head kept apart.")
@click.option("--signer", default="", metavar="KEY", help="The hub's public key, as kept apart.")
@click.option("--against-hub", is_flag=True, help="Compare with what the hub has, too.")
@hub_options
def verify_command(file: Path, head: str, signer: str, against_hub: bool, way: Way) -> None:  # noqa: FBT001
    """Say whether FILE, of one export or several in a row, is as the hub wrote it; if not, which lines."""
    run(_verify(file, head, signer, way if against_hub else None))


async def _export(way: Way, since: str, tenant: str) -> None:
    verifier = Verifier(signature_check())
    async with way.connect() as client:
        async for line in client.audit(since, tenant):
            verifier.feed(line)
            sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()
    verifier.finish()
    _refuse_if_wrong(verifier, "what the hub sent")
    click.echo(f"{_counted(verifier)}; --since {verifier.revision} goes on there", err=True)


async def _verify(file: Path, head: str, signer: str, way: Way | None) -> None:
    if way is None:
        verifier = await verified(_lines(file), signer=signer, head=head)
    else:
        async with way.connect() as client:
            verifier = await verified(_lines(file), signer=signer, head=head, hub=client)
    _refuse_if_wrong(verifier, str(file))
    click.echo(f"{file} is whole: {_counted(verifier)}")
    if not (signer or head or way):
        click.echo(
            "nothing was compared with what is kept apart: --head, --signer or --against-hub tell whether "
            "all of it was written anew, or its end left out",
            err=True,
        )


def _lines(file: Path) -> Iterator[bytes]:
    with file.open("rb") as lines:
        yield from lines


def _counted(verifier: Verifier) -> str:
    return f"{verifier.changes} changes up to revision {verifier.revision}, head {verifier.hash}"


def _refuse_if_wrong(verifier: Verifier, what: str) -> None:
    if verifier.findings:
        for finding in verifier.findings:
            click.echo(harmless(str(finding)), err=True)
        raise click.ClickException(f"{what} is not as the hub wrote it")
