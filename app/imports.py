"""The verbs of a pool import that `app.jobs` lacks: its archive unpacked, its files read."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from app import pools
from app.errors import PoolNotFound
from app.jobs import add_uploads, step_done
from app.leases import count_done, hold
from app.records import Claim, NewLatent, Outcome
from app.tables import Pool, PoolImage, Upload


def unpacked(session: Session, claim: Claim, names: Sequence[str], rejected: Sequence[tuple[str, str]]) -> int:
    """The archive's files are uploads now; `rejected` are (name, detail) of what was left out.

    Returns the number of steps made.
    """
    job, step = hold(session, claim)
    job.total = len(names) + len(rejected)
    job.done = job.failed = len(rejected)
    made = add_uploads(session, job.id, names)
    for position, (name, detail) in enumerate(rejected, start=len(names)):
        session.add(Upload(job_id=job.id, position=position, name=name, outcome="rejected", detail=detail))
    step_done(session, job, step)
    return made


def imported(session: Session, claim: Claim, outcomes: Sequence[Outcome], latents: Sequence[NewLatent]) -> None:
    """The files of an import step were read: keep the images that are new to the pool, and their latents."""
    job, step = hold(session, claim)
    # Locked, so that the ids of images grow in the order of commits: a later job's set of images is settled.
    pool = session.scalar(select(Pool).where(Pool.id == job.pool_id).with_for_update())
    if pool is None:
        raise PoolNotFound(f"the pool of job {job.id} is gone")
    # Few statements, however many files: other imports into the pool wait for its row.
    uploads = _uploads(session, job.id, [outcome.position for outcome in outcomes])
    known = pools.known(session, pool.id, [image.sha256 for _, image, _ in outcomes if image is not None])
    home = {"pool_id": pool.id, "created_at": datetime.now(UTC)}
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
    step_done(session, job, step)


def _uploads(session: Session, job_id: str, positions: Sequence[int]) -> dict[int, Upload]:
    found = session.scalars(select(Upload).where(Upload.job_id == job_id, Upload.position.in_(positions)))
    return {upload.position: upload for upload in found}
