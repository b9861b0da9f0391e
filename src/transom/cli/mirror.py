"""`transom mirror` and `transom offsets`: a mirror between two Kafka clusters, run and asked."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from transom.cli.common import output_option
from transom.cli.output import echo_json, echo_table, harmless
from transom.logs.protocol import TopicPartition
from transom.model.errors import InvalidError
from transom.runtime.clock import SystemClock

if TYPE_CHECKING:
    from transom.links.kafka.status import ProcessStatus
    from transom.processes.mirror_orders import MirrorOrders

_WATCH_SECONDS = 2.0
_OFFSET_MAX = (1 << 63) - 1
_HEAD = ("TOPIC", "COPY", "PARTITIONS", "LAG", "LAG SECONDS", "GAPS", "STATE")

_config_option = click.option(
    "-c",
    "--config",
    "config",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("mirror.toml"),
    show_default=True,
    metavar="FILE",
    help="The mirror's configuration.",
)


class Partition(click.ParamType[TopicPartition]):
    """TOPIC/PARTITION."""

    name = "TOPIC/PARTITION"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> TopicPartition:
        """See `click.ParamType`."""
        found = re.fullmatch(r"([a-zA-Z0-9._-]+)/(\d+)", str(value))
        if found is None:
            self.fail(f"{value!r} is no partition; write TOPIC/PARTITION, as orders/3", param, ctx)
        return TopicPartition(found[1], int(found[2]))


@click.group("mirror", invoke_without_command=True)
@_config_option
@click.option("--dry-run", is_flag=True, help="Say what would be mirrored and changed, and change nothing.")
@click.pass_context
def mirror_command(ctx: click.Context, config: Path, dry_run: bool) -> None:  # noqa: FBT001
    """Mirror topics and consumer groups of one Kafka cluster to another until SIGTERM or Ctrl-C.

    Several processes with the same name and target share the work, and take over from each other.
    """
    if ctx.invoked_subcommand is not None:
        if dry_run:
            raise click.UsageError(f"--dry-run is not for {ctx.invoked_subcommand!r}, which would do it", ctx)
        if ctx.get_parameter_source("config") is ParameterSource.COMMANDLINE:
            ctx.default_map = {ctx.invoked_subcommand: {"config": config}}  # or another file would be taken
        return
    if dry_run:
        _ask(config, _print_plan)
        return
    import uvloop  # noqa: PLC0415

    from transom.processes.mirror import run_mirror  # noqa: PLC0415  # needs Kafka's client

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run_mirror(config))


@mirror_command.command("status")
@_config_option
@output_option("table", "json")
@click.option("-w", "--watch", is_flag=True, help="Print it again and again until Ctrl-C.")
def status_command(config: Path, output: str, watch: bool) -> None:  # noqa: FBT001
    """How far each topic is mirrored, what has stopped, and why."""
    clock = SystemClock()

    async def work(mirror: "MirrorOrders") -> None:
        while True:
            told = await mirror.status()
            if output == "json":
                echo_json(told)
            else:
                _print_status(told, clock.wall())
            if not watch:
                return
            await clock.sleep(_WATCH_SECONDS)

    _ask(config, work)


@mirror_command.command("pause")
@click.argument("topic")
@_config_option
def pause_command(topic: str, config: Path) -> None:
    """Mirror TOPIC of the source no further, until `resume`."""
    _ask(config, lambda mirror: mirror.pause(topic))
    click.echo(f"{topic} is paused")


@mirror_command.command("resume")
@click.argument("topic")
@_config_option
def resume_command(topic: str, config: Path) -> None:
    """Go on with TOPIC of the source where it was paused; what has stopped is tried again."""
    _ask(config, lambda mirror: mirror.resume(topic))
    click.echo(f"{topic} goes on")


@mirror_command.command("skip")
@click.argument("partition", type=Partition())
@click.argument("offset", type=click.IntRange(0, _OFFSET_MAX))
@_config_option
def skip_command(partition: TopicPartition, offset: int, config: Path) -> None:
    """Have a partition of the source go on at OFFSET; what is left out is kept as a gap and shown."""
    _ask(config, lambda mirror: mirror.skip(partition, offset))
    click.echo(f"{partition.topic}/{partition.partition} goes on at offset {offset}")


@mirror_command.command("rewind")
@click.argument("group")
@_config_option
def rewind_command(group: str, config: Path) -> None:
    """Put consumer GROUP at the target where it is at the source, also backwards; nothing else does."""

    async def work(mirror: "MirrorOrders") -> None:
        moved = await mirror.rewind(group)
        for at, offset in sorted(moved.items()):
            click.echo(f"{at.topic}/{at.partition} {offset}")
        if not moved:
            click.echo(f"{group} is there already")

    _ask(config, work)


@click.group("offsets")
def offsets_command() -> None:
    """Offsets of one cluster in another."""


@offsets_command.command("translate")
@click.argument("partition", type=Partition())
@click.argument("offset", type=click.IntRange(0, _OFFSET_MAX))
@_config_option
@click.option("--back", is_flag=True, help="OFFSET is one of the copy; say which one of the source it is.")
@output_option("text", "json")
def translate_command(
    partition: TopicPartition,
    offset: int,
    config: Path,
    back: bool,  # noqa: FBT001
    output: str,
) -> None:
    """Where a reader of a partition of the source, whose next offset is OFFSET, goes on in its copy."""

    async def work(mirror: "MirrorOrders") -> None:
        place, found = await mirror.translate(partition, offset, back=back)
        if output == "json":
            echo_json({"topic": place.topic, "partition": place.partition, "offset": found})
        else:
            click.echo(f"{place.topic}/{place.partition} {found}")

    _ask(config, work)


def _ask(config: Path, work: Callable[["MirrorOrders"], Awaitable[None]]) -> None:
    from transom.processes.mirror_orders import mirror_orders  # noqa: PLC0415  # needs Kafka's client

    def late(why: str) -> None:
        click.echo(f"waiting for the {harmless(why)}; Ctrl-C gives up", err=True)

    async def asked() -> None:
        async with mirror_orders(config, late) as mirror:
            await work(mirror)

    asyncio.run(asked())


async def _print_plan(mirror: "MirrorOrders") -> None:
    from transom.links.kafka.topic_plan import Refuse  # noqa: PLC0415  # needs Kafka's client

    looked = await mirror.plan()
    refused = {step.topic for step in looked.steps if isinstance(step, Refuse)}
    for topic, copy in sorted(looked.chosen.names.items()):
        if topic not in refused:
            click.echo(f"mirror {topic} to {copy}")
    for step in looked.steps:
        click.echo(harmless(str(step)))
    for topic, why in sorted(looked.chosen.left_out.items()):
        click.echo(f"leave out {topic}: {harmless(why)}")
    if not looked.chosen.names and not looked.steps and not looked.chosen.left_out:
        click.echo("mirror nothing: no topic of the source that its user may see matches topics.include")
    if looked.chosen.mistakes:
        raise InvalidError(f"topics of mirror {mirror.config.name!r}", looked.chosen.mistakes)


def _print_status(told: "list[ProcessStatus]", wall: float) -> None:
    from transom.processes.mirror import SILENT_SECONDS  # noqa: PLC0415  # needs Kafka's client

    if not told:
        click.echo("no process of this mirror runs")
        return
    topics: dict[tuple[str, str], list[tuple[int, float, int, str]]] = {}
    wrong: list[str] = []
    for process in told:
        age = wall - process.at
        silent = f", silent for {age:.0f} s" if age > SILENT_SECONDS else ""
        click.echo(
            f"process {process.process[:8]}: {len(process.shards)} of 8 shards, "
            f"{process.records_per_second:.0f} records/s, {process.bytes_per_second / 1e6:.1f} MB/s{silent}"
        )
        wrong += [harmless(trouble) for trouble in process.troubles]
        for each in process.partitions:
            about = (each.lag, each.lag_seconds, len(each.gaps), "silent" if silent else each.state)
            topics.setdefault((each.topic, each.target), []).append(about)
            if each.why:
                at = f"{each.topic}/{each.partition}"
                # OFFSET depends on what happened, and is somebody's choice.
                go_on = f"; to go on: transom mirror skip {at} OFFSET" if each.state == "stopped" else ""
                wrong.append(f"{at} {each.state}: {harmless(each.why)}{go_on}")
            wrong += [
                f"{each.topic}/{each.partition} gap {gap.begin} to {gap.end}: {harmless(gap.why)}"
                for gap in each.gaps
            ]
    rows = [
        (
            topic,
            copy,
            str(len(parts)),
            str(sum(part[0] for part in parts)),
            f"{max(part[1] for part in parts):.1f}",
            str(sum(part[2] for part in parts)),
            ", ".join(sorted({part[3] for part in parts})),
        )
        for (topic, copy), parts in sorted(topics.items())
    ]
    echo_table(_HEAD, rows)
    for line in wrong:
        click.echo(line)
