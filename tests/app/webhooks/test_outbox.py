"""app/webhooks/outbox.py: the outbox, on both kinds of database."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from app import jobs
from app.database import Database, clock
from app.schemas import WebhookBody
from app.tables import Delivery, Job
from app.webhooks import outbox
from app.webhooks.outbox import CLAIM_SECONDS, MAX_ATTEMPTS, Due, pause_seconds
from tests.job_life import NOW, do, look, make_pool, submit

URL = "https://hooks.example.org/in"
LATER = NOW + timedelta(days=9)


def told(db: Database, url: str = URL, **given: Any) -> Job:
    """A job that asks for a webhook."""
    job = submit(db, **given)
    with db.write() as session:
        outbox.order(session, session.get_one(Job, job.id), url)
    return job


def ended(db: Database, url: str = URL) -> Job:
    job = told(db, url)
    do(db, jobs.cancel, job.id, now=NOW)
    return job


def due(db: Database, now: Any = LATER) -> list[Due]:
    found: list[Due] = do(db, outbox.claim_due, now=now, limit=100)
    return found


def delivery(db: Database, job: Job) -> Delivery:
    with db.read() as session:
        return session.get_one(Delivery, job.id)


def test_nothing_is_due_before_the_job_has_ended(db: Database) -> None:
    make_pool(db)
    job = told(db)
    assert due(db) == []
    do(db, jobs.cancel, job.id, now=NOW)
    (claimed,) = due(db)
    assert (claimed.job_id, claimed.attempt, claimed.url) == (job.id, 1, URL)


def test_it_is_due_by_the_databases_clock_whatever_that_of_the_api_says(db: Database) -> None:
    make_pool(db)
    job = submit(db)
    with db.write() as session:
        kept = session.get_one(Job, job.id)
        kept.created_at = LATER  # of an API whose clock is ahead
        outbox.order(session, kept, URL)
        now = clock(session)
    do(db, jobs.cancel, job.id, now=NOW)
    assert [claimed.job_id for claimed in due(db, now)] == [job.id]


def test_a_job_that_asked_for_none_has_none(db: Database) -> None:
    make_pool(db)
    job = submit(db)
    do(db, jobs.cancel, job.id, now=NOW)
    assert due(db) == []


def test_an_end_that_is_not_committed_is_not_told(db: Database) -> None:
    make_pool(db)
    job = told(db)
    try:
        with db.write() as session:
            jobs.cancel(session, job.id, now=NOW)
            raise ConnectionError
    except ConnectionError:
        assert due(db) == []


def test_the_message_names_the_job_and_where_to_look_and_no_file(db: Database) -> None:
    make_pool(db)
    job = ended(db)
    (claimed,) = due(db)
    message = json.loads(claimed.body)
    assert message["type"] == "job.cancelled"
    assert message["timestamp"] == look(db, job.id).finished_at.isoformat()  # type: ignore[union-attr]
    assert message["data"].keys() == {"id", "kind", "status", "links"}
    assert message["data"]["links"]["self"] == f"/jobs/{job.id}"
    assert b".png" not in claimed.body


def test_each_goes_to_one_of_many_claimers(db: Database) -> None:
    make_pool(db)
    made = {ended(db).id for _ in range(12)}
    with ThreadPoolExecutor(6) as threads:
        claimed = [taken.job_id for found in threads.map(lambda _: due(db), range(6)) for taken in found]
    assert sorted(claimed) == sorted(made)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_claimer_waits_for_no_other_which_might_wait_for_it(db: Database) -> None:
    make_pool(db)
    made = [ended(db).id for _ in range(3)]
    with db.write() as one, db.write() as other:
        other.execute(text("SET LOCAL lock_timeout = '1s'"))
        (first,) = outbox.claim_due(one, now=LATER, limit=1)
        rest = outbox.claim_due(other, now=LATER, limit=3)
    assert [claimed.job_id for claimed in (first, *rest)] == made


def test_a_claim_runs_out_and_then_its_holder_changes_nothing(db: Database) -> None:
    make_pool(db)
    job = ended(db)
    (first,) = due(db)
    assert due(db) == []
    (second,) = due(db, LATER + timedelta(seconds=CLAIM_SECONDS + 1))
    assert (second.attempt, second.message_id) == (2, first.message_id)
    do(db, outbox.delivered, first)
    assert delivery(db, job).status == "pending"
    do(db, outbox.delivered, second)
    assert delivery(db, job).status == "delivered"
    assert due(db, LATER + timedelta(days=9)) == []


def test_a_first_attempt_comes_before_those_of_a_receiver_that_is_down(db: Database) -> None:
    make_pool(db)
    for _ in range(4):
        ended(db)
    for claimed in due(db):
        do(db, outbox.not_delivered, claimed, "down", now=NOW.replace(year=2020), lasting=False)
    new = ended(db)
    first, second = do(db, outbox.claim_due, now=LATER, limit=2)
    assert (first.job_id, first.attempt, second.attempt) == (new.id, 1, 2)


def test_receivers_take_turns_so_that_one_of_many_jobs_does_not_hold_up_another(db: Database) -> None:
    make_pool(db)
    many = [ended(db).id for _ in range(4)]
    other = ended(db, "https://hooks.example.org/other")
    first, second, third = do(db, outbox.claim_due, now=LATER, limit=3)
    assert [first.job_id, second.job_id, third.job_id] == [many[0], other.id, many[1]]


def test_a_receiver_gets_a_few_attempts_at_once_whatever_comes_after_its_name(db: Database) -> None:
    make_pool(db)
    for number in range(6):
        ended(db, f"https://Hooks.example.org/{number}" if number % 2 else f"https://hooks.example.org?job={number}")
    first = due(db)
    assert [claimed.receiver for claimed in first] == ["https://hooks.example.org"] * 4
    other = ended(db, "https://hooks.example.org.uk/")
    (next_one,) = do(db, outbox.claim_due, now=LATER, limit=2, under_way=[claimed.receiver for claimed in first])
    assert next_one.job_id == other.id
    assert len(do(db, outbox.claim_due, now=LATER, limit=100, under_way=[first[0].receiver] * 3)) == 1


def test_it_is_tried_for_about_a_day_and_then_given_up_with_the_reason(db: Database) -> None:
    make_pool(db)
    job = ended(db)
    now = LATER
    for attempt in range(1, MAX_ATTEMPTS + 1):
        (claimed,) = due(db, now)
        assert claimed.attempt == attempt
        outcome = do(db, outbox.not_delivered, claimed, f"answer {attempt}", now=now, lasting=False)
        assert outcome == ("failed" if attempt < MAX_ATTEMPTS else "given_up")
        now += timedelta(seconds=1.25 * pause_seconds(attempt))
    assert timedelta(hours=20) < sum((timedelta(seconds=pause_seconds(n)) for n in range(1, MAX_ATTEMPTS)), timedelta())
    found = delivery(db, job)
    assert (found.status, found.attempts, found.last_error) == ("given_up", MAX_ATTEMPTS, f"answer {MAX_ATTEMPTS}")
    assert due(db, now + timedelta(days=9)) == []


def test_pauses_grow_and_differ(db: Database) -> None:
    make_pool(db)
    pauses: list[float] = []
    for _ in range(4):
        job = ended(db)
        (claimed,) = due(db)
        do(db, outbox.not_delivered, claimed, "no", now=LATER, lasting=False)
        pauses.append((delivery(db, job).due_at - LATER).total_seconds())
    assert all(4 <= pause <= 6 for pause in pauses)
    assert len(set(pauses)) > 1
    assert [pause_seconds(attempt) for attempt in (1, 2, 3, 13)] == [5, 15, 45, 4 * 3600]


def test_what_cannot_succeed_is_given_up_at_once(db: Database) -> None:
    make_pool(db)
    job = ended(db)
    (claimed,) = due(db)
    do(db, outbox.not_delivered, claimed, "gone", now=LATER, lasting=True)
    assert delivery(db, job).status == "given_up"


def test_a_deleted_job_takes_its_webhook_with_it(db: Database) -> None:
    make_pool(db)
    job = ended(db)
    job.webhook = URL
    (claimed,) = due(db)
    do(db, jobs.delete_job, job.id)
    with db.read() as session:
        assert WebhookBody.of(session, job) is None, "whoever has just read the job is still answered"
    do(db, outbox.delivered, claimed)
    assert due(db, LATER + timedelta(days=9)) == []
