"""A job's samples, read from the database a page at a time: memory does not grow with the dataset."""

from collections.abc import Iterator, Sequence

from sqlalchemy import func, select

from app import queries
from app.database import Database
from app.errors import LastingError
from app.tables import Job, Sample

PAGE = 500


class MadeSamples:
    """The samples of a job by position, 0 <= position < len; walked through as often as one likes."""

    def __init__(self, database: Database, job: Job) -> None:
        """Raises LastingError unless all are made."""
        self._database = database
        self._job_id = job.id
        query = select(func.count()).where(Sample.job_id == job.id, Sample.image_sha256.is_not(None))
        with database.read() as session:
            self._count = session.scalar(query) or 0
        if self._count != job.total:
            raise LastingError(f"{self._count} of {job.total} samples are there; submit the job again")

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, position: int) -> Sample:
        with self._database.read() as session:
            return queries.find_sample(session, self._job_id, position)

    def __iter__(self) -> Iterator[Sample]:
        for first in range(0, self._count, PAGE):
            yield from self._page(first)

    def _page(self, first: int) -> Sequence[Sample]:
        query = select(Sample).where(
            Sample.job_id == self._job_id, Sample.position >= first, Sample.position < first + PAGE
        )
        with self._database.read() as session:
            return session.scalars(query.order_by(Sample.position)).all()
