"""The topics of a region's log, and what the hub's key may do with them."""

from transom.logs.protocol import Topic
from transom.logs.server import Rights
from transom.model.roads import DESIRED, HEARTBEATS, LINK_POSITIONS, STATUS
from transom.tables.sweeps import DIGESTS, SWEEPS

TOPICS = (
    Topic(DESIRED, compact=True),
    Topic(STATUS, compact=True),
    Topic(HEARTBEATS, compact=True),
    SWEEPS,
    DIGESTS,
)

LINK_RIGHTS = Rights(
    read=frozenset({STATUS, HEARTBEATS, DIGESTS.name, LINK_POSITIONS}),
    append=frozenset({DESIRED, SWEEPS.name, LINK_POSITIONS}),
)
"""The key of the control link: desired state and sweep requests in, reports and answers out."""
