"""Every error says what is wrong, where, and what to do; and whether to retry, stop or crash.

An error knows nothing of HTTP or exit codes. `hub.api` maps errors to answers in one table, the
command line maps them to exit codes in another.
"""

from collections.abc import Iterable
from enum import Enum
from typing import ClassVar, Final, cast

import msgspec


class Advice(Enum):
    """What whoever catches an error should do."""

    RETRY = "retry"
    """The same call may succeed later: back off and try again."""
    STOP = "stop"
    """Trying again cannot help until someone changes something: say so and leave it."""
    CRASH = "crash"
    """A promise is broken; going on could make it worse: end the process."""


UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding bytes that came from elsewhere raises. `MsgspecError` alone is not all of it: text that is
not UTF-8, and what is nested too deep, have errors of their own, which would end whoever reads.
"""


class TransomError(Exception):
    """The root of all errors raised on purpose."""

    advice: ClassVar[Advice] = Advice.STOP


class Problem(msgspec.Struct, frozen=True):
    """One mistake in what somebody wrote: the path to it (dotted, indices in brackets) and what is wrong.

    `sort` is one of "Invalid", "Required", "NotSupported", "TypeInvalid", "TooLong", "TooMany", "Duplicate"
    and "Forbidden", as the Kubernetes API tells them apart.
    """

    path: str
    message: str
    sort: str = "Invalid"

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class InvalidError(TransomError):
    """What was given is wrong; `problems` lists every mistake at once. Nothing was changed."""

    def __init__(self, what: str, problems: Iterable[Problem]) -> None:
        self.what = what
        self.problems = tuple(problems)
        listed = "; ".join(str(problem) for problem in self.problems)
        super().__init__(f"{what} is invalid: {listed}" if listed else f"{what} is invalid")


class NotFoundError(TransomError):
    """There is no such thing, and the look-up itself worked."""


class ExistsError(TransomError):
    """It exists already."""


class ConflictError(TransomError):
    """Someone else changed it first: read it again and repeat the change."""

    advice = Advice.RETRY


class ModifiedError(ConflictError):
    """It is at another resourceVersion than the writer read."""


class ForbiddenError(TransomError):
    """The writer does not own what it tried to write (invariant 6)."""


class ProtectedError(ForbiddenError):
    """Its label `transom.dev/protected: "true"` keeps it from being deleted: take the label away first."""


class QuotaError(ForbiddenError):
    """It is more than a quota of the tenant leaves: delete something, or have the quota raised."""


class UnauthorizedError(TransomError):
    """The key is missing or is not the one expected."""


class FencedError(TransomError):
    """Someone newer has taken over; this writer must end (invariant 8)."""


class GenerationError(FencedError):
    """The consumer group has moved on to a newer generation: join again before committing."""

    advice = Advice.RETRY


class OutOfRangeError(TransomError):
    """The offset asked for is not in the partition: entries were removed, or it was recreated."""

    def __init__(self, topic: str, partition: int, offset: int, start: int, end: int) -> None:
        self.topic, self.partition, self.offset, self.start, self.end = topic, partition, offset, start, end
        why = f"records before {start} were truncated" if offset < start else f"nothing is behind {end} yet"
        super().__init__(
            f"offset {offset} of {topic}/{partition} is not available: it holds [{start}, {end}); "
            f"{why}, or the topic was recreated"
        )


class UnknownTopicError(NotFoundError):
    """The log has no topic of this name; whoever owns it may make it later."""

    advice = Advice.RETRY

    def __init__(self, topic: str) -> None:
        self.topic = topic
        super().__init__(f"topic {topic!r} does not exist in this log; create it before using it")


class ExpiredError(TransomError):
    """What was asked for is no longer kept: begin again from a list."""


class NotReachedError(TransomError):
    """A revision was asked for that the store has not reached, as far as is known here: ask again."""

    advice = Advice.RETRY

    def __init__(self, wanted: int, current: int) -> None:
        super().__init__(f"Too large resource version: {wanted}, current: {current}")


class VersionClashError(TransomError):
    """Two different values carry the same version: two writers each believe they are the only one."""


class UnreachableError(TransomError):
    """The other side did not answer; what was asked may or may not have happened."""

    advice = Advice.RETRY


class UnknownHostError(UnreachableError):
    """No name service knows the other side's name: a mistake when it never did, and else an outage of its."""


class SaturatedError(TransomError):
    """Too much is waiting already, so this cannot be told now; it says nothing about what was asked."""

    advice = Advice.RETRY


class StorageFullError(TransomError):
    """The disk is full: the write was refused and nothing changed; free some room."""

    advice = Advice.RETRY


class NewerDataError(TransomError):
    """The data was written by a newer release and is left untouched: use that release or a newer one."""

    advice = Advice.CRASH


class RewoundError(TransomError):
    """The hub's store is older than what it has published: start the hub again, in a new epoch."""

    advice = Advice.CRASH


class BrokenInvariantError(TransomError):
    """A promise of `docs/invariants.md` does not hold. This is a bug in transom: please report it."""

    advice = Advice.CRASH


def advice_for(error: BaseException) -> Advice:
    """What to do about any exception: our own say it themselves, the network is retried, a bug crashes.

    Of a group of exceptions the gravest decides.
    """
    advised = {_advice_for_one(member) for member in members_of(error)}
    return next(advice for advice in (Advice.CRASH, Advice.STOP, Advice.RETRY) if advice in advised)


def members_of(error: BaseException) -> list[BaseException]:
    """The exceptions in a group, however deep; the exception itself when it is none."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    group = cast("BaseExceptionGroup[BaseException]", error)
    return [member for part in group.exceptions for member in members_of(part)]


def _advice_for_one(error: BaseException) -> Advice:
    if isinstance(error, TransomError):
        return error.advice
    if isinstance(error, OSError | TimeoutError):
        return Advice.RETRY
    return Advice.CRASH
