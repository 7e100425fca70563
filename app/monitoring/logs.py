"""Logs in plain text or, for a fleet whose logs go to one place, as one JSON object a line."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

_job: ContextVar[str | None] = ContextVar("job", default=None)


@contextmanager
def about(job_id: str) -> Iterator[None]:
    """What is logged in the block names the job."""
    token = _job.set(job_id)
    try:
        yield
    finally:
        _job.reset(token)


class JsonLines(logging.Formatter):
    """Keys: time (RFC 3339, UTC), level, logger, message; job and traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if job_id := _job.get():
            line["job"] = job_id
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def write(log_format: str) -> None:
    """Have this process log in the format, `text` or `json`, that the settings ask for."""
    if log_format == "json":
        write_json()
    else:
        write_text()


def write_text() -> None:
    """Send to standard error what this service and its server log, and of libraries the warnings."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
    for name in ("app", "worker", "uvicorn"):
        logging.getLogger(name).setLevel(logging.INFO)


def write_json() -> None:
    """Send every logger of this process, and Python's warnings, to standard error as JSON lines."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    logging.captureWarnings(True)
