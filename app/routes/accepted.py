"""The answer to a job that was taken in."""

import logging
from uuid import uuid4

from fastapi.responses import JSONResponse
from kombu.exceptions import OperationalError
from starlette.background import BackgroundTask

from app import broker
from app.schemas import JobBody
from app.service import Service
from app.tables import Job

log = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 2


def new_job_id() -> str:
    return uuid4().hex


def wake_up(service: Service, job_id: str) -> None:
    """Call after the commit. While the broker is away the job is durable; the sweeper wakes later."""
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
