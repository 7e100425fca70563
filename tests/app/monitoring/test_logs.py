"""app/monitoring/logs.py: a line is an object, and says which job it is about."""

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

from app.monitoring.logs import JsonLines, about


def lines_of(*messages: str) -> list[dict[str, str]]:
    formatter = JsonLines()
    return [json.loads(formatter.format(record_of(message))) for message in messages]


def record_of(message: str) -> logging.LogRecord:
    return logging.LogRecord("app.sweeper", logging.WARNING, __file__, 1, message, None, None)


def test_a_line_is_one_object() -> None:
    (line,) = lines_of("two\nlines, „quoted“")
    assert "\n" not in JsonLines().format(record_of("two\nlines"))
    assert (line["level"], line["logger"], line["message"]) == ("warning", "app.sweeper", "two\nlines, „quoted“")
    assert line["time"].endswith("+00:00")
    assert "job" not in line


def test_what_is_logged_while_a_job_is_worked_at_names_it() -> None:
    with about("1f"):
        assert lines_of("in")[0]["job"] == "1f"
    assert "job" not in lines_of("after")[0]


def test_a_traceback_is_part_of_its_line() -> None:
    record = record_of("went wrong")
    try:
        raise ValueError("here")
    except ValueError:
        record.exc_info = sys.exc_info()
    assert json.loads(JsonLines().format(record))["traceback"].endswith("ValueError: here")


def said_by_an_api(tmp_path: Path, log_format: str) -> list[str]:
    """The lines of its server, of a library that warns and of one that does not."""
    code = (
        "import logging, warnings; from app.monitoring import logs; from cli.fleet import settings_for;"
        "logs.write(settings_for(None).log_format);"
        "logging.getLogger('uvicorn.error').info('hello');"
        "logging.getLogger('alembic').warning('old');"
        "warnings.warn('older')"
    )
    return said_by(code, tmp_path, log_format)


def said_by(code: str, tmp_path: Path, log_format: str) -> list[str]:
    environment = os.environ | {"PANSYNTH_LOG_FORMAT": log_format, "PANSYNTH_DATA_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stderr.splitlines()


def test_the_api_writes_nothing_else_when_it_is_told_to(tmp_path: Path) -> None:
    hello, old, older = map(json.loads, said_by_an_api(tmp_path, "json"))
    assert (hello["message"], old["message"], older["logger"]) == ("hello", "old", "py.warnings")


def test_in_plain_text_a_line_says_when_it_was_written_and_by_whom(tmp_path: Path) -> None:
    hello, old, *_ = said_by_an_api(tmp_path, "text")
    assert re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:,]{12} INFO uvicorn.error: hello", hello)
    assert old.endswith(" WARNING alembic: old")


def test_a_worker_says_in_plain_text_what_it_does_as_the_api_does(tmp_path: Path) -> None:
    code = (
        "import logging; from worker.celery import app; app.log.setup('WARNING');"
        "logging.getLogger('worker.tasks').info('a step');"
        "logging.getLogger('celery.app.trace').info('a message')"
    )
    (line,) = said_by(code, tmp_path, "text")
    assert re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:,]{12} INFO worker.tasks: a step", line)
