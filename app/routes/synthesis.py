"""POST /synthesize: verify, normalise, store, submit, commit, wake."""

from functools import partial
from typing import Any

from anyio import to_thread
from fastapi import Request, Response
from sqlalchemy.orm import Session

from app import jobs, pools, queries
from app.access.limits import wrong_top_k
from app.errors import PoolNotFound
from app.openapi import ACCEPTED
from app.presets import PRESETS, Preset
from app.problems import FieldError, invalid, shown
from app.regions import CROP
from app.routes.accepted import put_images, take_in, upload_allowance
from app.routes.parameters import IdempotencyKey
from app.routes.router import Router
from app.schemas import JobBody
from app.service import Service, ServiceDep
from app.uploads.forms import openapi_body
from app.uploads.guides import fingerprint, read_guides
from app.uploads.multipart import read_form
from app.uploads.synthesis_form import parse_synthesis, synthesis_schema
from app.weights import list_weights

router = Router(tags=["synthesis"])


@router.get("/presets")
def list_presets() -> dict[str, Preset]:
    """What each preset sets where a client does not."""
    return PRESETS


@router.post(
    "/synthesize",
    status_code=202,
    response_model=JobBody,
    openapi_extra=openapi_body(synthesis_schema()),
    responses=ACCEPTED,
)
async def synthesize(request: Request, service: ServiceDep, idempotency_key: IdempotencyKey) -> Response:
    """Submit labeled radiographs; the job makes `top_k` synthetic ones from each."""
    allowance = await to_thread.run_sync(upload_allowance, service, idempotency_key)
    async with read_form(request, allowance) as form:
        parameters, webhook = parse_synthesis(form, service.settings.webhook_hosts)
        await to_thread.run_sync(check_named, service, parameters, len(form.files["image"]), idempotency_key)
        full_size = parameters["region"] == CROP
        guides = await read_guides(form, service.decoders, service.turns, service.caller.tenant, full_size)
        parameters["guides"] = [guide.row.name for guide in guides]
        known = (idempotency_key, fingerprint(parameters, guides, webhook)) if idempotency_key else None
        put = partial(put_images, service, guides)
        submit = partial(jobs.submit_synthesis, guides=[guide.row for guide in guides], parameters=parameters)
        return await to_thread.run_sync(
            take_in, service, put, form.size, webhook, known, submit, limiter=service.taking_in_threads
        )


def check_named(service: Service, parameters: dict[str, Any], guides: int, idempotency_key: str | None) -> None:
    """The pool and the model exist, pool and key are large enough; raises Problem 422 naming what is not so.

    `jobs.submit_synthesis` has the last word on the pool; this spares the client one error after the other.
    """
    with service.database.read() as session:
        if queries.is_repeated(session, idempotency_key):
            return  # the first request was accepted; what has become of its pool does not matter
        wrong = wrong_pool(session, parameters["pool"], parameters["top_k"])
    wrong += wrong_top_k(service.caller, parameters["top_k"], guides) + wrong_model(service, parameters)
    if wrong:
        raise invalid(wrong)


def wrong_pool(session: Session, name: str, top_k: int) -> list[FieldError]:
    try:
        pool = pools.find(session, name)
    except PoolNotFound as error:
        return [FieldError("pool", str(error))]
    count = pools.image_counts(session, [pool])[pool.id]
    if count == 0:
        remedy = f"add images (`pansynth pool import {name}`, POST /pools/{name}/images), or wait for their import"
        return [FieldError("pool", f"{name!r} is empty; {remedy}")]
    if top_k > count:
        there = "1 image; choose 1" if count == 1 else f"{count} images; choose 1 to {min(count, 1000)}"
        return [FieldError("top_k", f"is {top_k}, but pool {name!r} has {there}")]
    return []


def wrong_model(service: Service, parameters: dict[str, Any]) -> list[FieldError]:
    available = list_weights(service.settings)
    name = parameters["model"]
    if name not in available:
        names = ", ".join(sorted(available)) or "none"
        return [FieldError("model", f"there is no model {shown(name)!r}; available: {names}")]
    if not available[name].has_denoiser:
        detail = f"model {name!r} has no denoiser yet; train it with `pansynth train denoiser`"
        return [FieldError("model", detail)]
    if "min_training_distance" in parameters and not available[name].knows_training_images:
        detail = (
            f"model {name!r} does not know its training images; leave the threshold out, or train the denoiser again, "
            "which keeps them"
        )
        return [FieldError("min_training_distance", detail)]
    return []
