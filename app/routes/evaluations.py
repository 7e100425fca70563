"""POST /evaluations, and the report that comes of it."""

from functools import partial

from anyio import to_thread
from fastapi import Request, Response

from app import evaluations, keys, queries
from app.downloads import REVALIDATE, Download, serve
from app.openapi import ACCEPTED, file_answers
from app.problems import Problem
from app.routes.accepted import put_images, take_in, upload_allowance
from app.routes.jobs import prospect
from app.routes.parameters import IdempotencyKey, JobId
from app.routes.router import Router
from app.schemas import JobBody
from app.service import Service, ServiceDep
from app.uploads.evaluation_form import evaluation_schema, parse_evaluation, read_set
from app.uploads.forms import openapi_body
from app.uploads.guides import fingerprint
from app.uploads.multipart import read_form

router = Router(tags=["evaluations"])

REFUSALS = {404: "There is no such job, or it is not an evaluation", 409: "The evaluation has not succeeded"}


@router.post(
    "/evaluations",
    status_code=202,
    response_model=JobBody,
    openapi_extra=openapi_body(evaluation_schema()),
    responses=ACCEPTED,
)
async def evaluate(request: Request, service: ServiceDep, idempotency_key: IdempotencyKey) -> Response:
    """Train a segmenter on real, synthetic and real+synthetic images, and compare them on a test set."""
    allowance = await to_thread.run_sync(upload_allowance, service, idempotency_key)
    async with read_form(request, allowance) as form:
        parameters, webhook = parse_evaluation(form, service.settings.webhook_hosts)
        await to_thread.run_sync(check_named, service, parameters["synthesis"], idempotency_key)
        real = await read_set(form, "real", service.decoders, service.turns, service.caller.tenant)
        test = await read_set(form, "test", service.decoders, service.turns, service.caller.tenant)
        parameters |= {"real_images": len(real), "test_images": len(test)}
        known = (idempotency_key, fingerprint(parameters, [*real, *test], webhook)) if idempotency_key else None
        put = partial(put_images, service, [*real, *test])
        real_rows, test_rows = ([image.row for image in images] for images in (real, test))
        submit = partial(evaluations.submit_evaluation, real=real_rows, test=test_rows, parameters=parameters)
        return await to_thread.run_sync(
            take_in, service, put, form.size, webhook, known, submit, limiter=service.taking_in_threads
        )


def check_named(service: Service, syntheses: list[str], idempotency_key: str | None) -> None:
    """The syntheses can be evaluated; raises NotFinished, CroppedGuides.

    `evaluations.submit_evaluation` has the last word; this spares the client the time that its images take to read.
    """
    with service.database.read() as session:
        if not queries.is_repeated(session, idempotency_key):  # else the first request was accepted
            evaluations.finished(session, syntheses)


@router.get(
    "/jobs/{job_id}/report", response_class=Response, responses=file_answers("application/json", "The report", REFUSALS)
)
def get_report(job_id: JobId, request: Request, service: ServiceDep) -> Response:
    """An evaluation's figures: every arm's mean and sd, and its difference to `real`. 409 until it succeeded."""
    return report(job_id, "json", request, service)


@router.get(
    "/jobs/{job_id}/report.csv", response_class=Response, responses=file_answers("text/csv", "The figures", REFUSALS)
)
def get_report_csv(job_id: JobId, request: Request, service: ServiceDep) -> Response:
    """The figures of every test image, arm and seed."""
    return report(job_id, "csv", request, service)


@router.get(
    "/jobs/{job_id}/report.md", response_class=Response, responses=file_answers("text/markdown", "The table", REFUSALS)
)
def get_report_markdown(job_id: JobId, request: Request, service: ServiceDep) -> Response:
    """The table, in the paper's form."""
    return report(job_id, "md", request, service)


@router.get(
    "/jobs/{job_id}/report.png", response_class=Response, responses=file_answers("image/png", "The plot", REFUSALS)
)
def get_report_plot(job_id: JobId, request: Request, service: ServiceDep) -> Response:
    """The plot."""
    return report(job_id, "png", request, service)


def report(job_id: str, form: str, request: Request, service: Service) -> Response:
    with service.database.read() as session:
        job = queries.find_job(session, job_id)
        sha256 = queries.report_sha256(session, job_id, form)
    if job.kind != "evaluation":
        raise Problem(404, "no-report", f"job {job_id} is of kind {job.kind}; only evaluation jobs make a report")
    if sha256 is None:
        told = f"job {job_id} is {job.status}, its report is not there; {prospect(job)}"
        raise Problem(409, "report-not-ready", told)
    return serve(
        request, service.blobs, Download(keys.report(job_id, form), sha256, evaluations.FORMATS[form], REVALIDATE)
    )
