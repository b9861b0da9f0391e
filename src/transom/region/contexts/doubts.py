"""Keys of which a record was refused: what a table says of them, and that it has none, is no answer.

They are kept in the table, in the transaction that passes the refused record: a gateway that is started anew
would take their absence for knowledge otherwise (invariant 10). It also reads the log again then, as its door
may be another by now: a signer that is trusted at last, a release that knows the newer schema. Without that,
it would report a position behind a revocation that it never took in. Next on the data's way: `table`.
"""

import msgspec

from transom.model.errors import UNREADABLE

DOUBTS_MAX = 10_000


class _Kept(msgspec.Struct, frozen=True):
    """How doubts stand in the table; `all`: they are too many to be told apart."""

    all: bool
    keys: list[str]


_decode = msgspec.json.Decoder(_Kept).decode


class Doubts:
    """The keys in doubt, of this life and, until the log was read again, of those before it.

    More than `DOUBTS_MAX` are not told apart any more: then every key is in doubt, until the log was read
    again. `changes` counts what makes `written` differ.
    """

    def __init__(self) -> None:
        self.changes = 0
        self._keys: set[str] = set()
        self._all = False
        self._before: set[str] = set()
        self._all_before = False

    def __contains__(self, key: str) -> bool:
        return self._all or self._all_before or key in self._keys or key in self._before

    def __bool__(self) -> bool:
        return self._all or self._all_before or bool(self._keys) or bool(self._before)

    def add(self, key: str) -> None:
        """A record of `key` was refused."""
        if self._all or key in self._keys:
            return
        self.changes += 1
        if len(self._keys) < DOUBTS_MAX:
            self._keys.add(key)
        else:
            self._all = True

    def settle(self, key: str) -> None:
        """A good record of `key` has come."""
        if key in self._keys or key in self._before:
            self.changes += 1
            self._keys.discard(key)
            self._before.discard(key)

    def read_again(self) -> None:
        """The log was read again: what is refused still was refused again."""
        self.changes += 1
        self._before, self._all_before = set(), False

    def written(self) -> bytes:
        """As they stand in the table."""
        every = self._all or self._all_before
        return msgspec.json.encode(_Kept(every, [] if every else sorted(self._keys | self._before)))

    def recall(self, data: bytes) -> None:
        """Read what `written` wrote in a life before; what cannot be read leaves everything in doubt."""
        try:
            kept = _decode(data)
        except UNREADABLE:
            kept = _Kept(all=True, keys=[])
        self._before, self._all_before = set(kept.keys), kept.all
