"""What a log's server and its client say to each other: requests, answers and errors as msgpack.

`POST /log/v1/<operation>` with a struct of this module as its body; the answer's type stands beside the
operation. An error travels with its class and fields, so that `OutOfRangeError` is one on both sides.
Next on the data's way: `server` and `remote`.
"""

from typing import Any

import msgspec

from transom.logs.protocol import Fence, Membership, Message, Topic, TopicPartition
from transom.logs.rules import MEBIBYTE
from transom.model.errors import (
    UNREADABLE,
    ConflictError,
    FencedError,
    ForbiddenError,
    GenerationError,
    InvalidError,
    NewerDataError,
    NotFoundError,
    OutOfRangeError,
    Problem,
    StorageFullError,
    TransomError,
    UnauthorizedError,
    UnknownTopicError,
    UnreachableError,
)

PATH = "/log/v1/"
CONTENT_TYPE = "application/msgpack"
BODY_BYTES_MAX = 16 * MEBIBYTE
WAIT_SECONDS_MAX = 60.0

Offsets = list[tuple[TopicPartition, int]]
"""A mapping from partitions to offsets, as it travels."""


class Create(msgspec.Struct, frozen=True):
    """`Log.create`; answers nothing."""

    topics: list[Topic]


class Topics(msgspec.Struct, frozen=True):
    """`Log.topics`; answers `dict[str, TopicInfo]`, of the topics the key has any right to."""


class Append(msgspec.Struct, frozen=True):
    """`Log.append`; answers `list[int]`."""

    batch: list[Message]
    fence: Fence | None = None


class Read(msgspec.Struct, frozen=True):
    """`Log.read`; answers `list[Entry]`. Waits at most `WAIT_SECONDS_MAX`."""

    positions: Offsets
    most: int
    wait_seconds: float


class GetBounds(msgspec.Struct, frozen=True):
    """`Log.bounds`; answers `dict[int, Bounds]`."""

    topic: str


class Truncate(msgspec.Struct, frozen=True):
    """`Log.truncate`; answers nothing."""

    topic: str
    partition: int
    before: int


class TakeFence(msgspec.Struct, frozen=True):
    """`Log.take_fence`; answers `Fence`."""

    name: str


class Join(msgspec.Struct, frozen=True):
    """`Log.join`; answers `Membership`."""

    group: str
    member: str
    topics: list[str]
    session_seconds: float


class Commit(msgspec.Struct, frozen=True):
    """`Log.commit`; answers nothing."""

    membership: Membership
    offsets: Offsets


class Committed(msgspec.Struct, frozen=True):
    """`Log.committed`; answers `Offsets`, of the topics the key may read."""

    group: str


Request = Create | Topics | Append | Read | GetBounds | Truncate | TakeFence | Join | Commit | Committed

OPERATIONS: dict[str, type[Request]] = {
    "create": Create,
    "topics": Topics,
    "append": Append,
    "read": Read,
    "bounds": GetBounds,
    "truncate": Truncate,
    "take-fence": TakeFence,
    "join": Join,
    "commit": Commit,
    "committed": Committed,
}
NAMES = {kind: name for name, kind in OPERATIONS.items()}

_STATUS: dict[type[TransomError], int] = {
    InvalidError: 400,
    UnauthorizedError: 401,
    ForbiddenError: 403,
    NotFoundError: 404,
    UnknownTopicError: 404,
    ConflictError: 409,
    FencedError: 409,
    GenerationError: 409,
    OutOfRangeError: 416,
    NewerDataError: 500,
    UnreachableError: 503,
    StorageFullError: 507,
}
_BY_NAME = {kind.__name__: kind for kind in _STATUS}


class _Told(msgspec.Struct, frozen=True):
    error: str
    arguments: list[Any]


encode = msgspec.msgpack.Encoder().encode
_decode_told = msgspec.msgpack.Decoder(_Told).decode


def encode_error(error: TransomError) -> tuple[int, bytes]:
    """The HTTP status and the body that carry `error`."""
    match error:
        case InvalidError():
            arguments: list[Any] = [error.what, [[told.path, told.message] for told in error.problems]]
        case OutOfRangeError():
            arguments = [error.topic, error.partition, error.offset, error.start, error.end]
        case UnknownTopicError():
            arguments = [error.topic]
        case _:
            arguments = [str(error)]
    return _STATUS.get(type(error), 500), encode(_Told(type(error).__name__, arguments))


def decode_error(body: bytes) -> TransomError | None:
    """The error that `encode_error` put into `body`; None when it holds none that is known here."""
    try:
        told = _decode_told(body)
        kind = _BY_NAME[told.error]
        if kind is InvalidError:
            what, problems = told.arguments
            return InvalidError(what, [Problem(path, message) for path, message in problems])
        return kind(*told.arguments)
    except (KeyError, TypeError, ValueError, *UNREADABLE):
        return None
