"""Alembic's entry: runs the revisions in the transaction that `app.database.migrate` opened."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
