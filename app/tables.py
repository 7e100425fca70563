"""The SQL tables. A job's and a step's status is changed by a verb of `app.jobs` alone, a delivery's by the outbox."""

from datetime import UTC, date, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import TypeDecorator

from app.errors import PoolNotFound


class UtcTime(TypeDecorator[datetime]):
    """A timezone-aware instant, read back in UTC; SQLite drops the zone, so it is put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


# SQLite autoincrements only INTEGER primary keys.
BigId = BigInteger().with_variant(Integer, "sqlite")
Json = JSON(none_as_null=True)  # what is None is NULL, not the JSON null

REJECTED = text("outcome = 'rejected'")
FAILED = text("failure IS NOT NULL")
ACTIVE = ("queued", "running", "cancelling")  # the statuses of a job that has not ended
DEFAULT_TENANT = "default"  # whom everything belongs to where no keys are asked for


class Base(DeclarativeBase):
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcTime,
        float: Double,
        dict[str, Any]: Json,
        list[Any]: Json,
        list[str]: Json,
    }


class Pool(Base):
    __tablename__ = "pools"
    __table_args__ = (UniqueConstraint("tenant", "name"),)
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(63), default=DEFAULT_TENANT, server_default=DEFAULT_TENANT)
    name: Mapped[str] = mapped_column(String(63))
    created_at: Mapped[datetime]


class PoolImage(Base):
    """An unlabeled radiograph; its pixels are the blob `keys.pool_image(pool, sha256)`, 512x256."""

    __tablename__ = "pool_images"
    __table_args__ = (UniqueConstraint("pool_id", "sha256"),)
    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    pool_id: Mapped[str] = mapped_column(ForeignKey("pools.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(255))
    width: Mapped[int]  # as uploaded
    height: Mapped[int]
    sha256: Mapped[str] = mapped_column(String(64))  # of the stored PNG, so of the pixels
    crop: Mapped[dict[str, Any] | None]  # None: the whole frame was asked for
    created_at: Mapped[datetime]


class PoolLatent(Base):
    """Where a pool image's latent lies: in row `row` of an array, blob `keys.latents(pool, model, shard)`."""

    __tablename__ = "pool_latents"
    pool_image_id: Mapped[int] = mapped_column(ForeignKey("pool_images.id", ondelete="CASCADE"), primary_key=True)
    model_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    shard: Mapped[str] = mapped_column(String(64))
    row: Mapped[int]
    low: Mapped[float]  # the latent's smallest and largest value: the pool's SSIM data range is their extremes
    high: Mapped[float]


class Job(Base):
    __tablename__ = "jobs"
    __table_args__ = (
        Index("jobs_by_age", "tenant", "created_at", "id"),
        Index("jobs_by_status", "status"),
        Index("jobs_by_turn", "turn"),
        Index("jobs_by_turn_of_tenant", "tenant", "turn"),
        Index("jobs_by_turn_of_key", "tenant", "api_key", "turn"),
    )
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    # Their defaults are in the schema, too: an API of an earlier version may submit beside those of this one.
    tenant: Mapped[str] = mapped_column(String(63), default=DEFAULT_TENANT, server_default=DEFAULT_TENANT)
    api_key: Mapped[str] = mapped_column(String(12), default="", server_default="")  # the prefix; "": without one
    kind: Mapped[str] = mapped_column(String(16))  # synthesis | pool_import | evaluation
    status: Mapped[str] = mapped_column(String(16))  # queued | running | cancelling | succeeded | failed | cancelled
    stage: Mapped[str | None] = mapped_column(String(16))  # planning | sampling | packaging, training | reporting, None
    parameters: Mapped[dict[str, Any]]
    pool_id: Mapped[str | None] = mapped_column(ForeignKey("pools.id", ondelete="SET NULL"))
    pool_high_water: Mapped[int] = mapped_column(BigInteger, default=0)  # pool images up to this id belong to the job
    done: Mapped[int] = mapped_column(default=0)  # of them `failed`: samples or files with which nothing could be done
    total: Mapped[int] = mapped_column(default=0)
    stored: Mapped[int] = mapped_column(default=0, server_default="0")  # images new to the pool
    failed: Mapped[int] = mapped_column(default=0, server_default="0")
    dropped: Mapped[int] = mapped_column(default=0, server_default="0")  # of the samples done, those left out
    redrawn: Mapped[int] = mapped_column(default=0, server_default="0")  # samples made anew from another pool image
    version: Mapped[int] = mapped_column(default=1)  # grows with every change a client can see: the event id
    turn: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")  # its last, see `leases.fairest`
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    progressed_at: Mapped[datetime | None]  # when `done` last grew, by work
    finished_at: Mapped[datetime | None]
    error: Mapped[dict[str, Any] | None]
    dataset_sha256: Mapped[str | None] = mapped_column(String(64))
    dataset_bytes: Mapped[int | None] = mapped_column(BigInteger)
    webhook: Mapped[str | None] = mapped_column(String(2000))  # the address to tell of the job's end
    delivery: Mapped["Delivery | None"] = relationship(viewonly=True, lazy="raise")

    @property
    def home_id(self) -> str:
        """The pool of a synthesis or an import under way; only when that has ended can it be deleted (`pools.delete`).

        Raises PoolNotFound.
        """
        if self.pool_id is None:
            raise PoolNotFound(f"the pool of job {self.id} is gone")
        return self.pool_id


class Guide(Base):
    """A labeled radiograph of a job: blobs `keys.guide`, 512x256; of one that is yet to be cropped `keys.original`."""

    __tablename__ = "guides"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(255))
    width: Mapped[int]  # as uploaded
    height: Mapped[int]
    image_sha256: Mapped[str] = mapped_column(String(64))
    mask_sha256: Mapped[str] = mapped_column(String(64))
    crop: Mapped[dict[str, Any] | None]  # None: the whole frame was asked for


class EvaluationImage(Base):
    """A labeled radiograph that an evaluation tests on; blobs as a guide's. Its labeled real ones are guides."""

    __tablename__ = "test_images"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(255))
    image_sha256: Mapped[str] = mapped_column(String(64))
    mask_sha256: Mapped[str] = mapped_column(String(64))


class Report(Base):
    """A form of an evaluation's report: blob `keys.report(job, format)`."""

    __tablename__ = "reports"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    format: Mapped[str] = mapped_column(String(8), primary_key=True)  # json | csv | md | png
    sha256: Mapped[str] = mapped_column(String(64))


class Upload(Base):
    """A file of a pool import, as it came: blob `keys.upload(job, position)`, removed once read."""

    __tablename__ = "uploads"
    __table_args__ = (
        Index("uploads_rejected", "job_id", "position", sqlite_where=REJECTED, postgresql_where=REJECTED),
    )
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(255))
    outcome: Mapped[str | None] = mapped_column(String(16))  # stored | duplicate | rejected; None: not read yet
    detail: Mapped[str | None] = mapped_column(Text)


class Sample(Base):
    """One synthetic pair, to make or made; image: blob `keys.sample(job, sha256)`, mask: `labels.label`."""

    __tablename__ = "samples"
    __table_args__ = (
        Index("samples_failed", "job_id", "position", sqlite_where=FAILED, postgresql_where=FAILED),
        Index("samples_by_image", "image_sha256"),
        Index("samples_by_mask", "mask_sha256"),
    )
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    guide: Mapped[int]  # the guide's position
    pool_image_id: Mapped[int] = mapped_column(BigInteger)  # no foreign key: an ended job outlives its pool
    pool_image_name: Mapped[str] = mapped_column(String(255))
    pool_image_sha256: Mapped[str] = mapped_column(String(64))
    rank: Mapped[int]  # 1 is the most similar, or the first drawn
    ssim: Mapped[float]
    seed: Mapped[int] = mapped_column(BigInteger)
    image_sha256: Mapped[str | None] = mapped_column(String(64))  # None: not made yet, or dropped
    mask_sha256: Mapped[str | None] = mapped_column(String(64))  # None: the guide was not moved, its mask is the label
    failure: Mapped[str | None] = mapped_column(Text)  # why it never will be
    quality: Mapped[dict[str, Any] | None]
    spares: Mapped[list[Any] | None]  # pool images to redraw from, best first
    redraws: Mapped[int] = mapped_column(default=0, server_default="0")
    dropped: Mapped[str | None] = mapped_column(Text)  # why it is left out of the dataset


class Step(Base):
    """A piece of a job, 10 to 30 s of work, that one worker does; done twice it gives the same result."""

    __tablename__ = "steps"
    __table_args__ = (
        UniqueConstraint("job_id", "kind", "position"),
        Index("steps_to_do", "status", "leased_until"),
    )
    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(16))  # unpack, import | index, plan, sample, package | arm, report
    position: Mapped[int]
    first: Mapped[int] = mapped_column(default=0)  # the rows (uploads, guides, samples) first <= position < last
    last: Mapped[int] = mapped_column(default=0)
    status: Mapped[str] = mapped_column(String(16))  # ready | leased | done
    attempts: Mapped[int] = mapped_column(default=0)  # leases given since the step last made progress
    leased_until: Mapped[datetime | None]
    lease: Mapped[str | None] = mapped_column(String(32))  # random: only its holder may finish the step
    worker: Mapped[str | None] = mapped_column(String(128))  # who holds the lease


class Worker(Base):
    """A worker's sign of life, written every few seconds."""

    __tablename__ = "workers"
    id: Mapped[str] = mapped_column(String(128), primary_key=True)
    device: Mapped[str] = mapped_column(String(64))
    models: Mapped[list[str]]  # names of the weights it holds in memory
    seen_at: Mapped[datetime]
    figures: Mapped[dict[str, Any] | None]  # see `app.monitoring.figures`


class Delivery(Base):
    """The webhook of a job that asked for one, due when the job has ended: a row of the outbox."""

    __tablename__ = "deliveries"
    __table_args__ = (Index("deliveries_due", "status", "due_at"),)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    status: Mapped[str] = mapped_column(String(16))  # pending | delivered | given_up
    attempts: Mapped[int] = mapped_column(default=0)  # begun so far; only the one of this number may change the row
    due_at: Mapped[datetime]  # not before this and not before the job's end
    last_error: Mapped[str | None] = mapped_column(Text)


class IdempotencyKey(Base):
    __tablename__ = "idempotency_keys"
    tenant: Mapped[str] = mapped_column(String(63), primary_key=True, server_default=DEFAULT_TENANT)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))  # sha256 of the request's content
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime]


class ApiKey(Base):
    """Who may come in. Of the key itself only a keyed hash is kept."""

    __tablename__ = "api_keys"
    prefix: Mapped[str] = mapped_column(String(12), primary_key=True)  # public: the key is found and named by it
    digest: Mapped[str] = mapped_column(String(64))  # HMAC-SHA256 of the whole key
    name: Mapped[str] = mapped_column(String(63))
    tenant: Mapped[str] = mapped_column(String(63))
    scopes: Mapped[list[str]]  # read | submit | admin
    max_queued_jobs: Mapped[int | None]  # this and the next two: None is no limit of the key's own
    max_bytes_per_day: Mapped[int | None] = mapped_column(BigInteger)
    max_samples_per_day: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]  # to the minute


class KeyUsage(Base):
    """What a key has used up on a day, UTC; jobs deleted since count as well."""

    __tablename__ = "key_usage"
    prefix: Mapped[str] = mapped_column(ForeignKey("api_keys.prefix", ondelete="CASCADE"), primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    bytes: Mapped[int] = mapped_column(BigInteger)  # of uploads, whole bodies
    samples: Mapped[int] = mapped_column(BigInteger)


class AuditEntry(Base):
    """Who did what, and how it ended. Ids and pool names; no file names, parameters or contents."""

    __tablename__ = "audit"
    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(index=True)
    api_key: Mapped[str] = mapped_column(String(12))  # the prefix; "": the command line
    tenant: Mapped[str] = mapped_column(String(63))
    action: Mapped[str] = mapped_column(String(255))  # the method and the route, or the command
    object: Mapped[str] = mapped_column(String(255))  # what it was done to; "": nothing in particular
    status: Mapped[int]  # of HTTP
