"""What is left when a fault is over, its job deleted and the janitor has been."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import func, select

from app import database
from app.blobs import Blobs
from app.janitor import tidy
from app.settings import Settings
from app.tables import Guide, Job, Sample, Step, Upload
from worker.cache import remove_unused

LATER = timedelta(days=2)  # by then nothing that the trial wrote can be under way


def tidied(settings: Settings) -> set[str]:
    """The blobs there are after the janitor's next round but one."""
    db, blobs = database.connect(settings.database()), Blobs(settings.blobs())
    try:
        tidy(db, blobs, None, datetime.now(UTC) + LATER)
        remove_unused(settings.data_dir / "cache", (datetime.now(UTC) + LATER).timestamp())
        return set(blobs.list())
    finally:
        db.dispose()


def left_over(settings: Settings, expected: set[str]) -> list[str]:
    """In words: rows without a job, blobs that were not there before, files not finished."""
    found = [f"blob {key}" for key in tidied(settings) - expected]
    found += [f"lost blob {key}" for key in expected - tidied(settings)]
    db = database.connect(settings.database())
    with db.read() as session:
        for table in (Job, Guide, Upload, Sample, Step):
            if count := session.scalar(select(func.count()).select_from(table)):
                found.append(f"{count} rows in {table.__tablename__}")
    db.dispose()
    return found + [f"file {path.name}" for path in _unfinished(settings.data_dir)]


def _unfinished(data_dir: Path) -> Iterator[Path]:
    yield from (path for path in (data_dir / "blobs").rglob("*#*"))
    yield from (data_dir / "cache").glob("tmp*")
    yield from (data_dir / "cache").glob("latents/*/.*")
