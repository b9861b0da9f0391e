"""A mirror's process: configuration in, a running mirror until it is told to stop.

Next on the data's way: `links.kafka.mirroring`.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from transom.links.kafka.config import ClusterConfig, MirrorConfig
from transom.links.kafka.groups import Groups
from transom.links.kafka.lanes import Lanes
from transom.links.kafka.mirroring import Mirroring, group_of
from transom.links.kafka.names import Naming, Patterns
from transom.links.kafka.planning import Planning
from transom.links.kafka.resuming import Policy
from transom.links.kafka.rights import check_own
from transom.links.kafka.shard import Ends
from transom.links.kafka.status import STATUS, LaneGauges, read_status
from transom.links.kafka.topics import Topics
from transom.logs import kafka_api as api
from transom.logs.kafka import KafkaLog
from transom.logs.kafka_address import parse_address
from transom.logs.kafka_cluster import KafkaCluster, TransientError
from transom.model.errors import InvalidError, Problem, UnauthorizedError, UnreachableError
from transom.processes.lifetime import collect_seldom, started, until_told_to_stop
from transom.runtime.clock import Clock, SystemClock
from transom.runtime.config import load
from transom.runtime.http import AsgiApp, Receive, Scope, Send, check_free, serve
from transom.runtime.randomness import Randomness
from transom.runtime.secret_files import read_secret
from transom.runtime.telemetry import configure_logging, exposition, metrics
from transom.runtime.tls import client_tls

SILENT_SECONDS = 10.0
"""A process tells every second how it stands; one that has not for so long is gone."""


class Clusters(NamedTuple):
    """Both clusters of a mirror, and the target as a log; `config` says how one gets there, from `folder`."""

    source: KafkaCluster
    target: KafkaCluster
    log: KafkaLog
    config: MirrorConfig
    folder: Path

    async def why_away(self, which: Literal["source", "target"]) -> str:
        """Why a cluster does not answer now; empty when it does. Raises `UnauthorizedError`, `InvalidError`
        and `UnknownHostError` for what somebody has to change, with the setting.
        """
        cluster, config = getattr(self, which), getattr(self.config, which)
        try:
            await cluster.ask(None, api.MetadataRequest(()))
        except TransientError as error:
            return f"{which} of mirror {self.config.name!r}, {cluster.address}: {error}"
        except UnauthorizedError as error:
            told = str(error).replace("log_key_file", f"{which}.key_file")
            file = f" ({which}.key_file is {self.folder / config.key_file})" if config.key_file else ""
            raise UnauthorizedError(f"{which} of mirror {self.config.name!r}: {told}{file}") from None
        except InvalidError as error:
            trust = self.folder / config.trust if config.trust else "not set: the system's"
            raise InvalidError(
                f"{which} of mirror {self.config.name!r}",
                [
                    Problem(f"{which}.address", f"{problem.message} ({which}.trust is {trust})")
                    for problem in error.problems
                ],
            ) from None
        return ""


@contextlib.asynccontextmanager
async def clusters(
    config: MirrorConfig, folder: Path, clock: Clock, randomness: Randomness
) -> AsyncGenerator[Clusters]:
    """The clusters of `config`, open inside the block; relative paths begin at `folder`.

    Raises `InvalidError` for keys and certificates that cannot be read.
    """
    source, target = (
        await _access("source", config.source, folder),
        await _access("target", config.target, folder),
    )
    opened = Clusters(
        KafkaCluster(parse_address(config.source.address), clock, randomness, **source),
        KafkaCluster(parse_address(config.target.address), clock, randomness, **target),
        KafkaLog(config.target.address, clock, randomness, **target),
        config,
        folder,
    )
    try:
        yield opened
    finally:
        await opened.log.close()
        await opened.source.close()
        await opened.target.close()


async def _access(which: str, config: ClusterConfig, folder: Path) -> dict[str, Any]:
    what = f"{which} of the mirror"
    key_file = folder / config.key_file if config.key_file else None
    trust = folder / config.trust if config.trust else None
    return {
        "password": await asyncio.to_thread(read_secret, key_file) if key_file else "",
        "tls": await asyncio.to_thread(client_tls, what, f"{which}.trust", trust),
    }


def planning(config: MirrorConfig, ends: Ends, lanes: Lanes) -> Planning:
    """What is mirrored, as `config` says. Raises `InvalidError`."""
    topics = config.topics
    patterns = Patterns("topics", topics.include, topics.exclude)
    return Planning(
        ends,
        Topics(config.name, ends.source, ends.target, patterns, _naming(config), topics.replication_factor),
        lanes,
    )


def chosen_groups(config: MirrorConfig) -> Patterns:
    """Which groups are carried, as `config` says. Raises `InvalidError`."""
    return Patterns("groups", config.groups.include, config.groups.exclude)


def _naming(config: MirrorConfig) -> Naming:
    return Naming(config.topics.names, config.source.name, config.topics.environment)


async def check_alone(there: Clusters, wall: float) -> None:
    """Raises `InvalidError` when a process of this mirror's name runs now (`wall`: seconds since the epoch)
    that makes other copies, by another file: the two would share the work, and each leave the other's undone.
    """
    if STATUS.name not in await there.log.topics([STATUS.name]):
        return
    naming, name = _naming(there.config), there.config.name
    await there.source.layouts(())
    for process in await read_status(there.log, name):
        if process.at <= wall - SILENT_SECONDS:
            continue
        other = process.source_id not in ("", there.source.id)
        does = ["mirrors another cluster than this source"] if other else []
        does += [
            f"mirrors {each.topic!r} to {each.target!r}, not to {ours!r}"
            for each in process.partitions
            if (ours := naming.target(each.topic)) != each.target
        ]
        if does:
            said = f"a process of mirror {name!r} runs that {does[0]}; "
            said += "give this mirror another name, or stop that process first"
            raise InvalidError(f"mirror {name!r} into {there.target.address}", [Problem("name", said)])


async def run_mirror(config_path: Path) -> None:
    """Run the mirror of a configuration file until SIGTERM or SIGINT.

    Raises `InvalidError` for what somebody has to change, what the clusters raise that no waiting mends.
    """
    config = load(config_path, MirrorConfig)
    configure_logging(f"mirror/{config.name}", config.log_level)
    clock, randomness = SystemClock(), Randomness()
    async with started(lambda: running_mirror(config, config_path.parent, clock, randomness), clock):
        collect_seldom()
        await until_told_to_stop()


@contextlib.asynccontextmanager
async def running_mirror(
    config: MirrorConfig, folder: Path, clock: Clock, randomness: Randomness
) -> AsyncGenerator[Mirroring]:
    """A mirror that runs inside the block."""
    host, _, port = config.listen.rpartition(":")
    if config.listen:
        check_free(host.strip("[]"), int(port))
    carried = chosen_groups(config)
    async with clusters(config, folder, clock, randomness) as there:
        ends = Ends(config.name, there.source, there.target, clock)
        lanes = Lanes()
        planned = planning(config, ends, lanes)
        await _check(there, ends, planned)
        mirroring = Mirroring(
            ends,
            there.log,
            planned,
            Policy(config.topics.when_lost == "continue", config.topics.when_recreated == "continue"),
            randomness.uid(),
            clock,
            config.bytes_per_second,
            lanes=lanes,
        )
        groups = Groups(
            config.name,
            there.source,
            there.target,
            carried.match,
            mirroring.to_target,
            mirroring.to_source,
        )
        await mirroring.prepare()
        gauges = LaneGauges(config.name, lanes, clock)
        metrics.register(gauges)
        try:
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(mirroring.run(groups, config.groups.every_seconds))]
                if config.listen:
                    running.append(group.create_task(serve(_pages(mirroring), host.strip("[]"), int(port))))
                try:
                    yield mirroring
                finally:
                    for task in running:
                        task.cancel()
        finally:
            metrics.unregister(gauges)


async def _check(there: Clusters, ends: Ends, planned: Planning) -> None:
    """Raises what somebody has to change, while nothing has been changed yet, and `UnreachableError` when the
    target is away. A source may be away for long; what is wrong there is told when it comes back.
    """
    if why := await there.why_away("target"):
        raise UnreachableError(why)
    if await there.why_away("source"):
        return
    await check_own(ends, group_of(ends.mirror))
    await check_alone(there, ends.clock.wall())
    chosen = (await planned.plan()).chosen
    if chosen.mistakes and not chosen.names:
        raise InvalidError(f"topics of mirror {ends.mirror!r}", chosen.mistakes)


def _pages(mirroring: Mirroring) -> AsgiApp:
    """GET /healthz and GET /metrics."""

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        status, kind, body = 404, b"text/plain", b"there is only /healthz and /metrics here\n"
        if scope["method"] == "GET" and scope["path"] == "/metrics":
            status, kind, body = 200, b"text/plain; version=0.0.4", exposition()
        elif scope["method"] == "GET" and scope["path"] == "/healthz":
            troubles = mirroring.troubles
            status, body = (
                (503, "\n".join(troubles.values()).encode() + b"\n") if troubles else (200, b"ok\n")
            )
        headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app
