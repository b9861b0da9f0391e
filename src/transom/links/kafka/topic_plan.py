"""What is to be done so that every mirrored topic has a copy that is kept as it is. Pure.

A copy is created at once as it is meant to be (KAFKA-12254): as many partitions, the settings that people
gave the original, and those without which records could not pass unchanged. Settings that are about the
cluster and not about the records stay the target's own (`min.insync.replicas`, tiered storage, throttles).
Afterwards partitions and settings follow the original. What people set on a copy stays, where the original
says nothing: which settings came from the original is noted with the copy (`Copy.settings`).

A topic that has records and is no copy of this mirror's is never written to: the step is a refusal, in words.
Next on the data's way: `topics`, which carries it out; `transom mirror --dry-run`, which prints it.
"""

from collections.abc import Collection, Iterator, Mapping
from math import inf
from typing import NamedTuple

import msgspec

from transom.links.kafka.names import metric_name

MAX_MESSAGE_BYTES = "max.message.bytes"
_POLICY = "cleanup.policy"
_DELETES_KEPT_MS = "delete.retention.ms"
_FOR_EVER_MS = str((1 << 63) - 1)
_BYTES_MAX = (1 << 31) - 1
_ROOM = 1.25
"""A batch that has to be written anew may become larger than it was, by another compressor's worse work."""

ALWAYS: Mapping[str, str] = {
    # Times are the original's, however old they are or how far ahead (KIP-937).
    "message.timestamp.type": "CreateTime",
    "message.timestamp.before.max.ms": _FOR_EVER_MS,
    "message.timestamp.after.max.ms": _FOR_EVER_MS,
    # Batches stay compressed as they come (KAFKA-10728).
    "compression.type": "producer",
}
_THE_TARGETS_OWN = (
    "min.insync.replicas",
    "unclean.leader.election.enable",
    "leader.replication.throttled.replicas",
    "follower.replication.throttled.replicas",
    "message.format.version",
    MAX_MESSAGE_BYTES,
)
_THE_TARGETS_OWN_KINDS = ("remote.", "local.", "compression.", "message.timestamp.")


class Seen(NamedTuple):
    """A topic as a cluster has it: every setting's value, and which of them were `given` to the topic."""

    partitions: int
    replicas: int
    values: Mapping[str, str]
    given: frozenset[str]


class Copy(msgspec.Struct, frozen=True):
    """Whose copy a topic is: which mirror makes it, of which topic, and which settings came from there."""

    mirror: str
    topic: str
    settings: tuple[str, ...] = ()


class Create(msgspec.Struct, frozen=True, tag_field="action", tag="create"):
    """Make a copy that is not there."""

    topic: str
    copy: str
    partitions: int
    replicas: int
    settings: dict[str, str]
    noted: Copy

    def __str__(self) -> str:
        return (
            f"create {self.copy!r} as the copy of {self.topic!r}: {_many(self.partitions, 'partition')}, "
            f"{_many(self.replicas, 'replica')}, {_told(self.settings)}"
        )


class Adopt(msgspec.Struct, frozen=True, tag_field="action", tag="adopt"):
    """Take a topic that is there and has no records as the copy."""

    topic: str
    copy: str
    noted: Copy

    def __str__(self) -> str:
        return f"take {self.copy!r}, which has no records, as the copy of {self.topic!r}"


class Grow(msgspec.Struct, frozen=True, tag_field="action", tag="grow"):
    """Add partitions."""

    topic: str
    copy: str
    partitions: int
    held: int

    def __str__(self) -> str:
        added = _many(self.partitions - self.held, "partition")
        return f"add {added} to {self.copy!r}, so that it has {self.partitions} as {self.topic!r} has"


class Alter(msgspec.Struct, frozen=True, tag_field="action", tag="alter"):
    """Change settings. `noted` is what holds once it is done; empty `settings` and `removed`: only that."""

    topic: str
    copy: str
    settings: dict[str, str]
    removed: tuple[str, ...]
    noted: Copy

    def __str__(self) -> str:
        changes = [_told(self.settings)] if self.settings else []
        changes += [f"{name} as the target's default"] if (name := ", ".join(self.removed)) else []
        return f"have {self.copy!r} follow {self.topic!r}: {'; '.join(changes) or 'as it is already'}"


class Refuse(msgspec.Struct, frozen=True, tag_field="action", tag="refuse"):
    """A topic that is not mirrored until somebody changes something."""

    topic: str
    copy: str
    why: str

    def __str__(self) -> str:
        return f"do not mirror {self.topic!r} to {self.copy!r}: {self.why}"


Step = Create | Adopt | Grow | Alter | Refuse


class Target(NamedTuple):
    """What the target has: topics by name, how many brokers, and which of its topics are whose copies.

    `filled` are those that are no copies and have records. `known` are the settings that its version knows;
    None: that could not be seen.
    """

    topics: Mapping[str, Seen]
    names: Collection[str]
    brokers: int
    copies: Mapping[str, Copy]
    filled: Collection[str]
    known: frozenset[str] | None


def plan(
    mirror: str,
    names: Mapping[str, str],
    source: Mapping[str, Seen],
    target: Target,
    replication_factor: int | None = None,
) -> list[Step]:
    """The steps for mirroring `names` (the target's by the source's), topic by topic.

    `replication_factor` of new copies: None: the original's; never more than the target has brokers.
    """
    metrics = {metric_name(name): name for name in target.names}
    steps: list[Step] = []
    for topic, copy in names.items():
        original, held = source[topic], target.topics.get(copy)
        if held is not None:
            steps.extend(_follow(mirror, (topic, original), (copy, held), target))
        elif (alike := metrics.get(metric_name(copy))) is not None:
            why = f"Kafka refuses the name, because of {alike!r} there; name mirrored topics otherwise"
            steps.append(Refuse(topic, copy, why))
        else:
            settings = _wanted(original, target.known)
            replicas = max(1, min(replication_factor or original.replicas, target.brokers))
            noted = Copy(mirror, topic, _from_original(settings))
            steps.append(Create(topic, copy, original.partitions, replicas, settings, noted))
    return steps


def deletes_kept_seconds(original: Seen) -> float:
    """How long a topic keeps delete markers; infinite where nothing is compacted."""
    if "compact" not in original.values.get(_POLICY, ""):
        return inf
    return int(original.values[_DELETES_KEPT_MS]) / 1000


def _follow(mirror: str, its: tuple[str, Seen], there: tuple[str, Seen], target: Target) -> Iterator[Step]:
    """The steps for a copy that is there."""
    (topic, original), (copy, held) = its, there
    noted = target.copies.get(copy)
    if why := _refused(mirror, topic, original, there, target):
        yield Refuse(topic, copy, why)
        return
    wanted = _wanted(original, frozenset(held.values))
    now = Copy(mirror, topic, _from_original(wanted))
    if noted is None:
        yield Adopt(topic, copy, now)
    if held.partitions < original.partitions:
        yield Grow(topic, copy, original.partitions, held.partitions)
    settings = {name: value for name, value in wanted.items() if not _is_so(name, value, held)}
    before = noted.settings if noted is not None else ()
    removed = tuple(name for name in before if name not in wanted and name in held.given)
    if settings or removed or (noted is not None and noted != now):
        yield Alter(topic, copy, settings, removed, now)


def _refused(mirror: str, topic: str, original: Seen, there: tuple[str, Seen], target: Target) -> str:
    """Why a topic that is there must not be written to; empty when it may be."""
    copy, held = there
    noted = target.copies.get(copy)
    if noted is None and copy in target.filled:
        return (
            "the target has a topic of this name, with records that are not this mirror's; "
            "delete it, or name mirrored topics otherwise"
        )
    if noted is not None and noted.mirror != mirror:
        return (
            f"mirror {noted.mirror!r} makes it from its {noted.topic!r}; give one of the sources another name"
        )
    if noted is not None and noted.topic != topic:
        return f"it is the copy of {noted.topic!r}; delete it, or name mirrored topics otherwise"
    if held.partitions > original.partitions:
        return (
            f"it has {_many(held.partitions, 'partition')} and the original {original.partitions}, and they "
            "cannot become fewer; add as many to the original, or delete the copy"
        )
    return ""


def _wanted(original: Seen, known: frozenset[str] | None) -> dict[str, str]:
    """The settings of a copy, of those that the target knows."""
    wanted = {
        name: original.values[name]
        for name in sorted(original.given)
        if name not in _THE_TARGETS_OWN and not name.startswith(_THE_TARGETS_OWN_KINDS)
    }
    wanted[_POLICY] = original.values.get(_POLICY, "delete")
    largest = int(original.values.get(MAX_MESSAGE_BYTES, 0))
    wanted[MAX_MESSAGE_BYTES] = str(min(_BYTES_MAX, int(largest * _ROOM)))
    wanted |= ALWAYS
    return {name: value for name, value in wanted.items() if known is None or name in known}


def _from_original(wanted: Mapping[str, str]) -> tuple[str, ...]:
    """Those of the wanted settings that the copy has because the original has them."""
    return tuple(sorted(name for name in wanted if name not in ALWAYS and name != MAX_MESSAGE_BYTES))


def _is_so(name: str, value: str, held: Seen) -> bool:
    """Whether a copy has a setting as wanted, by itself: a default of its cluster may change."""
    if name == MAX_MESSAGE_BYTES:
        return int(held.values[name]) >= int(value)
    return held.values[name] == value and name in held.given


def _told(settings: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in settings.items())


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
