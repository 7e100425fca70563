"""app/leases.py and the verbs about leases: who may do a step, over both kinds of database."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from app import jobs, leases, queries
from app.database import Database, clock
from app.errors import LeaseLost
from app.failures import MANY
from app.records import MadeSample
from app.tables import Job, Sample, Step
from tests.job_life import NOW, chosen, claim, do, look, make_pool, must_claim, plan_all, submit
from tests.waiting import until


def test_a_leased_step_is_not_claimed_again_until_its_lease_runs_out(db: Database) -> None:
    make_pool(db)
    submit(db)
    first = must_claim(db)
    assert claim(db, now=NOW + timedelta(seconds=29)) is None
    do(db, jobs.renew, first, now=NOW + timedelta(seconds=20), lease_seconds=30)
    assert claim(db, now=NOW + timedelta(seconds=49)) is None
    again = must_claim(db, now=NOW + timedelta(seconds=51))
    assert (again.step_id, again.attempt) == (first.step_id, 2)


def test_who_lost_the_lease_can_change_nothing(db: Database) -> None:
    make_pool(db)
    job = submit(db)
    plan_all(db)
    late = must_claim(db)
    holder = must_claim(db, now=NOW + timedelta(minutes=1))
    before = look(db, job.id).version
    for verb, given in (
        (jobs.renew, {"now": NOW, "lease_seconds": 30}),
        (jobs.finish_samples, {"made": [MadeSample(late.first, "a" * 64, {})]}),
        (jobs.sampled, {}),
        (jobs.hand_back, {}),
        (jobs.fail, {"detail": "late"}),
        (jobs.retry_later, {"now": NOW, "max_attempts": 5, "detail": "late"}),
    ):
        with pytest.raises(LeaseLost):
            do(db, verb, late, **given)
    do(db, jobs.stop, late, now=NOW)
    assert look(db, job.id).version == before
    do(db, jobs.renew, holder, now=NOW, lease_seconds=30)


def test_a_restarted_worker_frees_what_it_held_and_only_that(db: Database) -> None:
    make_pool(db)
    first, second = submit(db), submit(db)
    mine, others = must_claim(db, worker="a"), must_claim(db, worker="b")
    assert {mine.job_id, others.job_id} == {first.id, second.id}
    assert do(db, jobs.release, "a") == [mine.job_id]
    assert must_claim(db, worker="a").step_id == mine.step_id
    do(db, jobs.renew, others, now=NOW, lease_seconds=30)
    with pytest.raises(LeaseLost):
        do(db, jobs.renew, mine, now=NOW, lease_seconds=30)


def test_the_job_with_the_fewest_leased_steps_comes_first(db: Database) -> None:
    make_pool(db)
    big = submit(db, guides=8)
    plan_all(db, chunk=2)
    held = [must_claim(db).job_id for _ in range(3)]
    small = submit(db, guides=1)
    assert held == [big.id] * 3
    assert must_claim(db).job_id == small.id
    assert must_claim(db).job_id == big.id


def turns(db: Database, count: int) -> list[str]:
    """The jobs that one worker, which does every step by itself, comes to."""
    found = []
    for _ in range(count):
        claimed = must_claim(db)
        do(db, jobs.hand_back, claimed)
        found.append(claimed.job_id)
    return found


def test_where_there_is_one_worker_a_small_job_waits_for_a_step_of_a_large_one_not_for_its_end(db: Database) -> None:
    make_pool(db)
    big = submit(db, guides=8)
    plan_all(db, chunk=1)
    turns(db, 3)
    small = submit(db)
    assert turns(db, 4) in ([big.id, small.id] * 2, [small.id, big.id] * 2)


def test_where_there_is_one_worker_jobs_that_keep_coming_do_not_hold_up_one_that_has_begun(db: Database) -> None:
    make_pool(db)
    begun = submit(db)
    turns(db, 2)
    came = []
    for _ in range(3):
        submit(db)
        came += turns(db, 1)
    assert begun.id in came


def test_where_there_is_one_worker_many_jobs_of_one_tenant_leave_the_others_their_turns(db: Database) -> None:
    make_pool(db)
    many = {submit(db).id for _ in range(6)}
    one = submit(db)
    do(db, lambda session: session.execute(update(Job).where(Job.id == one.id).values(tenant="clinic")))
    came = turns(db, 8)
    assert came.count(one.id) == 4
    assert len(many & set(came)) == 4  # and among themselves they take turns, too


def test_jobs_that_have_ended_count_as_turns_of_their_tenant(db: Database) -> None:
    make_pool(db)
    quick, slow = [submit(db) for _ in range(4)], submit(db)
    do(db, lambda session: session.execute(update(Job).where(Job.id == slow.id).values(tenant="clinic")))
    came = []
    for _ in range(6):
        claimed = must_claim(db)
        came.append(claimed.job_id)
        if claimed.job_id == slow.id:
            do(db, jobs.hand_back, claimed)
        else:
            do(db, jobs.fail, claimed, "done")
    assert came.count(slow.id) == 3
    assert {job.id for job in quick} > set(came) - {slow.id}


def test_many_claim_at_once_and_no_step_is_given_twice(db: Database) -> None:
    make_pool(db)
    submit(db, guides=8)
    plan_all(db, chunk=1)
    start = threading.Barrier(8)

    def take(worker: str) -> list[int]:
        start.wait()
        return [must_claim(db, worker=worker).step_id for _ in range(3)]

    with ThreadPoolExecutor(8) as threads:
        taken = [step for steps in threads.map(take, "abcdefgh") for step in steps]
    assert len(taken) == len(set(taken)) == 24
    assert claim(db) is None


def somebody_waits_for(db: Database, transaction: Session) -> bool:
    holder = transaction.scalar(text("SELECT pg_backend_pid()"))
    waiting = text("SELECT count(*) FROM pg_stat_activity WHERE :holder = ANY (pg_blocking_pids(pid))")
    with db.read() as session:
        return bool(session.scalar(waiting, {"holder": holder}))


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite has one writer at a time
def test_who_comes_too_late_to_one_job_does_not_hold_it_while_waiting_for_another(db: Database) -> None:
    make_pool(db)
    first, second = submit(db), submit(db)
    with ThreadPoolExecutor(1) as threads, db.write() as elsewhere:
        leases.lock(elsewhere, second.id)
        with db.write() as faster:
            jobs.claim(faster, worker="faster", now=NOW, lease_seconds=30, max_attempts=5)
            late = threads.submit(must_claim, db)
            until(lambda: somebody_waits_for(db, faster))
        until(lambda: somebody_waits_for(db, elsewhere))
        with db.write() as another:  # held on to, two that come late would wait for one another
            another.scalars(select(Job).where(Job.id == first.id).with_for_update(nowait=True)).one()
    assert late.result().job_id == second.id


def test_a_claim_ends_one_job_at_most_as_two_that_end_several_could_wait_for_one_another(db: Database) -> None:
    make_pool(db)
    both = [submit(db).id for _ in range(2)]
    assert {must_claim(db).job_id for _ in both} == set(both)
    for failed in (1, 2):
        assert claim(db, now=NOW + timedelta(minutes=1), max_attempts=1) is None
        assert [look(db, job_id).status for job_id in both].count("failed") == failed


def test_a_step_that_kills_every_worker_fails_its_job(db: Database) -> None:
    make_pool(db)
    job = submit(db)
    for attempt in range(3):
        assert must_claim(db, now=NOW + attempt * timedelta(minutes=1), max_attempts=3).attempt == attempt + 1
    assert claim(db, now=NOW + timedelta(minutes=4), max_attempts=3) is None
    error = look(db, job.id).error
    assert look(db, job.id).status == "failed"
    assert error is not None and "tried 3 times" in error["detail"]


@pytest.mark.parametrize(
    ("verb", "given"),
    [
        (jobs.indexed, {"latents": []}),
        (jobs.finish_samples, {"made": [MadeSample(0, "a" * 64, {})]}),
        (jobs.fail_sample, {"position": 0, "detail": "no numbers"}),
        (jobs.drop_sample, {"position": 0, "detail": "seam", "quality": {}}),
        (jobs.redraw_sample, {"position": 0}),
    ],
)
def test_a_step_that_gets_on_has_its_attempts_back_and_what_is_done_twice_counts_once(
    db: Database, verb: Callable[..., object], given: dict[str, object]
) -> None:
    make_pool(db)
    job = submit(db)
    if verb is not jobs.indexed:
        plan_all(db)
        do(db, lambda session: session.execute(update(Sample).values(spares=[{"rank": 4}])))
    for turn in range(2):
        claimed = must_claim(db, now=NOW + turn * timedelta(minutes=1))
        assert (claimed.job_id, claimed.first, claimed.attempt) == (job.id, 0, 1)
        do(db, verb, claimed, **given)
    assert look(db, job.id).done == (0 if verb in (jobs.indexed, jobs.redraw_sample) else 1)


def test_a_passing_error_is_tried_again_later_and_in_the_end_fails_the_job(db: Database) -> None:
    make_pool(db)
    job = submit(db)
    do(db, jobs.retry_later, must_claim(db), now=NOW, max_attempts=2, detail="the store is away")
    assert claim(db) is None
    again = must_claim(db, now=NOW + timedelta(seconds=2))
    do(db, jobs.retry_later, again, now=NOW, max_attempts=2, detail="the store is away")
    ended = look(db, job.id)
    assert ended.status == "failed"
    assert ended.error is not None and "the store is away" in ended.error["detail"]


def test_however_often_a_step_is_tried_there_is_a_pause_before_the_next_time(db: Database) -> None:
    make_pool(db)
    submit(db)
    do(db, lambda session: session.execute(update(Step).values(attempts=5000)))
    do(db, jobs.retry_later, must_claim(db, max_attempts=9999), now=NOW, max_attempts=9999, detail="out of memory")
    assert claim(db, now=NOW + timedelta(minutes=4), max_attempts=9999) is None
    must_claim(db, now=NOW + timedelta(minutes=5), max_attempts=9999)


def test_a_cancellation_whose_worker_died_is_completed_by_the_sweeper(db: Database) -> None:
    make_pool(db)
    job = submit(db)
    must_claim(db)
    do(db, jobs.cancel, job.id, now=NOW)
    do(db, jobs.sweep, now=NOW)
    assert look(db, job.id).status == "cancelling"
    do(db, jobs.sweep, now=NOW + timedelta(minutes=1))
    assert look(db, job.id).status == "cancelled"


def test_the_sweeper_names_each_claimable_step_once_and_so_many_at_most(db: Database) -> None:
    make_pool(db)
    job = submit(db)
    assert do(db, jobs.sweep, now=NOW) == [job.id]
    must_claim(db)
    assert do(db, jobs.sweep, now=NOW) == []
    later = NOW + timedelta(minutes=1)
    assert do(db, jobs.sweep, now=later) == [job.id]
    submit(db)
    assert len(do(db, jobs.sweep, now=later, limit=1)) == 1


def test_tenants_take_turns_however_many_jobs_and_keys_one_has(db: Database) -> None:
    large, small = db.of("large"), db.of("small")
    for tenant in (large, small):
        make_pool(tenant)
    for _ in range(5):
        submit(large, guides=8)
    keys_of_their_own = update(Job).values(api_key=func.substr(Job.id, 1, 12))
    do(db, lambda session: session.execute(keys_of_their_own))
    late = submit(small, guides=1)
    came = [look(db, must_claim(db).job_id).tenant for _ in range(3)]
    assert came == ["large", "small", "large"]
    assert look(db, late.id).status == "running"


def test_a_step_that_waits_for_a_store_takes_no_turn_from_its_tenant(db: Database) -> None:
    early, late = db.of("early"), db.of("late")
    for tenant in (early, late):
        make_pool(tenant)
    waits, next_one, other = submit(early), submit(early), submit(late)
    waiting = must_claim(db)
    do(db, jobs.wait_out, waiting, now=NOW)
    assert waiting.job_id == waits.id
    assert turns(db, 4) == [other.id, next_one.id] * 2


def test_within_a_tenant_its_keys_take_turns_and_then_their_jobs(db: Database) -> None:
    make_pool(db)
    busy = [submit(db, guides=1) for _ in range(4)]
    rare = submit(db, guides=1)
    with db.write() as session:
        for job, key in ((busy[0], "a"), (busy[1], "a"), (busy[2], "a"), (busy[3], "a"), (rare, "b")):
            session.get_one(Job, job.id).api_key = key
    assert [must_claim(db).job_id for _ in range(3)] == [busy[0].id, rare.id, busy[1].id]


def test_a_sample_that_kills_every_worker_fails_alone(db: Database) -> None:
    make_pool(db)
    job = submit(db, guides=2)
    plan_all(db)
    for attempt in range(3):
        must_claim(db, now=NOW + attempt * timedelta(minutes=1), max_attempts=3)
    goes_on = must_claim(db, now=NOW + timedelta(minutes=4), max_attempts=3)
    assert (goes_on.kind, goes_on.first, goes_on.attempt) == ("sample", 0, 1)
    with db.read() as session:
        (failed,) = queries.failed_samples(session, queries.find_job(session, job.id))
    assert failed["index"] == 0
    assert "tried 3 times, each time its worker died" in failed["detail"]
    assert (look(db, job.id).status, look(db, job.id).done) == ("running", 1)


def test_a_sample_fails_alone_whatever_a_version_calls_its_step(db: Database) -> None:
    make_pool(db)
    job = submit(db, guides=2)
    plan_all(db)
    with db.write() as session:
        session.execute(update(Step).where(Step.kind == "sample").values(kind="sample-2"))
    do(db, jobs.retry_later, must_claim(db), now=NOW, max_attempts=1, detail="out of memory")
    goes_on = must_claim(db, now=NOW + timedelta(minutes=1))
    assert (goes_on.kind, goes_on.first, look(db, job.id).status) == ("sample-2", 0, "running")
    with db.read() as session:
        (failed,) = queries.failed_samples(session, queries.find_job(session, job.id))
    assert failed["index"] == 0 and "out of memory" in failed["detail"]


def test_a_plan_that_fails_is_no_fault_of_the_samples_planned_before(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_pool(db)
    monkeypatch.setattr(jobs, "PLAN_PAIRS", 10)  # a guide to a step
    job = submit(db, guides=3)
    do(db, jobs.index_done, must_claim(db), "f" * 64)
    do(db, jobs.plan_done, must_claim(db), chosen(0, 1), 4)
    planning = must_claim(db)
    assert (planning.kind, planning.first) == (leases.PLAN, 1)  # as a position of a sample it is one that waits
    do(db, jobs.retry_later, planning, now=NOW, max_attempts=1, detail="no weights")
    ended = look(db, job.id)
    assert (ended.status, ended.failed) == ("failed", 0)
    assert ended.error is not None and f"step {leases.PLAN} 1 was tried 1 times" in ended.error["detail"]


@pytest.mark.parametrize(("made", "failed"), [(1, MANY), (MANY, MANY + 1)])
def test_a_job_of_which_more_than_half_of_many_samples_fail_is_given_up(db: Database, made: int, failed: int) -> None:
    make_pool(db)
    job = submit(db, guides=6)
    plan_all(db, chunk=18)
    claimed = must_claim(db)
    do(db, jobs.finish_samples, claimed, [MadeSample(17 - n, "a" * 64, {}) for n in range(made)])
    for position in range(failed):
        assert look(db, job.id).status == "running"
        do(db, jobs.fail_sample, claimed, position=position, detail="no numbers")
    error = look(db, job.id).error
    assert look(db, job.id).status == "failed"
    words = f"{failed} of the first {made + failed} samples could not be made; sample {failed - 1}: no n"
    assert error is not None and error["detail"].startswith(words)


def test_a_store_that_is_away_uses_up_no_attempts(db: Database) -> None:
    make_pool(db)
    submit(db)
    for turn in range(10):
        now = NOW + turn * timedelta(seconds=6)
        claimed = must_claim(db, now=now, max_attempts=2)
        assert claimed.attempt == 1
        do(db, jobs.wait_out, claimed, now=now)
        assert claim(db, now=now) is None, "not at once"


def test_a_step_of_another_version_is_left_to_those_who_know_it(db: Database) -> None:
    make_pool(db)
    submit(db)
    with db.write() as session:
        assert (
            jobs.claim(session, worker="old", now=NOW, lease_seconds=30, max_attempts=5, kinds=(leases.PLAN,)) is None
        )
        new = jobs.claim(session, worker="new", now=NOW, lease_seconds=30, max_attempts=5, kinds=(leases.PLAN, "index"))
    assert new is not None and new.kind == "index"


@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_that_is_set_holds_no_step_back(db: Database, hours: int) -> None:
    make_pool(db)
    submit(db)
    first = must_claim(db)
    set_clock = NOW + timedelta(hours=hours)
    assert must_claim(db, now=set_clock).step_id == first.step_id
    assert claim(db, now=set_clock) is None


def test_a_clock_that_is_set_back_holds_no_cancellation_back(db: Database) -> None:
    make_pool(db)
    job = submit(db)
    must_claim(db)
    assert do(db, jobs.cancel, job.id, now=NOW - timedelta(hours=1))[0].status == "cancelled"


def test_the_database_has_the_clock(db: Database) -> None:
    with db.read() as session:
        assert abs(clock(session) - datetime.now(UTC)) < timedelta(minutes=1)
        assert clock(session).tzinfo is UTC
