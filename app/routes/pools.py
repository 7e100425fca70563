"""Pools: named sets of unlabeled images."""

import hashlib
import json
import zipfile
from collections.abc import Sequence
from functools import partial

from anyio import to_thread
from fastapi import Request, Response

from app import imports, janitor, keys, pools, queries
from app.downloads import REVALIDATE, Download, serve
from app.openapi import ACCEPTED, Responses, file_answers, header, problems
from app.problems import FieldError, invalid
from app.routes.accepted import take_in, upload_allowance
from app.routes.parameters import IdempotencyKey, ImageId, PageOf, PoolName
from app.routes.router import Router
from app.schemas import JobBody, PoolBody, PoolImageBody, PoolImageList, PoolList, PoolRequest
from app.service import Service, ServiceDep
from app.uploads.forms import openapi_body
from app.uploads.import_form import ImportForm, import_schema, parse_import
from app.uploads.multipart import Form, UploadedFile, read_form

router = Router(tags=["pools"])

NO_POOL = problems({404: "There is no such pool"})
CREATED: Responses = {201: {"description": "The pool", "headers": {"Location": header("the pool's address")}}}


@router.post("/pools", status_code=201, responses=CREATED | problems({409: "There is a pool of this name"}))
def create_pool(request: PoolRequest, service: ServiceDep, response: Response) -> PoolBody:
    """Make an empty pool."""
    with service.database.write() as session:
        pool = pools.create(session, request.name)
    response.headers["Location"] = f"/pools/{pool.name}"
    return PoolBody.of(pool, 0)


@router.get("/pools")
def list_pools(service: ServiceDep, page: PageOf) -> PoolList:
    """The pools by name."""
    with service.database.read() as session:
        rows, following = pools.list_(session, limit=page.limit, cursor=page.cursor)
        counts = pools.image_counts(session, rows)
    return PoolList(items=[PoolBody.of(pool, counts[pool.id]) for pool in rows], next=following)


@router.get("/pools/{name}", responses=NO_POOL)
def get_pool(name: PoolName, service: ServiceDep) -> PoolBody:
    """One pool."""
    with service.database.read() as session:
        pool = pools.find(session, name)
        return PoolBody.of(pool, pools.image_counts(session, [pool])[pool.id])


@router.delete(
    "/pools/{name}",
    status_code=204,
    response_class=Response,
    responses=NO_POOL | problems({409: "A job that has not ended uses it"}),
)
def delete_pool(name: PoolName, service: ServiceDep) -> None:
    """Remove a pool and its images; the datasets made from it stay."""
    with service.database.write() as session:
        prefix = pools.delete(session, name)
    janitor.remove_now(service.blobs, prefix)


@router.get("/pools/{name}/images", responses=NO_POOL)
def list_pool_images(name: PoolName, service: ServiceDep, page: PageOf) -> PoolImageList:
    """A pool's images in the order they came."""
    with service.database.read() as session:
        rows, following = pools.images(session, name, limit=page.limit, cursor=page.cursor)
    return PoolImageList(items=[PoolImageBody.of(image, name) for image in rows], next=following)


@router.get(
    "/pools/{name}/images/{image_id}",
    response_class=Response,
    responses=file_answers("image/png", "The image", {404: "There is no such pool or image"}),
)
def get_pool_image(name: PoolName, image_id: ImageId, request: Request, service: ServiceDep) -> Response:
    """The image as it is used: PNG, 512x256."""
    with service.database.read() as session:
        image = pools.find_image(session, name, image_id)
    key = keys.pool_image(image.pool_id, image.sha256)
    return serve(request, service.blobs, Download(key, image.sha256, "image/png", REVALIDATE))


@router.post(
    "/pools/{name}/images",
    status_code=202,
    response_model=JobBody,
    openapi_extra=openapi_body(import_schema()),
    responses=ACCEPTED | NO_POOL,
)
async def import_images(
    name: PoolName, request: Request, service: ServiceDep, idempotency_key: IdempotencyKey
) -> Response:
    """Add images, each in a field `images`, or one zip in `archive`. The job reports bad files one by one."""
    await to_thread.run_sync(require_pool, service, name, idempotency_key)
    allowance = await to_thread.run_sync(upload_allowance, service, idempotency_key)
    async with read_form(request, allowance) as form:
        given = parse_import(form, service.settings.webhook_hosts)
        return await to_thread.run_sync(
            take_in_files, service, name, form, given, idempotency_key, limiter=service.taking_in_threads
        )


def require_pool(service: Service, name: str, idempotency_key: str | None) -> None:
    """Raises PoolNotFound. What has become of the pool of a request that is sent again does not matter."""
    with service.database.read() as session:
        if not queries.is_repeated(session, idempotency_key):
            pools.find(session, name)


def take_in_files(service: Service, name: str, form: Form, given: ImportForm, idempotency_key: str | None) -> Response:
    files, archives = form.files.get("images", []), form.files.get("archive", [])
    sent = [*files, *archives]
    known = (idempotency_key, fingerprint(name, given, sent, archive=bool(archives))) if idempotency_key else None
    put = partial(put_uploads, service, files, archives)
    names = [file.name for file in files]
    submit = partial(imports.submit_import, pool=name, names=names, archive=bool(archives), region=given.region)
    return take_in(service, put, form.size, given.webhook, known, submit)


def put_uploads(service: Service, files: Sequence[UploadedFile], archives: Sequence[UploadedFile], job_id: str) -> None:
    for position, file in enumerate(files):
        with file.open() as content:
            service.blobs.put_file(keys.upload(job_id, position), content)
    for archive in archives:
        with archive.open() as content:
            if not zipfile.is_zipfile(content):
                told = f"{archive.name!r} is not a zip file, or was cut short; send a whole zip of images"
                raise invalid([FieldError("archive", told)])
            content.seek(0)
            service.blobs.put_file(keys.archive(job_id), content)


def fingerprint(pool: str, given: ImportForm, files: Sequence[UploadedFile], archive: bool) -> str:
    """sha256 of a request's meaning: the same files under the same names, to be done the same with."""
    content = [pool, given.region, given.webhook, [[file.name, file.size] for file in files]]
    content += ["archive"] if archive else []  # a zip among the images is another matter
    digest = hashlib.sha256(json.dumps(content).encode())
    for file in files:
        for piece in file:
            digest.update(piece)
    return digest.hexdigest()
