"""What a client that polls costs: one look at one row, found by its key, however large the job and the queue."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from sqlalchemy import event, text

from app.service import Service
from tests.serving import plan, submit


@contextmanager
def statements_of(service: Service) -> Iterator[list[tuple[str, Any]]]:
    """The SELECTs sent in the block, with their parameters; the sweeper's and BEGINs are left out."""
    found: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "jobs.id = ?" in statement:
            found.append((statement, parameters))

    event.listen(service.database.engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(service.database.engine, "before_cursor_execute", note)


def test_polling_a_synthesis_costs_one_query_by_key(client: httpx.Client, service: Service, pool: str) -> None:
    job = submit(client, pool, top_k=3)
    plan(service, pool, 3)
    with statements_of(service) as statements:
        assert client.get(job["links"]["self"]).json()["stage"] == "sampling"
    ((statement, parameters),) = statements
    assert "JOIN" not in statement
    with service.database.engine.connect() as connection:
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
    assert [row[3] for row in rows] == ["SEARCH jobs USING INDEX sqlite_autoindex_jobs_1 (id=?)"]


def test_no_table_is_walked_through_to_find_a_step(service: Service) -> None:
    with service.database.engine.connect() as connection:
        query = "SELECT id FROM steps WHERE status = 'leased' AND leased_until < '2026-01-01'"
        (row,) = connection.execute(text(f"EXPLAIN QUERY PLAN {query}")).all()
    assert row[3] == "SEARCH steps USING COVERING INDEX steps_to_do (status=? AND leased_until<?)"
