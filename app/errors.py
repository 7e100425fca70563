"""What can go wrong with pools and jobs, in words for the user; turned into HTTP in one place of the API."""

RETRY_SECONDS = 5  # after which a part of the service that is away may be back


class PansynthError(Exception):
    """Base of the errors here; `str(error)` names the value and the remedy."""

    retry_seconds: int | None = None  # after which the same may be possible


class JobNotFound(PansynthError):
    def __init__(self, job_id: str) -> None:
        super().__init__(f"there is no job {job_id[:80]!r}; GET /jobs lists them")


class JobRunning(PansynthError):
    """The job has not ended, so it cannot be deleted."""


class JobInUse(PansynthError):
    """An evaluation that has not ended trains on the job's samples."""


class JobEnded(PansynthError):
    """The job has ended, so it cannot be cancelled."""


class PoolNotFound(PansynthError): ...


class PoolExists(PansynthError): ...


class PoolInUse(PansynthError):
    """A job that has not ended needs the pool."""


class PoolTooSmall(PansynthError):
    """top_k exceeds the pool's images (or the pool is empty)."""


class ImageNotFound(PansynthError): ...


class SampleNotFound(PansynthError): ...


class NotFinished(PansynthError):
    """An evaluation names a synthesis that has not succeeded, or another kind of job."""


class CroppedGuides(PansynthError):
    """An evaluation names a synthesis whose guides are not the images that it compares."""


class LeakingTestImage(PansynthError):
    """An evaluation's test image was used to make or to train what is tested."""


class QueueFull(PansynthError):
    """Too many jobs wait or run already."""

    retry_seconds = 30


class LimitReached(PansynthError):
    """A limit of the caller's own key."""

    def __init__(self, words: str, retry_seconds: int = 30) -> None:
        super().__init__(words)
        self.retry_seconds = retry_seconds


class IdempotencyConflict(PansynthError):
    """The Idempotency-Key was used before with other content."""


class BadCursor(PansynthError):
    """A list's cursor that this service did not give out."""

    def __init__(self, cursor: str) -> None:
        super().__init__(f"cursor {cursor!r} is not one of this list's; take `next` of the page before, unchanged")


class DecoderAway(PansynthError):
    """The process that decodes uploads cannot be started."""

    retry_seconds = RETRY_SECONDS


class BlobMissing(PansynthError):
    """The store holds no such blob."""


class BlobDamaged(PansynthError):
    """The store gave other bytes than were written: cut short on the way, or changed."""


class LeaseLost(PansynthError):
    """The step is no longer the caller's, or its job ended or is being cancelled. Stop, write nothing."""


class LastingError(PansynthError):
    """A step cannot succeed however often it is tried: its job fails with these words."""

    status = 500  # of the job's `error`


class UnusableInput(LastingError):
    """What the client sent is at fault, and only a worker can see that."""

    status = 422  # as at the door
