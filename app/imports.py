"""The verbs of a pool import that `app.jobs` lacks: taken in, its archive unpacked, its files read."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, insert, select
from sqlalchemy.orm import Session

from app import pools
from app.admission import new_job
from app.database import clock
from app.jobs import step_done
from app.leases import add_step, add_steps, count_done, hold
from app.records import Claim, NewLatent, Outcome
from app.tables import Job, Pool, PoolImage, Upload

CHUNK = 32  # files a step reads and encodes


def submit_import(
    session: Session,
    job_id: str,
    *,
    pool: str,
    names: Sequence[str] = (),
    archive: bool = False,
    region: str = "none",
) -> Job:
    """Take in files, their blobs written: one for each of `names`, or a zip archive. Raises PoolNotFound."""
    home = pools.lock(session, pool, shared=True)  # other jobs may come in
    parameters = {"pool": pool, "archive": archive, "region": region}
    job = new_job(session, job_id, "pool_import", parameters, len(names), home)
    if archive:
        add_step(session, job_id, "unpack", 0, 0)
    else:
        _add_uploads(session, job_id, names)
    return job


def unpacked(session: Session, claim: Claim, names: Sequence[str], rejected: Sequence[tuple[str, str]]) -> int:
    """The archive's files are uploads now; `rejected` are (name, detail) of what was left out.

    Returns the number of steps made.
    """
    job, step = hold(session, claim)
    job.total = len(names) + len(rejected)
    job.done = job.failed = len(rejected)
    made = _add_uploads(session, job.id, names)
    for position, (name, detail) in enumerate(rejected, start=len(names)):
        session.add(Upload(job_id=job.id, position=position, name=name, outcome="rejected", detail=detail))
    step_done(session, job, step)
    return made


def unread(claim: Claim) -> ColumnElement[bool]:
    """Of uploads, those of an import step that nobody has read yet."""
    these = Upload.position.between(claim.first, claim.last - 1)
    return and_(Upload.job_id == claim.job_id, these, Upload.outcome.is_(None))


def imported(session: Session, claim: Claim, outcomes: Sequence[Outcome], latents: Sequence[NewLatent]) -> None:
    """Files of an import step were read: keep the images that are new to the pool, and their latents.

    With its last file the step is done.
    """
    job, step = hold(session, claim)
    # Locked, so that the ids of images grow in the order of commits: a later job's set of images is settled.
    pool = session.get_one(Pool, job.home_id, with_for_update=True)
    # Few statements, however many files: other imports into the pool wait for its row.
    these = Upload.position.in_([outcome.position for outcome in outcomes])
    uploads = {row.position: row for row in session.scalars(select(Upload).where(Upload.job_id == job.id, these))}
    known = pools.known(session, pool.id, [image.sha256 for _, image, _ in outcomes if image is not None])
    home = {"pool_id": pool.id, "created_at": clock(session)}
    new: list[dict[str, Any]] = []
    for position, image, detail in outcomes:
        upload = uploads[position]
        if image is None:
            upload.outcome, upload.detail = "rejected", detail
            job.failed += 1
        elif image.sha256 in known:
            upload.outcome = "duplicate"
        else:
            upload.outcome = "stored"
            known.add(image.sha256)
            new.append(home | asdict(image))
    if new:
        session.execute(insert(PoolImage), new)
        job.stored += len(new)
    pools.keep_latents(session, pool.id, latents)
    count_done(session, job, len(outcomes))
    if not session.scalar(select(exists().where(unread(claim)))):
        step_done(session, job, step)


def _add_uploads(session: Session, job_id: str, names: Sequence[str]) -> int:
    """Rows for the files, and their steps. Returns how many steps."""
    session.add_all(Upload(job_id=job_id, position=n, name=name) for n, name in enumerate(names))
    return add_steps(session, job_id, "import", 0, len(names), CHUNK)
