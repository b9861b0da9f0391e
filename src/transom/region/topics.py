"""The topics of a region's log, and what the keys that its server knows may do with them."""

from transom.logs.protocol import Topic
from transom.logs.server import Rights
from transom.model.roads import (
    CONTEXTS,
    CONTEXTS_BULK,
    DESIRED,
    GATEWAYS,
    HEARTBEATS,
    LINK_POSITIONS,
    STATUS,
)
from transom.tables.sweeps import DIGESTS, SWEEPS

TOPICS = (
    Topic(DESIRED, compact=True),
    Topic(CONTEXTS, compact=True),
    Topic(CONTEXTS_BULK, compact=True),
    Topic(STATUS, compact=True),
    Topic(HEARTBEATS, compact=True),
    Topic(GATEWAYS, compact=True),
    SWEEPS,
    DIGESTS,
)

LINK_RIGHTS = Rights(
    read=frozenset({STATUS, HEARTBEATS, GATEWAYS, DIGESTS.name, LINK_POSITIONS}),
    append=frozenset({DESIRED, CONTEXTS, CONTEXTS_BULK, SWEEPS.name, LINK_POSITIONS}),
    links=True,
)
"""The key of the control link: desired state, contexts and sweep requests in, reports and answers out."""

GATEWAY_RIGHTS = Rights(
    read=frozenset({CONTEXTS, CONTEXTS_BULK, STATUS, SWEEPS.name, GATEWAYS}),
    append=frozenset({GATEWAYS, DIGESTS.name}),
)
"""The key of the region's gateways on other machines: all that they read, their beats (each looks
whether another has its name) and their answers."""
