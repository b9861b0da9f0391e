"""Whether the copy of a compacted topic is its copy, when cleaners took records away before, while and after
the mirror passed, at the source, at the target, or at both.

Two readings need not be equal then, and what was written (`mirror_compacted_loads` knows) is the measure:

1. The copy is a part of what was committed, in its order, each record once.
2. Every record that the source still holds is in the copy. Where the target was cleaned as well, one may
   be missing of which a newer record of the same key was written, and so may a delete marker.
3. The newest record of a key is the same; a deleted key does not live on.
4. An offset is translated to its copy, and that of a record which is gone to behind the copy before it and
   not beyond the copy after it: whoever begins there reads the next record.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from mirror_checker import Checked, Translation, compared, count, positions
from mirror_findings import Difference, shown
from mirror_reading import Bytes, Partition, Reading, Record

History: TypeAlias = Mapping[int, Sequence[Record]]
"""All that was committed, by partition, in the order of offsets; no two records of a partition are equal."""


async def check_compacted(
    source: str,
    target: str,
    topic: str,
    copy: str,
    history: History,
    *,
    cleaned: bool,
    to_target: Translation | None = None,
    within_seconds: float = 0.0,
) -> Checked:
    """Compare `topic` at the brokers `source` with `copy` at the brokers `target`.

    `cleaned`: whether the target's cleaner may have taken records away, too. `within_seconds`: how long the
    copy may still be growing. Raises `DifferentError`, `ReadingError`.
    """

    def judge(here: Reading, there: Reading) -> Difference | None:
        if not len(history) == len(here) == len(there):
            told = f"{len(history)} partitions were written, {len(here)} are at the source, {len(there)} here"
            return Difference(topic, what=told)
        short: Difference | None = None
        for number, written in history.items():
            one = _Partition(topic, number, written, here[number], there[number], cleaned=cleaned)
            found = one.difference() or (one.wrong_translation(to_target) if to_target else None)
            if found is not None and not found.only_short:
                return found
            short = short or found
        return short

    nothing = dict.fromkeys(history, 0)
    here, there = await compared((source, topic), (target, copy), nothing, judge, within_seconds)
    return Checked(len(here), count(there), positions(here) if to_target else 0)


class _Partition:
    """One partition: what was written, what the source holds, what the copy holds."""

    def __init__(
        self,
        topic: str,
        number: int,
        written: Sequence[Record],
        source: Partition,
        copy: Partition,
        *,
        cleaned: bool,
    ) -> None:
        self._topic, self._number, self._written, self._cleaned = topic, number, written, cleaned
        self._source, self._copy = source, copy
        self._places = {one.content: place for place, one in enumerate(written)}
        if len(self._places) != len(written):
            raise ValueError(f"{topic}, partition {number}: two records that were written are equal")
        self._newest: dict[Bytes, int] = {one.key: place for place, one in enumerate(written)}

    def difference(self) -> Difference | None:
        """The first, None when there is none."""
        return self._unread() or self._foreign() or self._missing() or self._outdated()

    def _unread(self) -> Difference | None:
        """A reading of the source that sees nothing would make the next ones easy."""
        seen = {one.content for one in self._source.records}
        for place in self._newest.values():
            one = self._written[place]
            if one.value is not None and one.content not in seen:
                return self._told(one, None, "was written and is not at the source")
        return None

    def _foreign(self) -> Difference | None:
        last = -1
        for one in self._copy.records:
            place = self._places.get(one.content)
            if place is None:
                return self._told(None, one, "is no record that was committed at the source")
            if place <= last:
                told = "is there twice or out of order"
                return self._told(
                    self._written[place], one, f"{told}: {self._written[last].offset} precedes it"
                )
            last = place
        return None

    def _missing(self) -> Difference | None:
        there = {self._places[one.content] for one in self._copy.records}
        for one in self._source.records:
            place = self._places.get(one.content)
            if place is None:
                return self._told(one, None, "the source holds what nobody wrote")
            gone = self._cleaned and (one.value is None or self._newest[one.key] > place)
            if place not in there and not gone:
                short = not there or place > max(there)
                return self._told(one, None, "has no copy", only_short=short)
        return None

    def _outdated(self) -> Difference | None:
        held = {one.key: self._places[one.content] for one in self._copy.records}
        for key, place in self._newest.items():
            newest, other = self._written[place], held.get(key)
            if other == place:
                continue
            deleted = other is None or self._written[other].value is None
            if newest.value is None and deleted:
                continue  # deleted at both ends, and at one of them forgotten
            told = "has no copy" if other is None else f"the copy ends with {self._written[other].offset}"
            return self._told(
                newest,
                None,
                f"is the newest record of key {shown(key)}, and {told}",
                only_short=not held or place > max(held.values()),
            )
        return None

    def wrong_translation(self, to_target: Translation) -> Difference | None:
        """The first source offset that is not translated as the map should."""
        copies = [(self._written[self._places[one.content]].offset, one.offset) for one in self._copy.records]
        following, least = 0, self._copy.start
        for offset in range(self._source.start, self._source.end):
            while following < len(copies) and offset > copies[following][0]:
                least, following = copies[following][1] + 1, following + 1
            exact = following < len(copies) and copies[following][0] == offset
            most = copies[following][1] if following < len(copies) else self._copy.end
            translated = to_target(self._topic, self._number, offset)
            if not (most if exact else least) <= translated <= most:
                right = f"{most}" if exact else f"between {least} and {most}"
                what = f"is translated to {translated}, and {right} is right"
                return Difference(self._topic, self._number, offset, what=what)
        return None

    def _told(
        self, source: Record | None, copy: Record | None, what: str, *, only_short: bool = False
    ) -> Difference:
        return Difference(
            self._topic,
            self._number,
            source and source.offset,
            copy and copy.offset,
            what,
            only_short=only_short,
        )
