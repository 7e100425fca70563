"""Jobs: how far they are, what they made, and how to stop them."""

from typing import Annotated, Literal

from fastapi import Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import Field
from sqlalchemy.orm import Session

from app import events, janitor, jobs, keys, queries
from app.database import clock
from app.downloads import IMMUTABLE, REVALIDATE, Download, redirect, serve
from app.labels import label
from app.leases import WORKABLE
from app.openapi import ETAG, JOB_HEADERS, SAVED, Responses, file_answers, header, problems
from app.problems import Problem
from app.routes.accepted import job_answer
from app.routes.parameters import JobId, Page, PageOf, SampleIndex
from app.routes.router import Router
from app.schemas import REASONS_IN_LIST, JobBody, JobList, Kind, SampleBody, SampleList, Status
from app.service import ServiceDep
from app.tables import Guide, Job, Sample

router = Router(tags=["jobs"])

JOBS_AT_ONCE = 50  # in memory: each may name a thousand files
NO_JOB = problems({404: "There is no such job"})
CANCELLED: Responses = {
    202: {"description": "It ends as soon as its workers hear of it", "headers": JOB_HEADERS},
    200: {"model": JobBody, "description": "It was cancelled before", "headers": JOB_HEADERS},
}
EVENTS: Responses = {
    200: {"description": "An event for each change: `id`, and in `data` the job", "content": {"text/event-stream": {}}},
    204: {"description": "It has ended, and `Last-Event-ID` is its last change: do not come again"},
}
DATASET: Responses = {
    307: {
        "description": "At the bucket's own address, where the operator has it so; good for 15 minutes",
        "headers": {"Location": header("the address"), **ETAG},
    },
    **file_answers(
        "application/zip",
        "The dataset",
        {404: "There is no such job, or it is not a synthesis", 409: "The synthesis has not succeeded"},
        SAVED,
    ),
}
SAMPLE = {404: "There is no such job or sample, or the sample failed or was dropped", 409: "It is not made"}


class PageOfJobs(Page):
    kind: Literal[Kind, ""] = Field("", description="jobs of this kind alone; empty: of every")
    status: Literal[Status, ""] = Field("", description="jobs of this status alone; empty: of every")


@router.get("/jobs")
def list_jobs(service: ServiceDep, page: Annotated[PageOfJobs, Query()]) -> JobList:
    """Jobs, the newest first."""
    items: list[JobBody] = []
    following = page.cursor
    with service.database.read() as session:
        for had in range(0, page.limit, JOBS_AT_ONCE):
            some = min(JOBS_AT_ONCE, page.limit - had)
            rows, following = queries.list_jobs(
                session, kind=page.kind, status=page.status, limit=some, cursor=following
            )
            items += [JobBody.of(session, job, REASONS_IN_LIST) for job in rows]
            if following is None:
                break
    return JobList(items=items, next=following)


@router.get("/jobs/{job_id}", responses=NO_JOB)
def get_job(job_id: JobId, service: ServiceDep, response: Response) -> JobBody:
    """How far a job is, and what went wrong if it failed."""
    response.headers["Cache-Control"] = "no-store"
    with service.database.read() as session:
        return JobBody.of(session, queries.find_job(session, job_id))


@router.post(
    "/jobs/{job_id}/cancel",
    status_code=202,
    response_model=JobBody,
    responses=CANCELLED | NO_JOB | problems({409: "It has ended otherwise"}),
)
def cancel_job(job_id: JobId, service: ServiceDep) -> Response:
    """Stop a job."""
    with service.database.write() as session:
        job, changed = jobs.cancel(session, job_id, now=clock(session))
    return job_answer(service, job, 202 if changed else 200)


@router.delete(
    "/jobs/{job_id}",
    status_code=204,
    response_class=Response,
    responses=NO_JOB | problems({409: "It has not ended, or an evaluation trains on it; cancel first"}),
)
def delete_job(job_id: JobId, service: ServiceDep) -> None:
    """Remove a job that has ended, with all it made."""
    with service.database.write() as session:
        jobs.delete_job(session, job_id)
    janitor.remove_now(service.blobs, keys.of_job(job_id))


@router.get("/jobs/{job_id}/events", response_class=StreamingResponse, responses=EVENTS | NO_JOB)
def follow_job(
    job_id: JobId,
    request: Request,
    service: ServiceDep,
    last_event_id: Annotated[
        str | None,
        Header(
            alias="Last-Event-ID", max_length=200, description="`id` of the last event seen, which is not sent again"
        ),
    ] = None,
) -> Response:
    """Server-sent events, one per change: the job as JSON, its version as id. The stream ends with it."""
    seen = events.last_version(last_event_id)
    with service.database.read() as session:
        job = queries.find_job(session, job_id)
    if job.version == seen and job.finished_at is not None:
        return Response(status_code=204)  # tells an EventSource to stop reconnecting
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    if request.method == "HEAD":  # a stream nobody reads would hold the connection until the job ends
        return Response(headers=headers, media_type="text/event-stream")

    def goes_on() -> bool:
        return not request.app.state.is_stopping() and service.callers.still_admits(service.caller)

    stream = events.events(service.database, job_id, seen, goes_on, service.event_threads)
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


@router.get("/jobs/{job_id}/samples", responses=NO_JOB, response_model_exclude_unset=True)
def list_samples(job_id: JobId, service: ServiceDep, page: PageOf) -> SampleList:
    """The samples made so far."""
    with service.database.read() as session:
        rows, following = queries.list_samples(session, job_id, limit=page.limit, cursor=page.cursor)
        guides = queries.guides(session, job_id)
    return SampleList(items=[SampleBody.of(sample, guides[sample.guide]) for sample in rows], next=following)


@router.get(
    "/jobs/{job_id}/samples/{index}/image",
    response_class=Response,
    responses=file_answers("image/png", "The image", SAMPLE),
)
def get_sample_image(job_id: JobId, index: SampleIndex, request: Request, service: ServiceDep) -> Response:
    """A synthetic radiograph: PNG, 512x256."""
    with service.database.read() as session:
        *_, sha256 = made_sample(session, job_id, index)
    return serve(request, service.blobs, Download(keys.sample(job_id, sha256), sha256, "image/png", IMMUTABLE))


@router.get(
    "/jobs/{job_id}/samples/{index}/mask",
    response_class=Response,
    responses=file_answers("image/png", "The mask", SAMPLE),
)
def get_sample_mask(job_id: JobId, index: SampleIndex, request: Request, service: ServiceDep) -> Response:
    """The sample's label, its guide's unless the guide was moved: PNG, 512x256, 0 or 255."""
    with service.database.read() as session:
        _, sample, _ = made_sample(session, job_id, index)  # before that nobody knows where its guide is moved to
        found = label(sample, session.get_one(Guide, (job_id, sample.guide)))
    return serve(request, service.blobs, Download(found.key, found.sha256, "image/png", IMMUTABLE))


@router.get(
    "/jobs/{job_id}/samples/{index}/pool_image",
    response_class=Response,
    responses=file_answers("image/png", "The pool image", SAMPLE | {404: f"{SAMPLE[404]}, or its pool was deleted"}),
)
def get_sample_pool_image(job_id: JobId, index: SampleIndex, request: Request, service: ServiceDep) -> Response:
    """The unlabeled radiograph that the sample was made of, as long as its pool is there: PNG, 512x256."""
    with service.database.read() as session:
        job, sample, _ = made_sample(session, job_id, index)  # before that another may take its pool image's place
    if job.pool_id is None:
        raise Problem(404, "pool-deleted", f"the pool of job {job_id} was deleted; its samples are still there")
    key = keys.pool_image(job.pool_id, sample.pool_image_sha256)
    return serve(request, service.blobs, Download(key, sample.pool_image_sha256, "image/png", IMMUTABLE))


@router.get("/jobs/{job_id}/dataset", response_class=Response, responses=DATASET)
def get_dataset(job_id: JobId, request: Request, service: ServiceDep) -> Response:
    """The zip of images, masks and manifest."""
    with service.database.read() as session:
        job = queries.find_job(session, job_id)
    if job.kind != "synthesis":
        raise Problem(404, "no-dataset", f"job {job_id} is of kind {job.kind}; only synthesis jobs make a dataset")
    if job.dataset_sha256 is None:
        told = f"job {job_id} is {job.status}, its dataset is not there; {prospect(job)}"
        raise Problem(409, "dataset-not-ready", told)
    disposition = keys.dataset_disposition(job_id)
    download = Download(keys.dataset(job_id), job.dataset_sha256, "application/zip", REVALIDATE, disposition)
    answer = redirect if service.settings.presigned_downloads else serve
    return answer(request, service.blobs, download)


def made_sample(session: Session, job_id: str, index: int) -> tuple[Job, Sample, str]:
    """-> (job, sample, sha256 of its image). Raises JobNotFound, SampleNotFound; Problem where there is no image."""
    job = queries.find_job(session, job_id)
    sample = queries.find_sample(session, job, index)
    name = f"sample {sample.position} of job {job.id}"
    if sample.failure is not None:
        raise Problem(404, "sample-failed", f"{name} could not be made: {sample.failure}")
    if sample.dropped is not None:
        raise Problem(404, "sample-dropped", f"{name} was dropped: {sample.dropped}")
    if sample.image_sha256 is None:
        raise Problem(409, "sample-not-made", f"{name}, which is {job.status}, is not made; {prospect(job)}")
    return job, sample, sample.image_sha256


def prospect(job: Job) -> str:
    """Whether what a job has not made is worth waiting for."""
    return f"wait for it, /jobs/{job.id}/events tells" if job.status in WORKABLE else "it never will be"
