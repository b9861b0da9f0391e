"""The topics of a mirror: seen in both clusters, made in the target, and kept like their originals.

`look` sees both sides and plans, `carry_out` does what is planned, `wait` returns when it is worth looking
again: topics or partitions have changed on either side, or half a minute has passed (settings change without
a sign). Whose copy a topic is, is noted before the topic is made or taken; so no mirror ever sees a copy
that it could take for an original. `topic_plan` decides. Next on the data's way: `shard`, which carries the
partitions of what is mirrored.
"""

import contextlib
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec
from aiokafka.protocol.admin import CreatePartitionsRequest, CreateTopicsRequest, DescribeConfigsRequest

from transom.links.kafka.ledger import MAP_TOPIC
from transom.links.kafka.names import Chosen, Naming, Patterns, choose
from transom.links.kafka.rights import COPY, ORIGINAL, lacking
from transom.links.kafka.topic_plan import (
    Adopt,
    Alter,
    Copy,
    Create,
    Grow,
    Refuse,
    Seen,
    Step,
    Target,
    deletes_kept_seconds,
    plan,
)
from transom.logs import kafka_api as api
from transom.logs.kafka_admin_api import TOPIC, AllTopicsRequest, AlterTopicRequest, altered
from transom.logs.kafka_bounds import bounds
from transom.logs.kafka_cluster import KafkaCluster, TransientError
from transom.model.errors import ForbiddenError, TransomError
from transom.runtime.telemetry import get_logger

log_event = get_logger(__name__)

LOOK_SECONDS = 30.0
_CHANGED_SECONDS = 2.0
_TIMEOUT_MS = 10_000
_PAGE_TOPICS = 20
"""How many topics are in one request: an answer about settings is long."""
_FROM_TOPIC = 1  # where a setting comes from, in DescribeConfigs: the topic itself (KIP-226)

Note = Callable[[Mapping[str, Copy]], Awaitable[None]]
"""Keeps, for good, whose copies topics of the target are."""


class Looked(NamedTuple):
    """What a look found: what is chosen, the steps to where it should be, and how long originals keep delete
    markers (seconds).
    """

    chosen: Chosen
    steps: Sequence[Step]
    deletes_kept: Mapping[str, float]


class Topics:
    """The topics of one mirror. `troubles` are the words of those that could not be made or changed."""

    def __init__(
        self,
        mirror: str,
        source: KafkaCluster,
        target: KafkaCluster,
        patterns: Patterns,
        naming: Naming,
        replication_factor: int | None = None,
    ) -> None:
        """`replication_factor` of new copies; None: the originals'."""
        self.troubles: dict[str, str] = {}
        self._mirror = mirror
        self._source, self._target = source, target
        self._patterns, self._naming = patterns, naming
        self._replication_factor = replication_factor
        self._refused: dict[str, str] = {}
        self._seen: dict[KafkaCluster, tuple[int, bytes]] = {}
        self._look_at = 0.0

    async def look(self, copies_there: Mapping[str, Copy], copies: Mapping[str, Copy]) -> Looked:
        """What is to be mirrored, and the steps to it.

        `copies_there` are the source's topics that are copies, `copies` the target's. Raises what reading
        from a cluster raises.
        """
        self._look_at = self._source.clock.monotonic() + LOOK_SECONDS
        for cluster in (self._source, self._target):
            await self._changed(cluster)  # what changes from now on, `wait` tells
        at_source = await self._source.layouts(None)
        at_target = await self._target.layouts(None)
        chosen = choose(
            [name for name, layout in at_source.items() if not layout.internal],
            {name: copy.mirror for name, copy in copies_there.items()},
            self._patterns,
            self._naming,
            one_cluster=self._source.id == self._target.id,
        )
        forbidden = await self._forbidden(chosen.names)
        names = {topic: copy for topic, copy in chosen.names.items() if topic not in forbidden}
        originals = await _seen(self._source, at_source, names)
        names = {topic: copy for topic, copy in names.items() if topic in originals}
        there = await _seen(self._target, at_target, [copy for copy in names.values() if copy in at_target])
        strangers = [copy for copy in there if copy not in copies]
        target = Target(
            there,
            at_target.keys(),
            self._target.brokers,
            copies,
            [name for name in strangers if await _has_records(self._target, name)],
            await self._known(there, at_target),
        )
        steps = plan(self._mirror, names, originals, target, self._replication_factor)
        kept = {topic: deletes_kept_seconds(seen) for topic, seen in originals.items()}
        return Looked(chosen._replace(names=names), [*forbidden.values(), *steps], kept)

    async def carry_out(self, looked: Looked, note: Note) -> dict[str, str]:
        """Do the steps; returns what can be mirrored now: the target's names by the source's.

        What fails for one topic is in `troubles`, and stops no other. Raises what `note` raises.
        """
        refused = {step.topic: str(step) for step in looked.steps if isinstance(step, Refuse)}
        for said in refused.keys() - self._refused.keys():
            log_event.warning("topic not mirrored", mirror=self._mirror, why=refused[said])
        self._refused = refused
        self.troubles = {step.topic: step.why for step in looked.steps if isinstance(step, Refuse)}
        new = [step for step in looked.steps if isinstance(step, Create | Adopt)]
        changes = [step for step in looked.steps if isinstance(step, Alter)]
        first = {step.copy: step.noted for step in new}
        for step in changes:
            # What it has from its original and what it is to have: wherever we end, nothing is forgotten.
            both = {*step.noted.settings, *step.removed}
            first[step.copy] = msgspec.structs.replace(step.noted, settings=tuple(sorted(both)))
        if first:
            await note(first)
        creates = [step for step in looked.steps if isinstance(step, Create)]
        for at in range(0, len(creates), _PAGE_TOPICS):
            await self._create({step.copy: step for step in creates[at : at + _PAGE_TOPICS]})
        for step in looked.steps:
            if isinstance(step, Grow | Alter):
                await self._change(step)
        done = {step.copy: step.noted for step in changes if step.removed and step.topic not in self.troubles}
        if done:
            await note(done)
        # What is there is mirrored, also when it could not be changed.
        missing = {step.topic for step in looked.steps if isinstance(step, Create | Refuse)}
        names = looked.chosen.names
        return {
            topic: copy for topic, copy in names.items() if topic not in missing or topic not in self.troubles
        }

    async def wait(self) -> None:
        """Until another look is worth while."""
        clock = self._source.clock
        while clock.monotonic() < self._look_at:
            await clock.sleep(_CHANGED_SECONDS)
            if await self._changed(self._source) or await self._changed(self._target):
                return

    async def _changed(self, cluster: KafkaCluster) -> bool:
        """Whether a cluster tells of other topics or partitions than before; of leaders, too."""
        node, before = self._seen.get(cluster, (None, b""))
        try:
            if node is None:
                brokers = (await cluster.ask(None, api.MetadataRequest(()))).brokers
                node = min(broker[0] for broker in brokers)
            digest = blake2b((await cluster.ask(node, AllTopicsRequest())).body).digest()
        except TransientError:
            self._seen.pop(cluster, None)
            return False
        self._seen[cluster] = (node, digest)
        return before not in (b"", digest)

    async def _forbidden(self, names: Mapping[str, str]) -> dict[str, Refuse]:
        """What the user may not mirror."""
        here = await lacking(self._source, names, ORIGINAL)
        there = await lacking(self._target, names.values(), COPY)
        return {
            topic: Refuse(topic, copy, here.get(topic) or there[copy])
            for topic, copy in names.items()
            if topic in here or copy in there
        }

    async def _known(
        self, there: Mapping[str, Seen], at_target: Mapping[str, api.TopicLayout]
    ) -> frozenset[str] | None:
        """The settings that the target's version knows, as any topic of its shows them, the mirror's first:
        others it may not be let look at.
        """
        held = sorted(at_target, key=lambda name: (name != MAP_TOPIC, name))[:1]
        with contextlib.suppress(ForbiddenError):
            shown = there or await _seen(self._target, at_target, held)
            return next((frozenset(seen.values) for seen in shown.values()), None)
        return None

    async def _create(self, steps: dict[str, Create]) -> None:
        """Create the copies, which are as they are meant to be from the first moment on."""
        for step in steps.values():
            log_event.info("topic", mirror=self._mirror, step=str(step))

        async def attempt() -> None:
            asked: list[Any] = [
                (step.copy, step.partitions, step.replicas, [], list(step.settings.items()))
                for step in steps.values()
            ]
            request = CreateTopicsRequest(asked, _TIMEOUT_MS, validate_only=False)
            later = api.NONE
            for name, code, message in (await self._target.ask(None, request)).topic_errors:
                if api.is_transient(code):
                    later = code
                    continue
                step = steps.pop(name)
                try:
                    if code != api.TOPIC_EXISTS:  # by an attempt whose answer was lost
                        self._target.check_topic(code, name, message, "Create")
                except TransomError as error:
                    self._trouble(step, error)
            self._target.check(later, "new topics")

        try:
            await self._target.retrying("create topics", attempt)
        except TransomError as error:
            for step in steps.values():
                self._trouble(step, error)

    async def _change(self, step: Grow | Alter) -> None:
        log_event.info("topic", mirror=self._mirror, step=str(step))
        try:
            if isinstance(step, Grow):
                await self._target.retrying("add partitions", lambda: self._grow(step))
            elif step.settings or step.removed:
                await self._target.retrying("change a topic", lambda: self._alter(step))
        except TransomError as error:
            self._trouble(step, error)

    def _trouble(self, step: Create | Grow | Alter, error: TransomError) -> None:
        self.troubles[step.topic] = str(error)
        log_event.warning("topic not as it should be", mirror=self._mirror, error=str(error))

    async def _grow(self, step: Grow) -> None:
        asked: list[Any] = [(step.copy, (step.partitions, None))]
        answer = await self._target.ask(
            None, CreatePartitionsRequest(asked, _TIMEOUT_MS, validate_only=False)
        )
        _, code, message = answer.topic_errors[0]
        layout = (await self._target.layouts([step.copy])).get(step.copy)
        if layout is None or len(layout.leaders) < step.partitions:
            self._target.check_topic(code, step.copy, message, "Alter")

    async def _alter(self, step: Alter) -> None:
        answer = await self._target.ask(None, AlterTopicRequest(step.copy, step.settings, step.removed))
        code, message = altered(answer)
        self._target.check_topic(code, step.copy, message, "AlterConfigs")


async def _has_records(cluster: KafkaCluster, topic: str) -> bool:
    return any(each.end > each.start for each in (await bounds(cluster, topic)).values())


async def _seen(
    cluster: KafkaCluster, layouts: Mapping[str, api.TopicLayout], names: Collection[str]
) -> dict[str, Seen]:
    """The topics of these names with their settings; without those that are gone meanwhile."""
    found: dict[str, Seen] = {}
    wanted = list(names)
    for at in range(0, len(wanted), _PAGE_TOPICS):
        asked = [(TOPIC, name, None) for name in wanted[at : at + _PAGE_TOPICS]]

        async def attempt(asked: list[Any] = asked) -> Any:
            answer = await cluster.ask(None, DescribeConfigsRequest(asked))
            for code, _, _, name, _ in answer.resources:
                if code != api.UNKNOWN_TOPIC:
                    cluster.check(code, f"topic {name!r}", "DescribeConfigs")
            return answer

        answer = await cluster.retrying("say how topics are kept", attempt)
        for code, _, _, name, entries in answer.resources:
            if not code:
                layout = layouts[name]
                values = {entry[0]: entry[1] for entry in entries if entry[1] is not None}
                given = frozenset(entry[0] for entry in entries if entry[3] == _FROM_TOPIC)
                found[name] = Seen(len(layout.leaders), layout.replicas, values, given & values.keys())
    return found
