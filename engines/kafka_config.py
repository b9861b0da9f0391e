"""What a broker for tests is told. Where it differs from Kafka's defaults, the reason stands beside it."""

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engines.kafka_secure import Secure

SMALL_AND_QUICK: Mapping[str, str | int] = {
    # Clients say which topics there are, with their final configuration.
    "auto.create.topics.enable": "false",
    # Three partitions of each inner topic: 50 take seconds to come up.
    "offsets.topic.num.partitions": 3,
    "transaction.state.log.num.partitions": 3,
    "share.coordinator.state.topic.num.partitions": 1,
    # A test's group is ready at once, and may notice a lost member sooner than people would want.
    "group.initial.rebalance.delay.ms": 0,
    "group.min.session.timeout.ms": 100,
    # Few threads and small buffers: several brokers share two cores and their tests.
    "num.network.threads": 1,
    "num.io.threads": 2,
    "num.replica.fetchers": 1,
    "num.recovery.threads.per.data.dir": 1,
    "background.threads": 2,
    "log.cleaner.dedupe.buffer.size": 2_097_152,
    "log.cleaner.io.buffer.size": 65_536,
    "log.index.size.max.bytes": 262_144,
    # Compaction, retention and deletion happen while a test looks.
    "log.cleaner.backoff.ms": 100,
    "log.initial.task.delay.ms": 100,
    "log.retention.check.interval.ms": 500,
    "log.segment.delete.delay.ms": 500,
    # A broker that is gone is noticed in 3 s, not 9; transactions that nobody ends, within a second.
    "broker.session.timeout.ms": 3000,
    "broker.heartbeat.interval.ms": 500,
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": 500,
    # An elected leader goes back to where it was, soon.
    "leader.imbalance.check.interval.seconds": 5,
    "controlled.shutdown.retry.backoff.ms": 200,
}


@dataclass(frozen=True, slots=True)
class Ports:
    """Where one broker listens. On `proxied` it is told to tell its clients `proxy`, where a test may
    listen.
    """

    plain: int
    controller: int
    proxied: int
    proxy: int


def properties(
    number: int,
    ports: Sequence[Ports],
    *,
    controllers: int,
    data: Path,
    secure: Secure | None,
    settings: Mapping[str, str | int],
) -> dict[str, str | int]:
    """The configuration of broker `number`."""
    mine, copies = ports[number], min(3, len(ports))
    listeners = {"PLAIN": ("PLAINTEXT", mine.plain), "PROXIED": ("PLAINTEXT", mine.proxied)}
    listeners |= dict(secure.listeners(number)) if secure is not None else {}
    told = {name: port for name, (_, port) in listeners.items()} | {"PROXIED": mine.proxy}
    bound = {name: port for name, (_, port) in listeners.items()}
    roles = "broker"
    if number < controllers:
        roles, bound["CONTROLLER"] = "broker,controller", mine.controller
    protocols = {name: protocol for name, (protocol, _) in listeners.items()} | {"CONTROLLER": "PLAINTEXT"}
    return {
        "process.roles": roles,
        "node.id": number + 1,
        "controller.quorum.voters": ",".join(
            f"{one + 1}@127.0.0.1:{ports[one].controller}" for one in range(controllers)
        ),
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAIN",
        "listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in bound.items()),
        "advertised.listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in told.items()),
        "listener.security.protocol.map": ",".join(f"{name}:{value}" for name, value in protocols.items()),
        "log.dirs": str(data),
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": max(1, copies - 1),
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": max(1, copies - 1),
        "default.replication.factor": copies,
        **SMALL_AND_QUICK,
        **(secure.settings() if secure is not None else {}),
        **settings,
    }


def new_id() -> str:
    """A random identity in the form Kafka wants: 16 bytes, URL-safe base64, not beginning with a dash."""
    return base64.urlsafe_b64encode(b"\0" + os.urandom(15)).decode("ascii").rstrip("=")


def meta_properties(cluster: str, number: int) -> str:
    """The identity of a formatted folder, as the storage tool writes it."""
    return f"version=1\ncluster.id={cluster}\nnode.id={number + 1}\ndirectory.id={new_id()}\n"
