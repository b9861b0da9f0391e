"""The topics of a region's log, and what the hub's key may do with them."""

from transom.logs.protocol import Topic
from transom.logs.server import Rights
from transom.tables.sweeps import DIGESTS, SWEEPS

DESIRED = "desired"
STATUS = "status"
HEARTBEATS = "heartbeats"

_LINK_POSITIONS = "link-positions"  # made by the links themselves

TOPICS = (
    Topic(DESIRED, compact=True),
    Topic(STATUS, compact=True),
    Topic(HEARTBEATS, compact=True),
    SWEEPS,
    DIGESTS,
)

LINK_RIGHTS = Rights(
    read=frozenset({STATUS, HEARTBEATS, DIGESTS.name, _LINK_POSITIONS}),
    append=frozenset({DESIRED, SWEEPS.name, _LINK_POSITIONS}),
)
"""The key of the control link: desired state and sweep requests in, reports and answers out."""
