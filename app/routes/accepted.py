"""A job taken in: how much it may bring, its rows and blobs, the answer."""

import logging
from collections.abc import Callable, Sequence
from uuid import uuid4

from fastapi.responses import JSONResponse
from kombu.exceptions import OperationalError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from starlette.background import BackgroundTask

from app import broker, janitor, keys
from app.access.limits import Allowance, allowance, charge
from app.admission import Idempotency, admit
from app.database import clock
from app.schemas import JobBody
from app.service import Service
from app.tables import Job
from app.uploads.guides import GuideFiles
from app.webhooks import outbox

log = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 2


def upload_allowance(service: Service, idempotency_key: str | None) -> Allowance:
    """How large the request's body may be; asked before it is read."""
    with service.database.read() as session:
        return allowance(session, service.caller, service.settings.max_upload_bytes, clock(session), idempotency_key)


def take_in(
    service: Service,
    put_blobs: Callable[[str], None],
    upload_bytes: int,
    webhook: str | None,
    idempotency: Idempotency | None,
    submit: Callable[[Session, str], Job],
) -> JSONResponse:
    """Write a job's blobs by `put_blobs(job_id)`, then the job that `submit(session, job_id)` makes; -> the answer.

    The answer is 202, after which a worker is woken; or 200 with the first job, where the idempotency key is known. A
    request that is refused or fails leaves no blobs. But where the connection to the database is lost, nobody knows
    whether the commit came through: the blobs stay, and if there is no job the janitor removes them.
    """
    job_id = uuid4().hex
    try:
        put_blobs(job_id)
        with service.database.write() as session:
            queued = service.settings.max_queued_jobs
            job = admit(session, queued, idempotency, lambda: submit(session, job_id))
            if job.id == job_id:
                charge(session, service.caller, job, upload_bytes, clock(session))
                outbox.order(session, job, webhook)
    except BaseException as error:
        if not (isinstance(error, DBAPIError) and error.connection_invalidated):
            janitor.remove_now(service.blobs, f"jobs/{job_id}/")
        raise
    if job.id != job_id:
        janitor.remove_now(service.blobs, f"jobs/{job_id}/")
        return job_answer(service, job, 200)
    service.metrics.accepted(job.kind)
    return job_answer(service, job, 202, wake=True)


def put_images(service: Service, images: Sequence[GuideFiles], job_id: str) -> None:
    for image in images:
        key_of = keys.original if image.full_size else keys.guide
        for sha256, file in ((image.row.image_sha256, image.image), (image.row.mask_sha256, image.mask)):
            with file.open() as content:
                service.blobs.put_file(key_of(job_id, sha256), content)


def wake_up(service: Service, job_id: str) -> None:
    """Call after the commit. The job is durable even if the broker is away; the sweeper then wakes a worker later."""
    try:
        broker.wake(service.celery, job_id)
    except (OperationalError, OSError) as error:
        log.warning("job %s waits for the broker to come back: %s", job_id, error)


def job_answer(service: Service, job: Job, status: int, wake: bool = False) -> JSONResponse:
    """A job with its address and when to look again; with `wake`, a worker is woken after that."""
    with service.database.read() as session:
        body = JobBody.of(session, job).model_dump(mode="json")
    headers = {"Location": f"/jobs/{job.id}", "Retry-After": str(RETRY_AFTER_SECONDS)}
    background = BackgroundTask(wake_up, service, job.id) if wake else None
    return JSONResponse(body, status, headers=headers, background=background)
