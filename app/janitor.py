"""Removes what nobody needs: leftovers of processes that were killed, and what is past its time.

A blob is written before the row that names it, so a process killed in between leaves a blob without a row. What
is younger than GRACE is left alone: a request or a step under way may be about to write its row. Safe to run in
many processes at once.
"""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, cast

from obstore.exceptions import BaseError as BlobError
from sqlalchemy import CursorResult, delete, select
from sqlalchemy.orm import Session

from app import jobs, keys, queries
from app.blobs import Blobs
from app.database import Database
from app.errors import JobInUse, JobNotFound, JobRunning
from app.tables import (
    ACTIVE,
    AuditEntry,
    EvaluationImage,
    Guide,
    IdempotencyKey,
    Job,
    KeyUsage,
    Pool,
    PoolImage,
    PoolLatent,
    Sample,
    Worker,
)

log = logging.getLogger(__name__)

GRACE = timedelta(days=1)  # far longer than any request or step lives, also where a clock is an hour ahead
FORGET_WORKERS = timedelta(days=1)
FORGET_KEYS = timedelta(days=30)  # a request sent again that late is a new one
FORGET_USAGE = timedelta(days=30)  # limits look at today's alone
FORGET_AUDIT = timedelta(days=365)
OF_JOBS = (  # whose rows are known here, or of which nothing is needed once the job has ended
    "archive.zip",
    "arms",
    "dataset.zip",
    "guides",
    "matches",
    "originals",
    "samples",
    "uploads",
)


def tidy(database: Database, blobs: Blobs, retention_days: float | None, now: datetime) -> dict[str, int]:
    """Remove everything that is due. Returns how many of what."""
    removed = {"jobs past their retention": 0}
    if retention_days is not None:
        removed["jobs past their retention"] = remove_old_jobs(database, blobs, now - timedelta(days=retention_days))
    removed["outdated rows"] = forget(database, now)
    removed["unfinished files"] = blobs.remove_unfinished(now - GRACE)
    removed["blobs of jobs"] = remove_blobs_of_jobs(database, blobs, now - GRACE)
    removed["blobs of pools"] = remove_blobs_of_pools(database, blobs, now - GRACE)
    return removed


def remove_now(blobs: Blobs, prefix: str) -> None:
    """Remove the blobs of a job or pool whose rows are gone; where the store is away they are left to `tidy`."""
    try:
        blobs.delete_prefix(prefix)
    except (BlobError, OSError) as error:
        log.warning("blobs are left to be tidied up: %r", error)


def remove_old_jobs(database: Database, blobs: Blobs, moment: datetime) -> int:
    """Delete the jobs that ended before `moment`; of their blobs the zips first: they take the most room."""
    removed = 0
    while True:
        with database.read() as session:
            expired = queries.ended_before(session, moment)
        gone = [job_id for job_id in expired if remove_rows(database, job_id)]
        blobs.delete(*map(keys.dataset, gone))
        for job_id in gone:
            blobs.delete_prefix(keys.of_job(job_id))
        removed += len(gone)
        if not gone:
            return removed


def remove_rows(database: Database, job_id: str) -> bool:
    """Whether a job's are gone now. If not, somebody was faster, or an evaluation that just came in trains on it."""
    try:
        with database.write() as session:
            jobs.delete_job(session, job_id)
    except (JobNotFound, JobRunning, JobInUse):
        return False
    return True


def forget(database: Database, now: datetime) -> int:
    """Remove the rows that time has made worthless: of workers killed for good, of idempotency keys, and of audits."""
    outdated = (
        delete(Worker).where(Worker.seen_at < now - FORGET_WORKERS),
        delete(IdempotencyKey).where(IdempotencyKey.created_at < now - FORGET_KEYS),
        delete(KeyUsage).where(KeyUsage.day < (now - FORGET_USAGE).date()),
        delete(AuditEntry).where(AuditEntry.at < now - FORGET_AUDIT),
    )
    with database.write() as session:
        removed = sum(cast(CursorResult[Any], session.execute(statement)).rowcount for statement in outdated)
    return removed


def remove_blobs_of_jobs(database: Database, blobs: Blobs, moment: datetime) -> int:
    """Blobs written before `moment` of jobs that are no more, or that an ended job's rows do not name."""
    removed = 0
    for old in blobs.written_before(moment, "jobs/"):
        with database.read() as session:
            leftover = not_of_jobs(session, old)
        blobs.delete(*leftover)
        removed += len(leftover)
    return removed


def not_of_jobs(session: Session, found: Sequence[str]) -> list[str]:
    """Which keys below `jobs/` no row names. An active job keeps everything; no job ever comes back to life."""
    ids = {key.split("/")[1] for key in found}
    rows = session.execute(select(Job.id, Job.status, Job.dataset_sha256).where(Job.id.in_(ids))).all()
    active = {job_id for job_id, status, _ in rows if status in ACTIVE}
    ended = {job_id for job_id, *_ in rows} - active
    named = {keys.dataset(job_id) for job_id, _, dataset in rows if dataset is not None}
    digests = [key.rpartition("/")[2].removesuffix(".png") for key in found]
    for entity in (Guide, EvaluationImage):
        for column in (entity.image_sha256, entity.mask_sha256):
            query = select(entity.job_id, column).where(entity.job_id.in_(ended), column.in_(digests))
            named |= {keys.guide(job_id, sha256) for job_id, sha256 in session.execute(query)}
    for digest in (Sample.image_sha256, Sample.mask_sha256):  # by an index: a job may have a million
        made = select(Sample.job_id, digest).where(digest.in_(digests))
        named |= {keys.sample(job_id, sha256 or "") for job_id, sha256 in session.execute(made)}
    return [
        key
        for key in found
        if (job_id := key.split("/")[1]) not in active
        and key not in named
        and (job_id not in ended or key.split("/")[2] in OF_JOBS)
    ]


def remove_blobs_of_pools(database: Database, blobs: Blobs, moment: datetime) -> int:
    """Blobs written before `moment` of pools that are no more, or that no image of an idle pool names."""
    removed = 0
    for old in blobs.written_before(moment, "pools/"):
        with database.read() as session:
            leftover = not_of_pools(session, old)
        if not leftover:
            continue
        # Once more, with the pools locked: the same image may come in again, and its blob has the same key.
        with database.write() as session:
            ids = {key.split("/")[1] for key in leftover}
            session.execute(select(Pool.id).where(Pool.id.in_(ids)).order_by(Pool.id).with_for_update())
            leftover = not_of_pools(session, leftover)
            blobs.delete(*leftover)
        removed += len(leftover)
    return removed


def not_of_pools(session: Session, found: Sequence[str]) -> list[str]:
    """Which keys below `pools/` no row names. A pool with a job under way keeps everything."""

    def digests(kind: str) -> list[str]:
        return [key.rpartition("/")[2].partition(".")[0] for key in found if f"/{kind}/" in key]

    ids = {key.split("/")[1] for key in found}
    busy = set(session.scalars(select(Job.pool_id).where(Job.pool_id.in_(ids), Job.status.in_(ACTIVE))))
    images = select(PoolImage.pool_id, PoolImage.sha256).where(
        PoolImage.pool_id.in_(ids), PoolImage.sha256.in_(digests("images"))
    )
    named = {keys.pool_image(*row) for row in session.execute(images)}
    if shards := digests("latents"):  # no index leads to them: all latents of the pools are looked through
        latents = (
            select(PoolImage.pool_id, PoolLatent.model_sha256, PoolLatent.shard)
            .join(PoolImage, PoolImage.id == PoolLatent.pool_image_id)
            .where(PoolImage.pool_id.in_(ids), PoolLatent.shard.in_(shards))
            .distinct()
        )
        named |= {keys.latents(*row) for row in session.execute(latents)}
    return [key for key in found if key.split("/")[1] not in busy and key not in named]
