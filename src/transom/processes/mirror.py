"""A mirror's process: configuration in, a running mirror until it is told to stop.

Next on the data's way: `links.kafka.mirroring`.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, NamedTuple

from transom.links.kafka.config import ClusterConfig, MirrorConfig
from transom.links.kafka.groups import Groups
from transom.links.kafka.lanes import Lanes
from transom.links.kafka.mirroring import Mirroring
from transom.links.kafka.names import Naming, Patterns
from transom.links.kafka.planning import Planning
from transom.links.kafka.resuming import Policy
from transom.links.kafka.shard import Ends
from transom.links.kafka.status import LaneGauges
from transom.links.kafka.topics import Topics
from transom.logs.kafka import KafkaLog
from transom.logs.kafka_address import parse_address
from transom.logs.kafka_cluster import KafkaCluster
from transom.processes.lifetime import collect_seldom, started, until_told_to_stop
from transom.runtime.clock import Clock, SystemClock
from transom.runtime.config import load
from transom.runtime.http import AsgiApp, Receive, Scope, Send, client_tls, serve
from transom.runtime.randomness import Randomness
from transom.runtime.secret_files import read_secret
from transom.runtime.telemetry import configure_logging, exposition, metrics


class Clusters(NamedTuple):
    """Both clusters of a mirror, and the target as a log."""

    source: KafkaCluster
    target: KafkaCluster
    log: KafkaLog


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
    naming = Naming(topics.names, config.source.name, topics.environment)
    patterns = Patterns("topics", topics.include, topics.exclude)
    return Planning(
        ends,
        Topics(config.name, ends.source, ends.target, patterns, naming, topics.replication_factor),
        lanes,
    )


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
    async with clusters(config, folder, clock, randomness) as there:
        ends = Ends(config.name, there.source, there.target, clock)
        lanes = Lanes()
        mirroring = Mirroring(
            ends,
            there.log,
            planning(config, ends, lanes),
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
            Patterns("groups", config.groups.include, config.groups.exclude).match,
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
                    host, _, port = config.listen.rpartition(":")
                    running.append(group.create_task(serve(_pages(mirroring), host.strip("[]"), int(port))))
                try:
                    yield mirroring
                finally:
                    for task in running:
                        task.cancel()
        finally:
            metrics.unregister(gauges)


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
