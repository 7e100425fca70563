"""Pools: named sets of unlabeled images. Images come in by a job of kind `pool_import` (see `app.imports`)."""

import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import asdict
from uuid import uuid4

from sqlalchemy import Select, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app import keys
from app.access.tenants import NAME, tenant_of
from app.database import clock, insert_new
from app.errors import ImageNotFound, PoolExists, PoolInUse, PoolNotFound
from app.queries import number_of, page
from app.records import NewLatent
from app.tables import ACTIVE, Job, Pool, PoolImage, PoolLatent

DEFAULT_POOL = "default"


def create(session: Session, name: str) -> Pool:
    """Make an empty pool. Raises PoolExists. The name's form is the caller's to check."""
    pool = Pool(id=uuid4().hex, tenant=tenant_of(session), name=name, created_at=clock(session))
    try:
        with session.begin_nested():
            session.add(pool)
    except IntegrityError as error:
        raise PoolExists(f"there is a pool {name!r} already; choose another name or use that pool") from error
    return pool


def create_first(session: Session) -> None:
    """Make the pool that a request means which names none, unless the tenant has a pool already."""
    if not list_(session, limit=1)[0]:
        with suppress(PoolExists):  # another process was faster
            create(session, DEFAULT_POOL)


def find(session: Session, name: str) -> Pool:
    """Raises PoolNotFound."""
    return _one(session, name, select(Pool))


def lock(session: Session, name: str, *, shared: bool) -> Pool:
    """The pool, which nobody deletes until the transaction ends, or locks unless both share it. Raises PoolNotFound."""
    return _one(session, name, select(Pool).with_for_update(read=shared))


def list_(session: Session, *, limit: int = 100, cursor: str | None = None) -> tuple[Sequence[Pool], str | None]:
    """Pools by name, at most `limit`, after `cursor` -> (pools, cursor of the next page or None)."""
    query = select(Pool).where(Pool.tenant == tenant_of(session)).order_by(Pool.name)
    if cursor:
        query = query.where(Pool.name > cursor)
    return page(session, query, limit, lambda pool: pool.name)


def image_counts(session: Session, pools: Sequence[Pool]) -> dict[str, int]:
    """Pool id -> number of its images, for every pool given."""
    query = (
        select(PoolImage.pool_id, func.count())
        .where(PoolImage.pool_id.in_([pool.id for pool in pools]))
        .group_by(PoolImage.pool_id)
    )
    counts = {pool_id: count for pool_id, count in session.execute(query)}
    return {pool.id: counts.get(pool.id, 0) for pool in pools}


def images(
    session: Session, name: str, *, limit: int = 100, cursor: str | None = None
) -> tuple[Sequence[PoolImage], str | None]:
    """A pool's images as they came -> (images, next cursor or None). Raises PoolNotFound, BadCursor."""
    pool = find(session, name)
    query = select(PoolImage).where(PoolImage.pool_id == pool.id).order_by(PoolImage.id)
    if cursor:
        query = query.where(PoolImage.id > number_of(cursor))
    return page(session, query, limit, lambda image: image.id)


def find_image(session: Session, name: str, image_id: int) -> PoolImage:
    """Raises PoolNotFound, ImageNotFound."""
    pool = find(session, name)
    image = session.get(PoolImage, image_id) if 0 < image_id < 1 << 63 else None
    if image is None or image.pool_id != pool.id:
        raise ImageNotFound(f"pool {name!r} has no image {image_id}; GET /pools/{name}/images lists them")
    return image


def known(session: Session, pool_id: str, sha256s: Collection[str]) -> set[str]:
    """Those of the images that the pool has."""
    query = select(PoolImage.sha256).where(PoolImage.pool_id == pool_id, PoolImage.sha256.in_(sha256s))
    return set(session.scalars(query))


def keep_latents(session: Session, pool_id: str, latents: Sequence[NewLatent]) -> None:
    places = {place.pop("sha256"): place for place in map(asdict, latents)}
    images = select(PoolImage.id, PoolImage.sha256).where(PoolImage.pool_id == pool_id, PoolImage.sha256.in_(places))
    found = session.execute(images.order_by(PoolImage.id)).all()  # one order: no deadlock
    insert_new(session, PoolLatent, [{"pool_image_id": image_id, **places[sha256]} for image_id, sha256 in found])


def delete(session: Session, name: str) -> str:
    """Delete a pool and its images; ended jobs keep their samples.

    Returns the prefix of its blobs, to delete after the commit. Raises PoolNotFound; PoolInUse while a job
    needs it that has not ended.
    """
    pool = lock(session, name, shared=False)
    busy = session.scalars(select(Job.id).where(Job.pool_id == pool.id, Job.status.in_(ACTIVE)).limit(3)).all()
    if busy:
        raise PoolInUse(f"pool {name!r} is used by job {', '.join(busy)}; wait for the end of each or cancel it")
    session.delete(pool)
    return keys.of_pool(pool.id)


def _one(session: Session, name: str, query: Select[Pool]) -> Pool:
    """Of all that the query finds. What cannot be a name is nobody's, and never reaches the database."""
    named = query.where(Pool.tenant == tenant_of(session), Pool.name == name)
    pool = session.scalar(named) if re.fullmatch(NAME, name) else None
    if pool is None:
        remedy = "choose one of GET /pools, or make it with `pansynth pool import` or POST /pools"
        raise PoolNotFound(f"there is no pool {name[:80]!r}; {remedy}")
    return pool
