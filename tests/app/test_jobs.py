"""app/jobs.py and app/queries.py: the life of a job, over both kinds of database."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, event, func, select, update
from sqlalchemy.orm import Session

from app import imports, jobs, pools, queries
from app.admission import new_job, under_key
from app.database import Database
from app.errors import (
    IdempotencyConflict,
    JobEnded,
    JobNotFound,
    JobRunning,
    LeaseLost,
    PoolInUse,
    PoolNotFound,
    PoolTooSmall,
    QueueFull,
)
from app.records import Claim, MadeSample, NewImage, Outcome
from app.tables import Guide, IdempotencyKey, Job, Pool, PoolImage, Sample, Step, Upload
from tests.job_life import NOW, chosen, claim, do, look, make_all, make_pool, must_claim, plan_all, submit


def test_a_synthesis_goes_from_queued_to_succeeded(db: Database) -> None:
    make_pool(db)
    job = submit(db)
    assert (job.status, job.stage, job.done, job.total) == ("queued", None, 0, 6)
    plan_all(db)
    assert (look(db, job.id).status, look(db, job.id).stage) == ("running", "sampling")
    while (claimed := must_claim(db)).kind == "sample":
        make_all(db, claimed)
        do(db, jobs.sampled, claimed)
    assert (look(db, job.id).stage, look(db, job.id).done) == ("packaging", 6)
    do(db, jobs.packaged, claimed, sha256="d" * 64, size=99)
    ended = look(db, job.id)
    assert (ended.status, ended.stage, ended.error, ended.dataset_bytes) == ("succeeded", None, None, 99)
    assert ended.started_at is not None and ended.finished_at is not None
    assert ended.created_at <= ended.started_at <= ended.finished_at  # the claims' NOW is years off
    assert do(db, lambda session: session.scalars(select(Step)).all()) == []


def test_every_change_that_a_client_can_see_has_a_new_version(db: Database) -> None:
    make_pool(db)
    job = submit(db)
    versions = [job.version]
    do(db, jobs.hand_back, must_claim(db))  # it runs
    versions.append(look(db, job.id).version)
    plan_all(db)
    versions.append(look(db, job.id).version)
    claimed = must_claim(db)
    for position in range(claimed.first, claimed.last):
        do(db, jobs.finish_samples, claimed, [MadeSample(position, "a" * 64, {})])
        versions.append(look(db, job.id).version)
    assert versions == sorted(set(versions))


def test_many_samples_are_finished_in_no_more_statements_than_a_few(db: Database) -> None:
    make_pool(db)
    job = submit(db, guides=12)
    plan_all(db, chunk=36)
    claimed = must_claim(db)
    do(db, jobs.finish_samples, claimed, [MadeSample(0, "0" * 64, {})])  # the first also takes the attempt back
    statements: list[str] = []
    event.listen(db.engine, "before_cursor_execute", lambda *said: statements.append(said[2]))
    counts = []
    for positions in (range(1, 3), range(3, 36)):
        statements.clear()
        do(db, jobs.finish_samples, claimed, [MadeSample(n, f"{n:064}", {"seam": 1.0}) for n in positions])
        counts.append(len(statements))
    assert counts[0] == counts[1]
    assert look(db, job.id).done == 36


def test_a_queued_job_is_cancelled_at_once(db: Database) -> None:
    make_pool(db)
    job = submit(db)
    cancelled, changed = do(db, jobs.cancel, job.id, now=NOW)
    assert (cancelled.status, changed) == ("cancelled", True)
    assert claim(db) is None
    assert do(db, jobs.cancel, job.id, now=NOW)[1] is False


def test_a_running_job_is_cancelled_when_its_last_worker_lets_go(db: Database) -> None:
    make_pool(db)
    job = submit(db)
    plan_all(db)
    one, two = must_claim(db), must_claim(db)
    assert do(db, jobs.cancel, job.id, now=NOW)[0].status == "cancelling"
    assert do(db, jobs.cancel, job.id, now=NOW)[1] is False
    with pytest.raises(LeaseLost):
        do(db, jobs.finish_samples, one, [MadeSample(one.first, "a" * 64, {})])
    do(db, jobs.stop, one, now=NOW)
    assert look(db, job.id).status == "cancelling"
    do(db, jobs.stop, two, now=NOW)
    assert look(db, job.id).status == "cancelled"
    assert look(db, job.id).done == 0


def test_an_ended_job_is_not_cancelled(db: Database) -> None:
    make_pool(db)
    job = submit(db)
    do(db, jobs.fail, must_claim(db), "no")
    with pytest.raises(JobEnded, match="failed"):
        do(db, jobs.cancel, job.id, now=NOW)
    with pytest.raises(JobNotFound):
        do(db, jobs.cancel, "nobody", now=NOW)


def test_only_an_ended_job_is_deleted_and_leaves_no_row(db: Database) -> None:
    make_pool(db)
    job = submit(db, idempotency=("key", "f" * 64))
    plan_all(db)
    with pytest.raises(JobRunning):
        do(db, jobs.delete_job, job.id)
    do(db, jobs.fail, must_claim(db), "no")
    do(db, jobs.delete_job, job.id)
    with db.read() as session:
        for table in (Job, Guide, Sample, Step, IdempotencyKey):
            assert session.scalar(select(func.count()).select_from(table)) == 0
    with pytest.raises(JobNotFound):
        do(db, jobs.delete_job, job.id)


def test_a_pool_must_be_there_and_hold_top_k_images(db: Database) -> None:
    with pytest.raises(PoolNotFound, match="'p'"):
        submit(db)
    make_pool(db, images=0)
    with pytest.raises(PoolTooSmall, match="import some"):
        submit(db, top_k=1)
    make_pool(db, "small", images=2)
    with pytest.raises(PoolTooSmall, match="has 2 images, top_k is 3"):
        submit(db, pool="small")
    with db.read() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 0


def test_a_full_queue_takes_no_more(db: Database) -> None:
    make_pool(db)
    submit(db, max_queued_jobs=1)
    with pytest.raises(QueueFull, match="1 jobs wait or run"):
        submit(db, max_queued_jobs=1)


def test_the_same_key_gives_the_same_job(db: Database) -> None:
    make_pool(db)
    job = submit(db, idempotency=("key", "f" * 64))
    assert submit(db, idempotency=("key", "f" * 64), max_queued_jobs=1).id == job.id
    with pytest.raises(IdempotencyConflict, match="'key'"):
        submit(db, idempotency=("key", "e" * 64))
    with db.read() as session:
        assert [queries.is_repeated(session, key) for key in ("key", "other", None)] == [True, False, False]


def test_the_same_key_sent_many_times_at_once_gives_one_job(db: Database) -> None:
    make_pool(db)
    start = threading.Barrier(6)

    def send(_: int) -> str:
        start.wait()
        return submit(db, idempotency=("key", "f" * 64)).id

    with ThreadPoolExecutor(6) as threads:
        assert len(set(threads.map(send, range(6)))) == 1
    with db.read() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 1
        assert session.scalar(select(func.count()).select_from(Step)) == 1


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite has one writer at a time
def test_a_key_whose_job_goes_at_this_very_moment_is_free_again(db: Database) -> None:
    make_pool(db)
    known = ("key", "f" * 64)
    with db.write() as session:
        late = new_job(session, "late", "synthesis", {}, 0)
        first = submit(db, idempotency=known)

        @event.listens_for(db.engine, "after_cursor_execute", once=True)  # the key was found taken
        def and_it_goes(*_: Any) -> None:
            do(db, lambda other: other.execute(delete(Job).where(Job.id == first.id)))

        assert under_key(session, known, late) is late
    assert submit(db, idempotency=known).id == "late"


def outcome(position: int, sha256: str) -> Outcome:
    return Outcome(position, NewImage(f"{position}.png", 1, 1, sha256))


def test_an_import_stores_new_images_and_counts_the_others(db: Database) -> None:
    make_pool(db, images=0)
    names = [f"{n}.png" for n in range(40)]
    with db.write() as session:
        job = imports.submit_import(session, job_id="j", pool="p", names=names)
    assert (job.total, job.stage) == (40, None)
    first = must_claim(db)
    assert (first.first, first.last) == (0, 32)
    read = [outcome(n, f"{n % 30:064}") for n in range(31)] + [Outcome(31, None, "not an image")]
    do(db, imports.imported, first, read, [])
    assert (look(db, "j").done, look(db, "j").status) == (32, "running")
    do(db, imports.imported, must_claim(db), [outcome(n, f"{n:064}") for n in range(32, 40)], [])
    assert look(db, "j").status == "succeeded"
    with db.read() as session:
        found = queries.import_outcome(session, queries.find_job(session, "j"))
        assert pools.image_counts(session, [pools.find(session, "p")]).popitem()[1] == 38
    assert (found.stored, found.duplicates) == (38, 1)
    assert found.rejected == [{"name": "31.png", "detail": "not an image"}]


def test_a_step_of_many_files_takes_no_more_statements_than_one_of_few(db: Database) -> None:
    make_pool(db, images=0)
    statements: list[str] = []
    event.listen(db.engine, "before_cursor_execute", lambda *said: statements.append(said[2]))
    counts = []
    for job_id, count in (("few", 2), ("many", 32)):
        with db.write() as session:
            imports.submit_import(session, job_id=job_id, pool="p", names=["x.png"] * count)
        claimed = must_claim(db)
        statements.clear()
        read = [outcome(n, f"{job_id}-{n}".rjust(64)) for n in range(count)]
        do(db, imports.imported, claimed, read, [])
        counts.append(len(statements))
        assert look(db, job_id).stored == count
    assert counts[0] == counts[1]


def test_an_archive_is_counted_when_it_is_unpacked(db: Database) -> None:
    make_pool(db, images=0)
    with db.write() as session:
        imports.submit_import(session, job_id="j", pool="p", archive=True)
    unpacking = must_claim(db)
    assert unpacking.kind == "unpack"
    assert do(db, imports.unpacked, unpacking, ["a.png"], [("../b.png", "leads out")]) == 1
    assert queries.eta_seconds(look(db, "j")) is None, "what is refused at once is no pace"
    assert (look(db, "j").done, look(db, "j").total) == (1, 2)
    do(db, imports.imported, must_claim(db), [outcome(0, "a" * 64)], [])
    assert (look(db, "j").done, look(db, "j").status) == (2, "succeeded")


def test_an_archive_with_nothing_to_read_ends_at_once(db: Database) -> None:
    make_pool(db, images=0)
    with db.write() as session:
        imports.submit_import(session, job_id="j", pool="p", archive=True)
    do(db, imports.unpacked, must_claim(db), [], [("../b.png", "leads out")])
    assert look(db, "j").status == "succeeded"


def test_two_imports_of_the_same_image_at_once_store_it_once(db: Database) -> None:
    make_pool(db, images=0)
    for job_id in ("a", "b"):
        with db.write() as session:
            imports.submit_import(session, job_id=job_id, pool="p", names=["x.png"])
    claims = [must_claim(db), must_claim(db)]
    start = threading.Barrier(2)

    def finish(claimed: Claim) -> None:
        start.wait()
        do(db, imports.imported, claimed, [outcome(0, "a" * 64)], [])

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(finish, claims))
    with db.read() as session:
        outcomes = session.scalars(select(Upload.outcome).order_by(Upload.outcome)).all()
    assert outcomes == ["duplicate", "stored"]


def test_a_pool_is_not_deleted_under_a_job_and_ended_jobs_outlive_it(db: Database) -> None:
    pool_id = make_pool(db)
    job = submit(db)
    plan_all(db)
    with pytest.raises(PoolInUse, match=job.id):
        do(db, pools.delete, "p")
    do(db, jobs.fail, must_claim(db), "no")
    assert do(db, pools.delete, "p") == f"pools/{pool_id}/"
    with db.read() as session:
        assert session.scalars(select(Pool)).all() == session.scalars(select(PoolImage)).all() == []
        assert len(session.scalars(select(Sample)).all()) == 6
    assert look(db, job.id).pool_id is None


def page_through(session: Session, fetch: Callable[..., Any], *args: Any, limit: int) -> list[Any]:
    rows: list[Any] = []
    cursor = None
    while True:
        page, cursor = fetch(session, *args, limit=limit, cursor=cursor)
        assert 0 < len(page) <= limit
        rows += page
        if cursor is None:
            return rows


def test_lists_come_page_by_page_and_miss_nothing(db: Database) -> None:
    make_pool(db)
    made = [submit(db).id for _ in range(7)]
    with db.read() as session:
        assert [job.id for job in page_through(session, queries.list_jobs, limit=3)] == made[::-1]
        assert [job.id for job in page_through(session, queries.list_jobs, limit=7)] == made[::-1]
        assert queries.list_jobs(session, kind="pool_import")[0] == []
        assert len(queries.list_jobs(session, status="queued")[0]) == 7
        assert queries.counts_by_status(session) == {("synthesis", "queued"): 7}
    with db.write() as session:
        session.execute(update(Job).values(created_at=NOW))  # all at the same moment
    with db.read() as session:
        found = [job.id for job in page_through(session, queries.list_jobs, limit=3)]
    assert found == sorted(made, reverse=True)


def test_samples_come_page_by_page(db: Database) -> None:
    make_pool(db)
    job = submit(db)
    plan_all(db)
    make_all(db, must_claim(db))
    with db.read() as session:
        rows = page_through(session, queries.list_samples, job.id, limit=3)
        assert [row.position for row in rows] == list(range(4))  # of 6, two are not made yet
        assert queries.find_sample(session, job, 5).rank == 3
        assert queries.list_samples(session, job.id, cursor="9" * 18) == ([], None)


def test_the_remaining_time_follows_the_pace_so_far() -> None:
    job = Job(status="running", started_at=NOW, done=2, total=6, progressed_at=NOW + timedelta(seconds=10))
    assert queries.eta_seconds(job) == 20
    job.progressed_at = NOW - timedelta(seconds=10)
    assert queries.eta_seconds(job) == 0, "the database's clock was set back"
    job.done, job.progressed_at = 0, None
    assert queries.eta_seconds(job) is None


def test_plan_steps_are_of_so_many_guides_at_most(db: Database) -> None:
    make_pool(db)
    submit(db, guides=40)
    assert do(db, jobs.index_done, must_claim(db), "f" * 64) == 2


def test_big_pools_make_plan_steps_of_fewer_guides(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    make_pool(db)
    monkeypatch.setattr(jobs, "PLAN_PAIRS", 30)
    submit(db, guides=7)
    indexing = must_claim(db)
    assert do(db, jobs.index_done, indexing, "f" * 64) == 3
    planning = [must_claim(db) for _ in range(3)]
    assert [(step.first, step.last) for step in planning] == [(0, 3), (3, 6), (6, 7)]
    with pytest.raises(LeaseLost):
        do(db, jobs.plan_done, replace(planning[0], lease="another"), chosen(0, 3), 4)


def test_a_job_whose_pool_is_gone_says_so() -> None:
    with pytest.raises(PoolNotFound, match="the pool of job j is gone"):
        _ = Job(id="j").home_id
