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
    """Have this process log to standard error, in the format that the settings ask for.

    json: what every logger says, and Python's warnings. text: what this service and its server log, and of libraries
    the warnings.
    """
    if log_format == "json":
        handler = logging.StreamHandler()
        handler.setFormatter(JsonLines())
        logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
        logging.captureWarnings(True)
        return
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
    for name in ("app", "worker", "uvicorn"):
        logging.getLogger(name).setLevel(logging.INFO)
