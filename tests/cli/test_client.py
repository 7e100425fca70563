"""cli/client.py against real sockets that misbehave."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from cli.client import connect, download, words_of
from cli.failure import Failure

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
