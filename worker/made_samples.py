"""A job's samples, read from the database a page at a time: memory does not grow with the dataset."""

from collections.abc import Callable, Iterator, Sequence

from sqlalchemy import func, or_, select

from app import queries
from app.database import Database
from app.errors import LastingError
from app.tables import Job, Sample

PAGE = 500


class MadeSamples:
    """The samples of a job that are in its dataset, in order of position, numbered without gaps: 0 <= n < len.

    May be iterated over any number of times.
    """

    def __init__(self, database: Database, job: Job, before_page: Callable[[], None]) -> None:
        """before_page: may stop an iteration by raising; over a million samples one takes minutes.

        Raises LastingError unless every sample is made, was dropped, or could not be made.
        """
        self._database = database
        self._before_page = before_page
        self._made = queries.made(job.id)
        outcomes = (Sample.image_sha256, Sample.dropped, Sample.failure)
        settled = or_(*(outcome.is_not(None) for outcome in outcomes))
        with database.read() as session:
            done = session.scalar(select(func.count()).where(Sample.job_id == job.id, settled)) or 0
            self._count = session.scalar(select(func.count()).select_from(self._made.order_by(None).subquery())) or 0
        if done != job.total:
            raise LastingError(f"{done} of {job.total} samples are there; submit the job again")

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Sample:
        with self._database.read() as session:
            return session.scalars(self._made.offset(number).limit(1)).one()

    def __iter__(self) -> Iterator[Sample]:
        for page in self.pages():
            yield from page

    def pages(self) -> Iterator[Sequence[Sample]]:
        last = -1
        while page := self._page(last):
            yield page
            last = page[-1].position

    def _page(self, last: int) -> Sequence[Sample]:
        self._before_page()
        with self._database.read() as session:
            return session.scalars(self._made.where(Sample.position > last).limit(PAGE)).all()
