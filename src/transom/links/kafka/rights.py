"""What the mirror's user may do, asked before anything is changed.

So what is missing is named with what to grant, one topic that may not be used keeps no other from being
mirrored, and who lacks what the mirror itself needs changes nothing. What cannot be asked is told when it is
refused. Source: KIP-430. Next on the data's way: `topics`, and `processes.mirror`.
"""

from collections.abc import Collection
from typing import NamedTuple

from transom.links.kafka.ledger import COPIES_SHARD, MAP_TOPIC
from transom.links.kafka.orders import ORDERS
from transom.links.kafka.shard import Ends, transactional_id
from transom.links.kafka.status import STATUS
from transom.logs import kafka_api as api
from transom.logs.kafka_cluster import KafkaCluster
from transom.model.errors import ForbiddenError


class Needed(NamedTuple):
    """Operations on a topic: those without which there is no going on, and those to grant on one that may not
    even be seen.
    """

    there: tuple[str, ...]
    unseen: tuple[str, ...]


ORIGINAL = Needed(("Read", "DescribeConfigs"), ("Read", "DescribeConfigs"))
COPY = Needed(("Read", "Write", "DescribeConfigs"), ("Create", "Read", "Write", "Alter", "AlterConfigs"))
_OWN = Needed(("Read", "Write", "DescribeConfigs"), ("Create", "Read", "Write", "DescribeConfigs"))
_MAP_OF_SOURCE = Needed(("Read",), ("Read",))


async def lacking(cluster: KafkaCluster, names: Collection[str], needed: Needed) -> dict[str, str]:
    """Those of the topics on which the user lacks what is `needed`, in words. Of a topic that is not there it
    is only known whether it could be seen, which most operations include.
    """

    async def attempt() -> dict[str, tuple[int, frozenset[str]]]:
        return api.operations_on(await cluster.ask(None, api.MetadataRequest(names, operations=True)))

    found = await cluster.retrying("say what may be done with topics", attempt) if names else {}
    told: dict[str, str] = {}
    for name, (code, may) in found.items():
        if code == api.UNKNOWN_TOPIC:
            continue
        unseen = code == api.TOPIC_AUTHORIZATION_FAILED
        if missing := [each for each in (needed.unseen if unseen else needed.there) if each not in may]:
            told[name] = (
                f"{cluster.address} does not let user {cluster.address.user!r} use topic {name!r}; "
                f"grant it {' and '.join(missing)} (docs/how-to/mirror.md lists all)"
            )
    return told


async def check_own(ends: Ends, group: str) -> None:
    """Raises `ForbiddenError` with everything that the mirror itself lacks, as far as that can be asked: for
    the map of both clusters, its other topics, its `group` and its transactional ids.
    """
    told = [
        *(await lacking(ends.source, [MAP_TOPIC], _MAP_OF_SOURCE)).values(),
        *(await lacking(ends.target, [MAP_TOPIC, ORDERS.name, STATUS.name], _OWN)).values(),
    ]
    for what, asked in (
        ("keep a group", lambda: ends.target.group_coordinator(group)),
        ("keep a transactional id", lambda: ends.target.transaction_coordinator(_first_id(ends))),
    ):
        try:
            await ends.target.retrying(what, asked)
        except ForbiddenError as error:
            told.append(str(error))
    if told:
        raise ForbiddenError("; ".join(told))


def _first_id(ends: Ends) -> str:
    return transactional_id(ends.mirror, COPIES_SHARD)
