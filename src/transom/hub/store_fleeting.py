"""What does not last (`Kind.fleeting`): which of it must make room, goes with its tenant, or is due.

Such a resource leaves no row behind when it goes: no region is to learn of it. Next on the data's way:
`store_write` takes it away, in the transaction that brings what needs the room.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator

from sqlalchemy import Connection, func, select

from transom.hub.store_schema import history, resources
from transom.model.kinds import Catalog, Kind
from transom.model.names import Key

_KEYS_A_QUERY = 300


class Crowds:
    """How many of a kind each tenant has, as a transaction goes on."""

    def __init__(self, db: Connection) -> None:
        self._db = db
        self._room: dict[tuple[str, str], int] = {}
        self._left: Counter[tuple[str, str]] = Counter()
        self._stored: dict[tuple[str, str], deque[Key]] = {}
        self._entered: defaultdict[tuple[str, str], deque[Key]] = defaultdict(deque)

    def entered(self, kind: Kind, key: Key) -> Iterator[Key]:
        """One more is there: those that may have to go for it, from the oldest on; nothing when there is
        room. Some of them may be gone already.
        """
        if kind.fleeting is None or not kind.fleeting.most:
            return
        crowd = kind.name, key.namespace
        if crowd not in self._room:
            self._room[crowd] = kind.fleeting.most - self._count(*crowd) + self._left[crowd]
        self._room[crowd] -= 1
        entered = self._entered[crowd]
        entered.append(key)
        if self._room[crowd] < 0:
            if crowd not in self._stored:
                self._stored[crowd] = self._from_the_oldest(*crowd)
            for candidates in (self._stored[crowd], entered):
                while candidates:
                    yield candidates.popleft()

    def left(self, key: Key) -> None:
        """One is there no more."""
        crowd = key.kind, key.namespace
        if crowd in self._room:
            self._room[crowd] += 1
        else:
            self._left[crowd] += 1

    def _count(self, kind: str, namespace: str) -> int:
        query = select(func.count()).where(resources.c.kind == kind, resources.c.namespace == namespace)
        return self._db.execute(query).scalar_one()

    def _from_the_oldest(self, kind: str, namespace: str) -> deque[Key]:
        query = select(resources.c.name).where(resources.c.kind == kind, resources.c.namespace == namespace)
        names = self._db.execute(query.order_by(resources.c.revision)).scalars()
        return deque(Key(kind, namespace, name) for name in names)


def fleeting_of(db: Connection, catalog: Catalog, namespace: str) -> list[Key]:
    """All that a tenant has of kinds that do not last."""
    names = names_of(catalog)
    query = select(resources.c.key).where(resources.c.namespace == namespace, resources.c.kind.in_(names))
    return [Key.parse(key) for key in db.execute(query).scalars()]


def names_of(catalog: Catalog) -> list[str]:
    """The kinds that do not last."""
    return [kind.name for kind in catalog if kind.fleeting]


def due(db: Connection, kind: str, before: str, most: int) -> list[tuple[Key, int]]:
    """Up to `most` resources of a kind, and their revisions, last written before a time (RFC 3339), the
    oldest first. One of which the history is forgotten is old.
    """
    query = select(resources.c.key, resources.c.revision).where(resources.c.kind == kind)
    oldest = db.execute(query.order_by(resources.c.revision).limit(most)).all()
    young = _younger(db, [revision for _, revision in oldest], before)
    return [(Key.parse(key), revision) for key, revision in oldest if revision not in young]


def _younger(db: Connection, revisions: Iterable[int], before: str) -> set[int]:
    revisions = list(revisions)
    found: set[int] = set()
    for at in range(0, len(revisions), _KEYS_A_QUERY):
        part = revisions[at : at + _KEYS_A_QUERY]
        query = select(history.c.revision).where(history.c.revision.in_(part), history.c.at >= before)
        found.update(db.execute(query).scalars())
    return found
