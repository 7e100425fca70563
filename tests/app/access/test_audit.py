"""app/access/audit.py: who did what."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, text

from app.database import clock
from app.janitor import FORGET_AUDIT, tidy
from app.tables import AuditEntry
from tests.clocks import set_clock
from tests.key_holders import as_of, holder_of, make_key
from tests.serving import Served, fill_pool, finish, submit


def entries(served: Served, **query: Any) -> list[dict[str, Any]]:
    """Oldest first."""
    with holder_of(served, make_key(served.service, "house", ["admin"])) as admin:
        found: list[dict[str, Any]] = admin.get("/audit", params=query).json()["items"]
    return found[::-1]


def test_what_changes_something_or_is_refused_or_takes_results_out_leaves_a_row(guarded: Served) -> None:
    token = make_key(guarded.service)
    fill_pool(as_of(guarded.service, "clinic"), "held", 2)
    with holder_of(guarded, token) as client:
        job = submit(client, "held")["id"]
        finish(as_of(guarded.service, "clinic"), "held", 2, b"z")
        client.get(f"/jobs/{job}")
        client.get(f"/jobs/{job}/dataset")
        client.head(f"/jobs/{job}/dataset")
        client.post(f"/jobs/{job}/cancel")
        client.get("/metrics")
        client.delete("/pools/held")
    told = entries(guarded)
    prefix = token[: len("pansynth_1f0c9a2b77de")]  # as `keys list` shows it and `keys revoke` takes it
    assert {(entry["api_key"], entry["tenant"]) for entry in told} == {(prefix, "clinic")}
    assert [(entry["action"], entry["object"], entry["status"]) for entry in told] == [
        ("POST /synthesize", f"jobs/{job}", 202),
        ("GET /jobs/{job_id}/dataset", job, 200),
        ("POST /jobs/{job_id}/cancel", job, 409),
        ("GET /metrics", "", 403),
        ("DELETE /pools/{name}", "held", 204),
    ]


def test_rows_tell_when_by_the_databases_clock(guarded: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    set_clock(monkeypatch, timedelta(hours=1), "access.audit")
    with holder_of(guarded, make_key(guarded.service)) as client:
        client.delete("/pools/x")
    with guarded.service.database.read() as session:
        (entry,) = session.scalars(select(AuditEntry))
        assert timedelta() <= clock(session) - entry.at < timedelta(minutes=10)


def test_a_row_names_no_file_and_no_content(guarded: Served) -> None:
    with holder_of(guarded, make_key(guarded.service)) as client:
        client.post("/pools/default/images", files={"images": ("Jane Doe 1970-01-01.png", b"her teeth")})
    with guarded.service.database.read() as session:
        (entry,) = session.scalars(select(AuditEntry))
    told = " ".join(str(getattr(entry, column.key)) for column in AuditEntry.__table__.columns)
    assert "POST /pools/{name}/images" in told
    assert "Jane" not in told and "teeth" not in told


def test_a_row_holds_nothing_that_a_database_or_a_terminal_trips_over(guarded: Served) -> None:
    with holder_of(guarded, make_key(guarded.service)) as client:
        client.delete("/pools/a%00%1b[2J%e2%80%ae")
        client.delete("/pools/" + "a" * 300)
    assert [entry["object"] for entry in entries(guarded)] == ["a\ufffd\ufffd[2J\ufffd", "a" * 255]


def test_what_was_done_is_not_said_to_have_failed_where_no_row_can_be_written(
    guarded: Served, caplog: pytest.LogCaptureFixture
) -> None:
    with guarded.service.database.write() as session:
        session.execute(text("DROP TABLE audit"))
    with holder_of(guarded, make_key(guarded.service)) as client:
        assert client.post("/pools", json={"name": "x"}).status_code == 201
    assert "no audit row for POST /pools" in caplog.text
    with guarded.service.database.write() as session:
        AuditEntry.__table__.create(session.connection())


def test_polling_and_an_open_service_leave_no_rows(guarded: Served, served: Served) -> None:
    with holder_of(guarded, make_key(guarded.service)) as client:
        for path in ("/jobs", "/pools", "/pools/default", "/jobs/" + "0" * 32):
            client.get(path)
    served.client.post("/pools", json={"name": "x"})
    for service in (guarded.service, served.service):
        with service.database.read() as session:
            assert session.scalar(select(func.count()).select_from(AuditEntry)) == 0


def test_the_audit_is_read_page_by_page(guarded: Served) -> None:
    with holder_of(guarded, make_key(guarded.service, scopes=["submit", "admin"])) as client:
        for name in "abc":
            client.post("/pools", json={"name": name})
        first = client.get("/audit", params={"limit": 2}).json()
        rest = client.get("/audit", params={"cursor": first["next"]}).json()
        assert [entry["object"] for entry in first["items"] + rest["items"]] == ["pools/c", "pools/b", "pools/a"]
        assert rest["next"] is None
        assert client.get("/audit", params={"cursor": "x"}).status_code == 422


def test_the_janitor_forgets_what_is_older_than_a_year(guarded: Served) -> None:
    service = guarded.service
    with holder_of(guarded, make_key(service)) as client:
        client.post("/pools", json={"name": "x"})
    now = datetime.now(UTC)
    for moment, left in ((now, 1), (now + FORGET_AUDIT + timedelta(minutes=1), 0)):
        tidy(service.database, service.blobs, None, moment)
        with service.database.read() as session:
            assert session.scalar(select(func.count()).select_from(AuditEntry)) == left
