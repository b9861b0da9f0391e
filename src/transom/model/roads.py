"""What a hub and a region say to each other: the topics they share, and the heartbeat.

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
