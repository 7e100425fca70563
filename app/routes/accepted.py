"""A job taken in: how much it may bring, its rows and blobs, the answer."""

from collections.abc import Callable, Sequence
from uuid import uuid4

from anyio import to_thread
from fastapi.responses import JSONResponse
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
    service.callers.admit_again(service.caller)
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
            janitor.remove_now(service.blobs, keys.of_job(job_id))
        raise
    if job.id != job_id:
        janitor.remove_now(service.blobs, keys.of_job(job_id))
        return job_answer(service, job, 200)
    service.metrics.accepted(job.kind)
    answer = job_answer(service, job, 202)
    answer.background = BackgroundTask(wake, service, job.id)  # after the answer: it is durable already
    return answer


async def wake(service: Service, job_id: str) -> None:
    """Wake a worker; while the broker hangs, no thread that other requests need waits for it."""
    await to_thread.run_sync(broker.wake, service.celery, job_id, limiter=service.wake_thread)


def put_images(service: Service, images: Sequence[GuideFiles], job_id: str) -> None:
    for image in images:
        key_of = keys.original if image.full_size else keys.guide
        for sha256, file in ((image.row.image_sha256, image.image), (image.row.mask_sha256, image.mask)):
            with file.open() as content:
                service.blobs.put_file(key_of(job_id, sha256), content)


def job_answer(service: Service, job: Job, status: int) -> JSONResponse:
    """A job with its address and when to look again."""
    with service.database.read() as session:
        body = JobBody.of(session, job).model_dump(mode="json")
    headers = {"Location": f"/jobs/{job.id}", "Retry-After": str(RETRY_AFTER_SECONDS)}
    return JSONResponse(body, status, headers=headers)
