"""cli/client.py against real sockets that misbehave."""

import hashlib
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from app.settings import Settings
from cli import client as client_module
from cli.client import Away, _patiently, connect, download, submit, wait, words_of
from cli.failure import Failure, Interrupted
from tests.serving import guide_files, serving

CONTENT = bytes(range(256)) * 4000


@contextmanager
def server(cut_at: int | None = None, sha256: str = "") -> Iterator[tuple[httpx.Client, list[str | None]]]:
    """Serves CONTENT with ranges; the first connection breaks after `cut_at` bytes. Also the ranges asked for."""
    asked: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers["Range"])
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-")) if self.headers["Range"] else 0
            self.send_response(206 if start else 200)
            self.send_header("ETag", f'"{sha256 or hashlib.sha256(CONTENT).hexdigest()}"')
            self.send_header("Content-Length", str(len(CONTENT) - start))
            self.end_headers()
            body = CONTENT[start:]
            self.wfile.write(body[:cut_at] if len(asked) == 1 else body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever).start()
        with httpx.Client(base_url=f"http://127.0.0.1:{http.server_port}", trust_env=False) as client:
            yield client, asked
        http.shutdown()


def quiet(*_: object) -> None:
    """No progress."""


def test_a_broken_download_goes_on_where_it_broke(tmp_path: Path) -> None:
    with server(cut_at=300_000) as (client, asked):
        assert download(client, "/dataset", tmp_path / "d.zip", quiet) == hashlib.sha256(CONTENT).hexdigest()
    assert (tmp_path / "d.zip").read_bytes() == CONTENT
    assert asked == [None, "bytes=300000-"]
    assert [path.name for path in tmp_path.iterdir()] == ["d.zip"]


def test_a_download_that_gets_on_has_all_the_patience_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PATIENCE_SECONDS", -1.0)  # as after a minute of downloading
    with server(cut_at=300_000) as (client, asked):
        download(client, "/dataset", tmp_path / "d.zip", quiet)
    assert asked == [None, "bytes=300000-"]


def test_patience_begins_when_the_service_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PATIENCE_SECONDS", 0.2)
    tries = 0

    def upload() -> int:
        nonlocal tries
        tries += 1
        if tries == 1:
            time.sleep(0.3)  # so long it was there
            raise Away("broken off")
        return tries

    assert _patiently(upload) == 2


def test_a_form_may_have_more_files_than_a_process_may_open(tmp_path: Path, broker_url: str) -> None:
    files = []
    for field, (name, data, _) in guide_files(12):
        (tmp_path / name).write_bytes(data)
        files.append((field, name, tmp_path / name))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with serving(Settings(data_dir=tmp_path / "data", broker_url=broker_url)) as served:
        room = len(list(Path("/proc/self/fd").iterdir())) + 16
        resource.setrlimit(resource.RLIMIT_NOFILE, (room, hard))
        try:
            with pytest.raises(Failure, match="'default' is empty"):  # so the form was read
                submit(served.client, "/synthesize", files, {"top_k": 1})
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_ctrl_c_says_where_the_job_goes_on() -> None:
    job = {"id": "7", "status": "running", "links": {"self": "/jobs/7"}}

    def press(*_: object) -> None:
        raise KeyboardInterrupt

    body = {**job, "stage": "sampling", "progress": {"done": 0, "total": 1}}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=body))
    with (
        httpx.Client(base_url="http://pans:8000", transport=transport) as client,
        pytest.raises(Interrupted, match=r"the job goes on at http://pans:8000/jobs/7$"),
    ):
        wait(client, job, press)


def test_a_download_whose_content_is_not_what_was_promised_is_thrown_away(tmp_path: Path) -> None:
    with server(sha256="0" * 64) as (client, _), pytest.raises(Failure, match="was promised"):
        download(client, "/dataset", tmp_path / "d.zip", quiet)
    assert not list(tmp_path.iterdir())


def test_a_url_that_is_none_is_refused_with_words() -> None:
    with pytest.raises(Failure, match="it looks like http"), connect("http://[nonsense"):
        pass


def test_a_problem_is_told_field_by_field() -> None:
    fields = [{"field": "top_k", "detail": "is 0"}, {"field": "mask", "detail": "is missing"}]
    problem = httpx.Response(422, json={"title": "Wrong", "detail": "...", "errors": fields})
    assert words_of(problem) == "Wrong\n  top_k: is 0\n  mask: is missing"
    assert words_of(httpx.Response(404, json={"detail": "no such pool"})) == "no such pool"
    assert words_of(httpx.Response(502, text="Bad gateway")) == "status 502, 'Bad gateway'"
