"""What is left when a fault is over, its job deleted and the janitor has been."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import func, select

from app import database
from app.blobs import Blobs
from app.janitor import tidy
from app.settings import Settings
from app.tables import Delivery, EvaluationImage, Guide, Job, Pool, PoolImage, PoolLatent, Report, Sample, Step, Upload
from worker.cache import remove_unused

LATER = timedelta(days=2)  # by then nothing that the trial wrote can be under way
TABLES = (Delivery, EvaluationImage, Guide, Job, Pool, PoolImage, PoolLatent, Report, Sample, Step, Upload)


@dataclass(frozen=True)
class Kept:
    """The blobs there are, and how many rows a table has."""

    blobs: frozenset[str]
    rows: dict[str, int]


def tidied(settings: Settings) -> Kept:
    """What there is after the janitor's next round but one."""
    db, blobs = database.connect(settings.database()), Blobs(settings.blobs())
    try:
        tidy(db, blobs, None, datetime.now(UTC) + LATER)
        remove_unused(settings.data_dir / "cache", (datetime.now(UTC) + LATER).timestamp())
        with db.read() as session:
            rows = {t.__tablename__: session.scalar(select(func.count()).select_from(t)) or 0 for t in TABLES}
        return Kept(frozenset(blobs.list()), rows)
    finally:
        db.dispose()


def left_over(settings: Settings, before: Kept) -> list[str]:
    """In words: rows and blobs that were not there before, or are no longer, and files not finished."""
    now = tidied(settings)
    found = [f"blob {key}" for key in sorted(now.blobs - before.blobs)]
    found += [f"lost blob {key}" for key in sorted(before.blobs - now.blobs)]
    found += [
        f"{now.rows[name] - count:+d} rows in {name}" for name, count in before.rows.items() if now.rows[name] != count
    ]
    return found + [f"file {path.name}" for path in _unfinished(settings.data_dir)]


def _unfinished(data_dir: Path) -> Iterator[Path]:
    yield from (path for path in (data_dir / "blobs").rglob("*#*"))
    yield from (data_dir / "cache").glob("tmp*")
    yield from (data_dir / "cache").glob("latents/*/.*")
