"""app/monitoring/logs.py: a line is an object, and says which job it is about."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

from app.monitoring.logs import JsonLines, about
from cli.children import pansynth


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


def test_the_api_writes_nothing_else_when_it_is_told_to(tmp_path: Path) -> None:
    code = (
        "import logging, sys; from cli.fleet import configured; from app.settings import Settings;"
        "import uvicorn; configured(Settings()); logging.getLogger('uvicorn.error').warning('hello')"
    )
    environment = os.environ | {"PANSYNTH_LOG_FORMAT": "json", "PANSYNTH_DATA_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert [json.loads(line)["message"] for line in done.stderr.splitlines()] == ["hello"]


def test_a_worker_begins_with_an_object_too(tmp_path: Path) -> None:
    away = {"PANSYNTH_BROKER_URL": f"redis+socket://{tmp_path}/none.sock", "PYTHONWARNINGS": "ignore"}  # root's own
    environment = os.environ | away | {"PANSYNTH_LOG_FORMAT": "json", "PANSYNTH_DATA_DIR": str(tmp_path)}
    worker = subprocess.Popen(pansynth("worker"), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert worker.stdout is not None
    with worker:
        first = worker.stdout.readline()
        worker.kill()
    assert json.loads(first)["logger"].startswith("celery")
