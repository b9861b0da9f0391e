"""Run by Alembic: applies the steps on the connection that `store_engine` hands over."""

from alembic import context

from transom.hub.store_schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
