"""What a hub and a region say to each other: the topics they share, and the heartbeats.

Neither imports the other, so what both must agree on stands here. The third thing they share is the resource.
"""

import msgspec

DESIRED = "desired"
"""The hub's topic in a region: what is to be there."""
STATUS = "status"
"""A region's own: what is true of what it was asked for, and what it brings forth."""
HEARTBEATS = "heartbeats"
"""A region's own: a `Heartbeat` every few seconds."""
LINK_POSITIONS = "link-positions"
"""How far links into a log have come; see `links.positions`."""

DESIRED_TABLE = "desired"
"""What the region's table of `DESIRED` is called in sweeps."""

REGION_SILENT = "RegionSilent"
"""The reason of conditions that are not known to be so any more, because the region is not heard of."""

CONTEXTS = "contexts"
"""The fast lane of contexts: single changes and revocations. Feeds one table with `CONTEXTS_BULK`."""
CONTEXTS_BULK = "contexts-bulk"
"""The bulk lane: first fills, repairs, and what changes many contexts at once."""
GATEWAYS = "gateways"
"""A region's own: a `GatewayBeat` of every gateway, every few seconds."""

CANARY_FAST = "~canary/fast"
CANARY_BULK = "~canary/bulk"
"""Keys of the newest canary of each lane. Keys that begin with "~" are marks of the road itself: they count
for no digest and no sweep compares them."""


def context_table(gateway: str) -> str:
    """What a gateway's table of contexts is called in sweeps."""
    return f"contexts/{gateway}"


class Canary(msgspec.Struct, frozen=True):
    """The last record of every append to a lane, and every few seconds on its own.

    Whoever has read it has everything of that lane up to `revision` (of the epoch in the record's version);
    `time` (seconds since 1970) says when the hub knew no more. `verified`: since this region was first filled
    its digest has been found equal to the hub's; until both lanes have a canary and the bulk lane's is
    verified, what a table does not have is unknown, not absent. `since`: where a lane began that is not
    filled; what was changed before comes by the other lane, and is there once its canary is at `since`.
    """

    revision: int
    time: float
    verified: bool = False
    since: int = 0


class GatewayBeat(msgspec.Struct, frozen=True):
    """What a gateway says of itself.

    `revision` and `bulk_revision` are those of the newest canaries it has applied, caches told; `epoch` is
    theirs. `age_seconds` is how old its knowledge is (None: it never had any). `read` is the next offset of
    each topic ("contexts/0"). `refused` are records its door refused, by key, and why, the newest 20;
    `refused_count` how many since its start. `errors` counts requests that failed for its own fault.
    `instance` is another at each start, and of each gateway.
    """

    region: str
    gateway: str
    time: str
    ready: bool
    epoch: int = 0
    revision: int = 0
    bulk_revision: int = 0
    age_seconds: float | None = None
    rows: int = 0
    read: dict[str, int] = {}
    refused: dict[str, str] = {}
    refused_count: int = 0
    errors: int = 0
    address: str = ""
    workers: dict[str, str] = {}
    instance: str = ""


class Heartbeat(msgspec.Struct, frozen=True):
    """What a region says of itself: when (RFC 3339), and what it knows.

    `desired` is the next offset its table reads, by partition; `version` the newest it has; `workers` the
    ones that do not run, and why.
    """

    region: str
    time: str
    desired: dict[str, int] = {}
    version: str = ""
    workers: dict[str, str] = {}
