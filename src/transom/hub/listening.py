"""Hearing what is said on a topic of the hub's log, from its last words on. Used for heartbeats.

How old what is heard is tells who is there and how old a region's knowledge is. Clocks of different machines
do not agree, and are set anew; a region whose clock is behind must not pass for one that fell silent.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from transom.logs.protocol import Entry, Log, TopicPartition
from transom.model.errors import OutOfRangeError
from transom.runtime.clock import Clock

_WAIT_SECONDS = 30.0
_SPEAKERS_MAX = 256
_APART_SECONDS = 1.5
"""Words closer than this tell nothing about clocks: several may have come in one reading."""
_EVEN_SECONDS = 1.0


class _Word(NamedTuple):
    """When a word was heard (monotonic seconds here) and sent (wall seconds there), and how far the clock
    there was known to be behind then.
    """

    heard: float
    sent: float
    behind: float


class Hearing:
    """Tells when what is heard was said, by the clock here, whatever the speaker's clock says.

    Words that come as far apart as they were sent come as they are said: then the difference between the two
    clocks can be read. What waited in a log comes all at once, and is as old as it says, by what is known of
    that difference.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._words: OrderedDict[str, _Word] = OrderedDict()

    def said_at(self, speaker: str, sent: float) -> float:
        """When `speaker` said what is heard now and was sent at wall time `sent`; in monotonic seconds."""
        now = self._clock.monotonic()
        lag = self._clock.wall() - sent
        before = self._words.get(speaker)
        behind = before.behind if before is not None else min(lag, 0.0)
        if before is not None and abs((now - before.heard) - (sent - before.sent)) <= _EVEN_SECONDS:
            if now - before.heard < _APART_SECONDS:
                return now - max(0.0, lag - behind)
            behind = lag
        self._words[speaker] = _Word(now, sent, behind)
        self._words.move_to_end(speaker)
        if len(self._words) > _SPEAKERS_MAX:
            self._words.popitem(last=False)
        return now - max(0.0, lag - behind)

    def behind(self, speaker: str) -> float:
        """By how many seconds the clock of `speaker` is behind the one here, as far as is known."""
        word = self._words.get(speaker)
        return 0.0 if word is None else word.behind


async def listen(log: Log, topic: str, hear: Callable[[Entry], None], last: int = 1) -> None:
    """Call `hear` with the last `last` entries of each partition, and with all that come, for ever.

    Raises what the log raises.
    """
    offsets = {
        TopicPartition(topic, number): max(bounds.start, bounds.end - last)
        for number, bounds in (await log.bounds(topic)).items()
    }
    while True:
        try:
            entries = await log.read(offsets, wait_seconds=_WAIT_SECONDS)
        except OutOfRangeError as gap:
            # What is gone was superseded.
            offsets[TopicPartition(gap.topic, gap.partition)] = gap.start
            continue
        for entry in entries:
            offsets[entry.position] = entry.offset + 1
            hear(entry)
