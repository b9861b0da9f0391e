"""How far a link has come, kept in its target log in the same append as what it carried.

One compacted topic holds the newest position of every link, by the link's name. The target is the only place
where a position and the entries it stands for can change together (exactly once across SIGKILL).
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from transom.logs.protocol import Log, Message, Topic, TopicPartition
from transom.model.errors import UNREADABLE, InvalidError, Problem
from transom.model.roads import LINK_POSITIONS

POSITIONS = Topic(LINK_POSITIONS, compact=True)

_READ = 5000

P = TypeVar("P")

Confirm = Callable[[], Awaitable[None]]
"""Raises `FencedError` unless whoever asks is still the one to carry a link. Asked once its fence was taken:
whoever takes over later takes the fence later, too, so from then on the fence is enough.
"""


async def always() -> None:
    """The `Confirm` of a link that only one process can carry."""


def position_message(link: str, position: msgspec.Struct) -> Message:
    """The message that moves `link` to `position`; to be appended together with what was carried."""
    return Message(POSITIONS.name, link.encode(), msgspec.json.encode(position))


async def read_position(log: Log, link: str, shape: type[P]) -> P | None:
    """Where `link` stands in its target `log`; None when it never carried anything.

    Raises `InvalidError` when what stands there is not a `shape`.
    """
    found: bytes | None = None
    key = link.encode()
    (bounds,) = (await log.bounds(POSITIONS.name)).values()
    at = TopicPartition(POSITIONS.name, 0)
    offset = bounds.start
    while entries := await log.read({at: offset}, most=_READ):
        offset = entries[-1].offset + 1
        for entry in entries:
            if entry.key == key:
                found = entry.value
    if found is None:
        return None
    try:
        return msgspec.json.decode(found, type=shape)
    except UNREADABLE as error:
        raise InvalidError(f"position of link {link!r}", [Problem("", str(error))]) from None
