"""cli/client.py against real sockets that misbehave."""

import hashlib
import re
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
from cli.client import Away, _patiently, connect, download, listed, submit, wait, words_of
from cli.failure import Failure, Interrupted
from tests.full_disk import no_file_above
from tests.serving import guide_files, serving

CONTENT = bytes(range(256)) * 4000


@contextmanager
def server(
    cut_at: int | None = None, sha256: str = "", away_at: int | None = None
) -> Iterator[tuple[httpx.Client, list[str | None]]]:
    """Serves CONTENT with ranges; the first connection breaks after `cut_at` bytes, and the request number `away_at`
    is answered 503. Also the ranges asked for."""
    asked: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers["Range"])
            if len(asked) == away_at:
                self.send_error(503)
                return
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


def test_a_list_is_read_to_its_last_page() -> None:
    pages = {None: ([1, 2], "a b"), "a b": ([3], None)}

    def answer(request: httpx.Request) -> httpx.Response:
        items, following = pages[request.url.params.get("cursor")]
        return httpx.Response(200, json={"items": items, "next": following})

    with httpx.Client(base_url="http://pans:8000", transport=httpx.MockTransport(answer)) as client:
        assert list(listed(client, "/pools")) == [1, 2, 3]


def test_a_broken_download_goes_on_where_it_broke(tmp_path: Path) -> None:
    shown: list[tuple[int, int]] = []
    with server(cut_at=300_000) as (client, asked):
        download(client, "/dataset", tmp_path / "d.zip", lambda done, total: shown.append((done, total)))
    assert (tmp_path / "d.zip").read_bytes() == CONTENT
    assert shown == sorted(shown) and {total for _, total in shown} == {len(CONTENT)}
    assert asked == [None, "bytes=300000-"]
    assert [path.name for path in tmp_path.iterdir()] == ["d.zip"]


def test_a_service_that_is_away_after_a_broken_download_costs_nothing_that_had_come(tmp_path: Path) -> None:
    with server(cut_at=300_000, away_at=2) as (client, asked):
        download(client, "/dataset", tmp_path / "d.zip", quiet)
    assert asked == [None, "bytes=300000-", "bytes=300000-"]
    assert (tmp_path / "d.zip").read_bytes() == CONTENT


def test_a_file_that_appeared_while_it_was_downloaded_is_not_replaced(tmp_path: Path) -> None:
    def make_another(*_: object) -> None:
        (tmp_path / "d.zip").write_bytes(b"another")

    with server() as (client, _), pytest.raises(Failure, match=r"this download is whole in (.+)$") as failed:
        download(client, "/dataset", tmp_path / "d.zip", make_another)
    assert (tmp_path / "d.zip").read_bytes() == b"another"
    assert Path(str(failed.value).rpartition(" in ")[2]).read_bytes() == CONTENT


def test_a_disk_without_hard_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    with server() as (client, _):
        download(client, "/dataset", tmp_path / "d.zip", quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["d.zip"]


def test_nothing_is_left_of_an_interrupted_download(tmp_path: Path) -> None:
    def press(*_: object) -> None:
        raise KeyboardInterrupt

    with server() as (client, _), pytest.raises(KeyboardInterrupt):
        download(client, "/dataset", tmp_path / "d.zip", press)
    assert not list(tmp_path.iterdir())


def test_a_download_that_has_no_room_is_named(tmp_path: Path) -> None:
    with server() as (client, _), pytest.raises(OSError, match=r"d\.zip'$"), no_file_above(1000):
        download(client, "/dataset", tmp_path / "d.zip", quiet)
    assert not list(tmp_path.iterdir())


def test_a_proxy_that_compresses_is_asked_not_to_and_its_weak_etag_will_do(tmp_path: Path) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["Accept-Encoding"] == "identity"
        etag = f'W/"{hashlib.sha256(CONTENT).hexdigest()}"'
        return httpx.Response(200, content=iter([CONTENT]), headers={"ETag": etag})  # of no stated length

    shown: list[tuple[int, int]] = []
    with httpx.Client(base_url="http://pans:8000", transport=httpx.MockTransport(answer)) as client:
        download(client, "/dataset", tmp_path / "d.zip", lambda done, total: shown.append((done, total)))
    assert shown == [(len(CONTENT), 0)]


def test_a_download_without_its_sha256_is_refused_with_words(tmp_path: Path) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=CONTENT))
    with (
        httpx.Client(base_url="http://pans:8000", transport=transport) as client,
        pytest.raises(Failure, match="GET /dataset: the answer has no ETag"),
    ):
        download(client, "/dataset", tmp_path / "d.zip", quiet)


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


@pytest.mark.parametrize("count", [1, 400])
def test_a_large_form_is_given_the_time_that_decoding_takes(tmp_path: Path, count: int) -> None:
    (tmp_path / "a.png").touch()
    allowed: list[float] = []

    def answer(request: httpx.Request) -> httpx.Response:
        allowed.append(request.extensions["timeout"]["read"])
        return httpx.Response(202, json={"id": "7"})

    with httpx.Client(base_url="http://pans:8000", transport=httpx.MockTransport(answer)) as client:
        submit(client, "/synthesize", [("image", "a.png", tmp_path / "a.png")] * count, {})
    assert allowed == [600 + 2 * count]


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


@pytest.mark.parametrize(("kind", "again"), [("synthesis", "takes it up"), ("pool_import", "sends what is lacking")])
def test_ctrl_c_says_where_the_job_goes_on(kind: str, again: str) -> None:
    job = {"id": "7", "kind": kind, "status": "running", "links": {"self": "/jobs/7"}}

    def press(*_: object) -> None:
        raise KeyboardInterrupt

    body = {**job, "stage": "sampling", "progress": {"done": 0, "total": 1}}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=body))
    with (
        httpx.Client(base_url="http://pans:8000", transport=transport) as client,
        pytest.raises(Interrupted, match=f"goes on at http://pans:8000/jobs/7; the same command again {again}$"),
    ):
        wait(client, job, press)


def test_a_job_that_makes_samples_anew_is_seen_to_move() -> None:
    job = {"id": "7", "kind": "synthesis", "status": "running", "stage": "sampling", "links": {"self": "/jobs/7"}}
    job |= {"progress": {"done": 0, "total": 3}}
    bodies = iter([job | {"quality_summary": {"redrawn": n}} for n in (0, 3, 6)] + [job | {"status": "succeeded"}])
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=next(bodies)))
    shown: list[str] = []
    with httpx.Client(base_url="http://pans:8000", transport=transport) as client:
        wait(client, job, lambda _done, _total, label: shown.append(label))
    assert shown == ["sampling", "sampling, 3 made anew", "sampling, 6 made anew", "sampling"]


def test_a_job_that_does_not_move_is_told_with_what_the_service_lacks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(client_module, "STILL_SECONDS", 0.0)
    job = {"id": "7", "kind": "synthesis", "status": "queued", "stage": None, "links": {"self": "/jobs/7"}}
    job |= {"progress": {"done": 0, "total": 3}}
    states = iter([job] * 4 + [job | {"status": "succeeded"}])
    errors = [{"field": "store", "detail": "No space left"}, {"field": "worker", "detail": "no worker is there"}]
    lacking = iter([(503, {"detail": "not ready", "errors": errors})] * 2 + [(200, {"status": "ready"})] * 9)

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/jobs/7":
            return httpx.Response(200, json=next(states))
        status, body = next(lacking)
        return httpx.Response(status, json=body)

    with httpx.Client(base_url="http://pans:8000", transport=httpx.MockTransport(answer)) as client:
        wait(client, job, quiet)
    assert capsys.readouterr().err == "the job waits: No space left; no worker is there\n"


def test_a_service_that_stays_away_does_not_take_the_jobs_address_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PATIENCE_SECONDS", -1.0)
    transport = httpx.MockTransport(lambda _: httpx.Response(503, text="starting"))
    with (
        httpx.Client(base_url="http://pans:8000", transport=transport) as client,
        pytest.raises(Failure, match=r"status 503, 'starting'; the job goes on at http://pans:8000/jobs/7;"),
    ):
        wait(client, {"id": "7", "kind": "synthesis", "status": "running", "links": {"self": "/jobs/7"}}, quiet)


@pytest.mark.parametrize("status", ["running", "succeeded"])
def test_a_key_that_is_revoked_meanwhile_does_not_take_the_jobs_address_with_it(tmp_path: Path, status: str) -> None:
    job = {"id": "7", "kind": "synthesis", "status": status, "links": {"self": "/jobs/7"}}
    transport = httpx.MockTransport(lambda _: httpx.Response(401, json={"detail": "the key was revoked"}))
    where = "goes on" if status == "running" else "is"
    with (
        httpx.Client(base_url="http://pans:8000", transport=transport) as client,
        pytest.raises(Failure, match=f"the key was revoked.*; the job {where} at http://pans:8000/jobs/7;"),
        client_module.saying_where(client, wait(client, job, quiet)),
    ):
        download(client, "/jobs/7/dataset", tmp_path / "d.zip", quiet)


def test_a_download_whose_content_is_not_what_was_promised_is_thrown_away(tmp_path: Path) -> None:
    with server(sha256="0" * 64) as (client, _), pytest.raises(Failure, match="was promised"):
        download(client, "/dataset", tmp_path / "d.zip", quiet)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("url", ["http://[nonsense", "127.0.0.1:8000", "localhost:8000", "http://"])
def test_a_url_that_is_none_is_refused_with_words(url: str) -> None:
    with pytest.raises(Failure, match=f"^--url {re.escape(url)}: .+; it looks like http"), connect(url):
        pass


@pytest.mark.parametrize("key", ["pansynth_\u00e9", "pansynth\n_1"])
def test_a_key_that_cannot_be_sent_is_blamed_and_not_shown(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("PANSYNTH_API_KEY", key)
    with pytest.raises(Failure, match=r"^PANSYNTH_API_KEY has a character") as failed, connect("http://127.0.0.1:1"):
        pass
    assert key not in str(failed.value)


@pytest.fixture
def through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens at the proxy."""
    for name in ("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY", "https_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "me:secret@127.0.0.1:1")


@pytest.mark.usefixtures("through_a_proxy")
def test_a_proxy_between_is_told_with_what_failed() -> None:
    with (
        pytest.raises(
            Failure, match=r"^no answer from http://pans:8000.+ proxy 127\.0\.0\.1:1: set NO_PROXY=pans "
        ) as failed,
        connect("http://pans:8000"),
    ):
        pass
    assert "secret" not in str(failed.value)


@pytest.mark.usefixtures("through_a_proxy")
def test_no_proxy_is_blamed_that_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "pans.invalid")
    for url in ("http://pans.invalid", "http://127.0.0.1:1"):
        with pytest.raises(Failure, match=r"running\?$"), connect(url):
            pass


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1080", "ftp://proxy", "http://proxy:port"])
def test_a_proxy_that_cannot_be_used_is_told_in_words(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(Failure, match=r"^the proxy that ALL_PROXY, .+ cannot be used: "), connect("http://pans:8000"):
        pass


@contextmanager
def stranger(status: int, headers: dict[str, str], body: bytes) -> Iterator[str]:
    """A server that answers everything so; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def test_a_service_that_moved_is_named_by_its_new_address() -> None:
    moved = {"Location": "https://pans.example/livez"}
    with (
        stranger(301, moved, b"") as url,
        pytest.raises(Failure, match=f"^--url {url}.*: the service has moved to https://pans.example; give that$"),
        connect(url),
    ):
        pass


@pytest.mark.parametrize("body", [b"<html>Welcome</html>", b"[]", b"\xff"])
def test_another_server_is_not_taken_for_the_service(body: bytes) -> None:
    with (
        stranger(200, {}, body) as url,
        pytest.raises(Failure, match=f"^--url {url}: .+ is not pansynth$"),
        connect(url),
    ):
        pass


def test_a_problem_is_told_field_by_field() -> None:
    fields = [{"field": "top_k", "detail": "is 0"}, {"field": "mask", "detail": "is missing"}]
    problem = httpx.Response(422, json={"title": "Wrong", "detail": "...", "errors": fields})
    assert words_of(problem) == "Wrong\n  top_k: is 0\n  mask: is missing"
    assert words_of(httpx.Response(404, json={"detail": "no such pool"})) == "no such pool"
    assert words_of(httpx.Response(502, text="Bad gateway")) == "status 502, 'Bad gateway'"
    assert words_of(httpx.Response(500, json=["odd"])) == "status 500, '[\"odd\"]'"
    assert words_of(httpx.Response(500, json={"detail": "odd", "errors": None})) == "odd"
    proxys = httpx.Response(403, json={"errors": [{"code": 1}, {"code": 2}]})
    assert words_of(proxys) == f"status 403, {proxys.text!r}"
