"""Who does what one process at a time may do, kept in the store beside what it writes.

A duty is held by a process under a token, which rises with every hand-over. What is written for a duty is
checked against that token in the same transaction (`require`), so a former holder that wakes after a
take-over changes nothing, however long it slept (invariant 8). A process shows that it lives by its beats;
whether they stopped is for the others to see (`runtime.duties`), by their own clocks.
"""

from collections.abc import Collection, Sequence

import msgspec
from sqlalchemy import Connection, bindparam, delete, exists, select, update

from transom.hub.store_engine import put, put_missing
from transom.hub.store_schema import duties, processes
from transom.model.errors import FencedError
from transom.runtime.duties import Lease, Member, Roster


def roster(db: Connection) -> Roster:
    """Who is there, and who does what."""
    members = {
        row.id: Member(row.address, row.beat, msgspec.json.decode(row.alike, type=dict[str, str]))
        for row in db.execute(select(processes))
    }
    return Roster(
        members, {row.name: Lease(row.name, row.holder, row.token) for row in db.execute(select(duties))}
    )


def beat(db: Connection, holder: str, member: Member, names: Sequence[str]) -> Roster:
    """Show that `holder` lives; returns who is there then. Duties that are new begin with nobody."""
    alike = msgspec.json.encode(member.alike).decode()
    put(db, processes, [{"id": holder, "address": member.address, "alike": alike, "beat": member.beat}])
    seen = roster(db)
    missing = [name for name in names if name not in seen.leases]
    if not missing:
        return seen
    put_missing(db, duties, [{"name": name, "holder": "", "token": 0} for name in missing])
    return roster(db)


def take(db: Connection, seen: Lease, beat_of_holder: int | None, holder: str) -> Lease | None:
    """Have `holder` take the duty of the lease `seen`; None when somebody else did, or its holder has beaten
    beyond `beat_of_holder` (None: there is none, or its death is certain).
    """
    wanted = (duties.c.name == seen.duty) & (duties.c.holder == seen.holder) & (duties.c.token == seen.token)
    if beat_of_holder is not None:
        lives = exists().where(processes.c.id == seen.holder, processes.c.beat > beat_of_holder)
        wanted &= ~lives
    if db.execute(select(duties.c.name).where(wanted).with_for_update()).first() is None:
        return None
    taken = Lease(seen.duty, holder, seen.token + 1)
    db.execute(update(duties).where(duties.c.name == seen.duty).values(holder=holder, token=taken.token))
    return taken


def give_up(db: Connection, lease: Lease) -> None:
    """Leave a duty to whoever wants it. Nothing happens when it was taken already."""
    mine = (duties.c.name == lease.duty) & (duties.c.holder == lease.holder) & (duties.c.token == lease.token)
    db.execute(update(duties).where(mine).values(holder=""))


def leave(db: Connection, holder: str) -> None:
    """Leave every duty, and be gone."""
    db.execute(update(duties).where(duties.c.holder == holder).values(holder=""))
    db.execute(delete(processes).where(processes.c.id == holder))


def bury(db: Connection, holder: str, last_beat: int) -> None:
    """Forget a process that is dead, unless it has beaten since."""
    db.execute(delete(processes).where(processes.c.id == holder, processes.c.beat == last_beat))


def lost(db: Connection, leases: Collection[Lease]) -> set[Lease]:
    """Which of `leases` do not hold any more. The others hold until the transaction ends: who wants to take
    one waits for it.
    """
    if not leases:
        return set()
    names = {lease.duty for lease in leases}
    rows = db.execute(_HELD, {"names": sorted(names)})
    held = {Lease(row.name, row.holder, row.token) for row in rows}
    return set(leases) - held


# In one order, so that two who look at several do not wait for each other.
_HELD = (
    select(duties)
    .where(duties.c.name.in_(bindparam("names", expanding=True)))
    .order_by(duties.c.name)
    .with_for_update(read=True)
)


def require(db: Connection, leases: Collection[Lease]) -> None:
    """Raise `FencedError` unless all of `leases` hold, and keep them until the transaction ends."""
    for lease in lost(db, leases):
        raise fenced(lease)


def fenced(lease: Lease) -> FencedError:
    """What to say to whoever acts on a lease that was lost."""
    return FencedError(f"another process of the hub has taken over {lease.duty!r}; nothing was written")
