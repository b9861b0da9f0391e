"""Which process of a region does what, kept in the region's own log (`runtime.duties`).

One compacted topic holds the newest beat of each process and the newest claim to each duty. A claim is
appended under a fence of the log that only its holder has, and so is all that it appends for the duty:
whoever takes the duty later takes the fence first, and from then on the former holder is refused.
Next on the data's way: `service` says what each duty is.
"""

from collections.abc import Sequence

import msgspec

from transom.logs.protocol import Entry, Fence, Log, Message, Topic, TopicPartition
from transom.model.errors import UNREADABLE, ConflictError, FencedError, OutOfRangeError
from transom.runtime.duties import Lease, Member, Roster
from transom.runtime.telemetry import get_logger

log_event = get_logger(__name__)

PROCESSES = Topic("processes", compact=True)

_AT = TopicPartition(PROCESSES.name, 0)
_PROCESS = "process/"
_DUTY = "duty/"
_UNKNOWN = -1


class _Claim(msgspec.Struct, frozen=True):
    holder: str
    token: int


class _Beat(msgspec.Struct, frozen=True):
    address: str
    beat: int
    alike: dict[str, str] = {}


class LogRegistry:
    """`Registry` in a region's log."""

    is_shared = True

    def __init__(self, log: Log) -> None:
        self._log = log
        self._next = _UNKNOWN
        self._members: dict[str, Member] = {}
        self._leases: dict[str, Lease] = {}

    async def roster(self) -> Roster:
        """See `Registry.roster`."""
        await self._start()
        await self._read()
        return Roster(dict(self._members), dict(self._leases))

    async def beat(self, holder: str, member: Member, names: Sequence[str]) -> Roster:
        """See `Registry.beat`."""
        await self._start()
        await self._log.append(
            [_message(_PROCESS + holder, _Beat(member.address, member.beat, dict(member.alike)))]
        )
        await self._read()
        # What was appended just now may be seen a moment later.
        leases = {name: self._leases.get(name, Lease(name, "", 0)) for name in names}
        return Roster({**self._members, holder: member}, leases)

    async def take(self, seen: Lease, beat_of_holder: int | None, holder: str) -> Lease | None:
        """See `Registry.take`."""
        if not await self._is_free(seen, beat_of_holder):
            return None
        fence = await self._log.take_fence(_fence_name(seen.duty))
        if not await self._is_free(seen, beat_of_holder):
            return None  # whoever has it takes its fence back
        lease = Lease(seen.duty, holder, fence.token)
        try:
            await self.confirm(lease)
        except FencedError:
            return None
        return lease

    async def confirm(self, lease: Lease) -> None:
        """Raise `FencedError` unless `lease` holds; `ConflictError` when the log does not know."""
        claim = _Claim(lease.holder, lease.token)
        await self._log.append([_message(_DUTY + lease.duty, claim)], fence=fence_of(lease))

    async def give_up(self, lease: Lease) -> None:
        """See `Registry.give_up`."""
        try:
            await self.confirm(lease._replace(holder=""))
        except (FencedError, ConflictError) as error:
            log_event.info("a duty was gone already", duty=lease.duty, error=str(error))

    async def leave(self, holder: str) -> None:
        """See `Registry.leave`; what it had is free, because nobody knows it any more."""
        await self._start()
        await self._log.append([Message(PROCESSES.name, (_PROCESS + holder).encode(), None)])
        self._members.pop(holder, None)

    async def bury(self, holder: str, last_beat: int) -> None:
        """See `Registry.bury`."""
        await self._read()
        member = self._members.get(holder)
        if member is not None and member.beat == last_beat:
            await self.leave(holder)

    async def _start(self) -> None:
        """Make sure that there is a topic to read."""
        if self._next == _UNKNOWN:
            await self._log.create([PROCESSES])
            self._next = (await self._log.bounds(PROCESSES.name))[0].start

    async def _is_free(self, seen: Lease, beat_of_holder: int | None) -> bool:
        await self._read()
        holder = self._members.get(seen.holder)
        beats = holder is not None and beat_of_holder is not None and holder.beat > beat_of_holder
        return self._leases.get(seen.duty, Lease(seen.duty, "", 0)) == seen and not beats

    async def _read(self) -> None:
        """Read to the end of the topic."""
        while True:
            try:
                entries = await self._log.read({_AT: self._next})
            except OutOfRangeError as gap:
                self._next = gap.start  # compacted meanwhile, or made anew: what counts is there
                continue
            if not entries:
                return
            for entry in entries:
                self._hear(entry)
            self._next = entries[-1].offset + 1

    def _hear(self, entry: Entry) -> None:
        key = (entry.key or b"").decode(errors="replace")
        try:
            if key.startswith(_PROCESS):
                name = key.removeprefix(_PROCESS)
                if entry.value is None:
                    self._members.pop(name, None)
                else:
                    said = msgspec.json.decode(entry.value, type=_Beat)
                    self._members[name] = Member(said.address, said.beat, said.alike)
            elif key.startswith(_DUTY) and entry.value is not None:
                name = key.removeprefix(_DUTY)
                claim = msgspec.json.decode(entry.value, type=_Claim)
                self._leases[name] = Lease(name, claim.holder, claim.token)
        except UNREADABLE as error:
            log_event.warning("a process cannot be understood", offset=entry.offset, error=str(error))


def fence_of(lease: Lease) -> Fence:
    """The fence under which is appended what is said for a duty."""
    return Fence(_fence_name(lease.duty), lease.token)


def _fence_name(duty: str) -> str:
    return f"region/{duty}"


def _message(key: str, value: msgspec.Struct) -> Message:
    return Message(PROCESSES.name, key.encode(), msgspec.json.encode(value))
