"""What other processes committed, read from the tables themselves. Next: `store` wakes who waits for it."""

from sqlalchemy import Connection, func, select

from transom.hub.store_engine import News
from transom.hub.store_schema import contexts, counter, resources


def news_since(db: Connection, since: int) -> News:
    """What was committed after revision `since`; one small query when nothing was."""
    # The counter first: all that it counts is in what is read after it, whatever is committed meanwhile.
    epoch, revision = db.execute(select(counter.c.epoch, counter.c.revision)).one()
    if revision <= since:
        return News(epoch, since, revision)
    described = select(resources.c.kind, resources.c.region).where(resources.c.described_revision > since)
    found = db.execute(described.distinct()).all()
    newest = func.max(contexts.c.revision).label("newest")
    written = select(contexts.c.lane, newest).where(contexts.c.revision > since)
    lanes = {row.lane: row.newest for row in db.execute(written.group_by(contexts.c.lane))}
    kinds = frozenset(kind for kind, _ in found)
    regions = frozenset(region for _, region in found if region)
    return News(epoch, since, revision, kinds, regions, lanes)
