"""Jobs brought to any point of their life by the verbs themselves."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import uuid4

from app import jobs, pools, queries
from app.admission import Idempotency, admit
from app.database import Database
from app.leases import PLAN
from app.records import Claim, MadeSample, NewGuide, NewSample
from app.tables import Job, PoolImage

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)


def make_pool(db: Database, name: str = "p", images: int = 10) -> str:
    with db.write() as session:
        pool = pools.create(session, name)
        session.flush()
        for n in range(images):
            session.add(
                PoolImage(pool_id=pool.id, name=f"{n}.png", width=9, height=8, sha256=f"{n:064}", created_at=NOW)
            )
    return pool.id


def submit(
    db: Database,
    *,
    guides: int = 2,
    top_k: int = 3,
    pool: str = "p",
    max_queued_jobs: int = 100,
    idempotency: Idempotency | None = None,
) -> Job:
    labeled = [NewGuide(f"g{n}.png", 2900, 1300, f"{n:064}", "m" * 64) for n in range(guides)]
    given: dict[str, Any] = {"pool": pool, "top_k": top_k, "model": "default"}
    with db.write() as session:
        submit_it = partial(jobs.submit_synthesis, session, uuid4().hex, guides=labeled, parameters=given)
        return admit(session, max_queued_jobs, idempotency, submit_it)


def claim(db: Database, *, worker: str = "w", now: datetime = NOW, max_attempts: int = 5) -> Claim | None:
    with db.write() as session:
        return jobs.claim(session, worker=worker, now=now, lease_seconds=30, max_attempts=max_attempts)


def must_claim(db: Database, **given: Any) -> Claim:
    claimed = claim(db, **given)
    assert claimed is not None
    return claimed


def do(db: Database, verb: Callable[..., Any], *args: Any, **given: Any) -> Any:
    with db.write() as session:
        return verb(session, *args, **given)


def look(db: Database, job_id: str) -> Job:
    with db.read() as session:
        return queries.find_job(session, job_id)


def chosen(first: int, last: int, top_k: int = 3) -> list[NewSample]:
    return [
        NewSample(top_k * g + r, g, r + 1, f"{r}.png", f"{r:064}", r + 1, 0.5, 7)
        for g in range(first, last)
        for r in range(top_k)
    ]


def plan_all(db: Database, chunk: int = 4) -> None:
    """Takes the only job from its submission to its sample steps."""
    do(db, jobs.index_done, must_claim(db), "f" * 64)
    while (claimed := claim(db)) is not None and claimed.kind == PLAN:
        do(db, jobs.plan_done, claimed, chosen(claimed.first, claimed.last), chunk)
    if claimed is not None:
        do(db, jobs.hand_back, claimed)


def make_all(db: Database, claimed: Claim) -> None:
    made = [MadeSample(position, f"{position:064}", {"seam": 1.0}) for position in range(claimed.first, claimed.last)]
    do(db, jobs.finish_samples, claimed, made)
