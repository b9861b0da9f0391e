"""The tables of the hub's store. `migrations/` makes them; a test holds that both agree.

- `counter`: one row. `revision` rises with every write, under the row's lock, so commit order and revision
  order are the same. `epoch` is this storage's incarnation. `audit_hash` is that of the newest change in the
  history that was described, `audit_base` and `audit_base_revision` those of the newest one forgotten.
- `resources`: the newest state of each resource; a deleted one stays as a row with `deleted`, so that
  publishers learn of it. `described_revision` rises with all but the status. `deleted_at` is when, for as
  long as it can be brought back.
- `history`: every change with who, when, why and what. Watches read it, too. `described` tells changes of
  what was declared, which are kept long, from those of the status alone. `source` is from where.
  `before` is what the change replaced: what lists and watches of an earlier revision show.
  `audit_digest` and `audit_hash` chain what was declared, also what was purged since; see `store_audit`.
- `dependents`: for whom a resource that people own was made (`ownerReferences`), deleted ones included;
  what controllers made is found by `resources.owner_uid`.
- `outbox`: what the relay carries to the hub's log. The columns Debezium's outbox event router expects:
  https://debezium.io/documentation/reference/stable/transformations/outbox-event-router.html
  `traceparent` is the request's (`runtime.tracing`).
  `payload` is JSON in bytes, which its `io.debezium.converters.BinaryDataConverter` passes on as they are.
- `positions`: how far the archive has read the hub's log.
- `contexts`: what regions must know to serve alone, one row a key, deleted ones included. `revision` is of
  the same counter, `added` the one at which the key came to be. `lane` is "fast" or "bulk". `regions` are
  those that have it: "*", or names between commas (",eu,us,"); `leaving` keep it until the others are known
  to have it, `former` had it and must get a delete marker.
- `context_state`: what the builder of contexts must remember, as JSON by name; see `hub.contexts.state`.
- `processes`: the hub's processes, and how often each has beaten. `duties`: what one process at a time does,
  who holds it ("" for nobody), and a token that rises whenever somebody takes it; see `store_duties`.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    text,
)

HEAD = "0006"
"""The newest migration, so that a start with nothing to migrate need not load the tool for it."""

PURGED = "PURGED"
"""The event that ends a retention: what was deleted cannot be brought back any more."""

TEXT = String().with_variant(String(collation="C"), "postgresql")
"""Sorts by the bytes of UTF-8 on every engine, whatever language a database was made for."""

metadata = MetaData()

counter = Table(
    "counter",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("pruned_revision", BigInteger, nullable=False),
    Column("audit_hash", LargeBinary),
    Column("audit_base", LargeBinary),
    Column("audit_base_revision", BigInteger, nullable=False, server_default="0"),
)

resources = Table(
    "resources",
    metadata,
    # Kind/namespace/name in one column: databases look up lists of pairs and triples without any index.
    Column("key", TEXT, primary_key=True),
    Column("kind", TEXT, nullable=False),
    Column("namespace", TEXT, nullable=False),
    Column("name", TEXT, nullable=False),
    Column("uid", TEXT, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("described_revision", BigInteger, nullable=False),
    Column("region", TEXT),
    Column("owner_uid", TEXT),
    Column("deleted", Boolean, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("deleted_at", TEXT),
)
Index("resources_by_region", resources.c.region, resources.c.described_revision)
Index("resources_by_owner", resources.c.owner_uid)
Index("resources_by_kind", resources.c.kind, resources.c.namespace, resources.c.name)
Index("resources_by_namespace", resources.c.namespace)
Index("resources_by_described", resources.c.described_revision)
_RESTORABLE = text("deleted_at IS NOT NULL")
Index(
    "resources_restorable",
    resources.c.deleted_at,
    sqlite_where=_RESTORABLE,
    postgresql_where=_RESTORABLE,
)

dependents = Table(
    "dependents",
    metadata,
    Column("key", TEXT, primary_key=True),
    Column("owner_uid", TEXT, primary_key=True),
)
Index("dependents_by_owner", dependents.c.owner_uid)

history = Table(
    "history",
    metadata,
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", TEXT, nullable=False),
    Column("namespace", TEXT, nullable=False),
    Column("name", TEXT, nullable=False),
    Column("event", TEXT, nullable=False),
    Column("role", TEXT, nullable=False),
    Column("who", TEXT, nullable=False),
    Column("why", TEXT, nullable=False),
    Column("at", TEXT, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("described", Boolean, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("before", LargeBinary),
    Column("source", TEXT, nullable=False, server_default=""),
    Column("audit_digest", LargeBinary),
    Column("audit_hash", LargeBinary),
)
_BY_KEY = history.c.kind, history.c.namespace, history.c.name, history.c.revision
Index("history_by_key", *_BY_KEY)
_PURGES = text(f"event = '{PURGED}'")
Index("history_purges", *_BY_KEY, sqlite_where=_PURGES, postgresql_where=_PURGES)

outbox = Table(
    "outbox",
    metadata,
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("id", TEXT, nullable=False),
    Column("aggregatetype", TEXT, nullable=False),
    Column("aggregateid", TEXT, nullable=False),
    Column("type", TEXT, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("traceparent", TEXT, nullable=False, server_default=""),
)

positions = Table(
    "positions",
    metadata,
    Column("reader", TEXT, primary_key=True),
    Column("topic", TEXT, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("next_offset", BigInteger, nullable=False),
)

contexts = Table(
    "contexts",
    metadata,
    Column("key", TEXT, primary_key=True),
    Column("kind", TEXT, nullable=False),
    Column("tenant", TEXT, nullable=False),
    Column("subject", TEXT, nullable=False),
    Column("schema", Integer, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("added", BigInteger, nullable=False),
    Column("lane", TEXT, nullable=False),
    Column("regions", TEXT, nullable=False),
    Column("leaving", TEXT, nullable=False),
    Column("former", TEXT, nullable=False),
    Column("restricts", Boolean, nullable=False),
    Column("deleted", Boolean, nullable=False),
    Column("value", LargeBinary, nullable=False),
)
Index("contexts_by_lane", contexts.c.lane, contexts.c.revision)
Index("contexts_by_revision", contexts.c.revision)
Index("contexts_by_kind", contexts.c.kind, contexts.c.tenant, contexts.c.deleted)
Index("contexts_by_subject", contexts.c.subject)
_LEAVING = text("leaving != ''")
Index("contexts_moving", contexts.c.revision, sqlite_where=_LEAVING, postgresql_where=_LEAVING)

context_state = Table(
    "context_state",
    metadata,
    Column("name", TEXT, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

processes = Table(
    "processes",
    metadata,
    Column("id", TEXT, primary_key=True),
    Column("address", TEXT, nullable=False),
    Column("alike", TEXT, nullable=False),
    Column("beat", BigInteger, nullable=False),
)

duties = Table(
    "duties",
    metadata,
    Column("name", TEXT, primary_key=True),
    Column("holder", TEXT, nullable=False),
    Column("token", BigInteger, nullable=False),
)
