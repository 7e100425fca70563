"""app/blobs.py: the same store over a folder and over the S3 protocol."""

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from app.blobs import PIECE, RETRIES, Blobs
from app.errors import BlobMissing
from app.uploads.multipart import Spool, UploadedFile


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    if request.param == "file":
        return Blobs(f"file://{tmp_path / 'a folder with 100%25'}")
    return Blobs(request.getfixturevalue("s3_url"))


def test_what_is_put_is_got(store: Blobs) -> None:
    store.put("jobs/1/a.png", b"first")
    store.put("jobs/1/a.png", b"second")
    assert store.get("jobs/1/a.png") == b"second"
    assert store.size("jobs/1/a.png") == 6
    assert store.exists("jobs/1/a.png")


def test_an_empty_blob_is_a_blob(store: Blobs) -> None:
    store.put("jobs/1/empty", b"")
    assert store.get("jobs/1/empty") == b""
    assert list(store.stream("jobs/1/empty")) == []


def test_a_missing_blob_is_named(store: Blobs) -> None:
    for read in (store.get, store.size, store.stream):
        with pytest.raises(BlobMissing, match="jobs/1/none"):
            read("jobs/1/none")
    assert not store.exists("jobs/1/none")
    store.delete("jobs/1/none")


def test_any_range_of_bytes_is_streamed(store: Blobs, tmp_path: Path) -> None:
    content = bytes(range(256)) * (3 * PIECE // 256) + b"end"
    file = tmp_path / "big"
    file.write_bytes(content)
    store.put_file("jobs/1/big", file)
    assert b"".join(store.stream("jobs/1/big")) == content
    for start, end in ((0, 1), (100, 200), (PIECE - 1, 2 * PIECE + 1), (len(content) - 3, len(content) + 9)):
        assert b"".join(store.stream("jobs/1/big", start, end)) == content[start:end]
    assert list(store.stream("jobs/1/big", 5, 5)) == []


@pytest.fixture
def impatient(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Blobs:
    """A bucket's client that gives a request 2 s, with its body, where the service's gives 30."""
    monkeypatch.setenv("AWS_TIMEOUT", "2s")
    monkeypatch.setitem(RETRIES, "retry_timeout", timedelta(seconds=1))
    return Blobs(s3_url)


def test_a_reader_may_take_longer_than_a_request_to_the_bucket(impatient: Blobs) -> None:
    content = bytes(range(256)) * (4 * PIECE // 256)
    impatient.put("jobs/1/big", content)
    pieces = impatient.stream("jobs/1/big", 100)
    read = next(pieces)
    time.sleep(2.2)
    assert read + b"".join(pieces) == content[100:]


def test_a_blob_that_goes_while_it_is_read_ends_the_reading(impatient: Blobs) -> None:
    impatient.put("jobs/1/big", bytes(4 * PIECE))
    pieces = impatient.stream("jobs/1/big")
    next(pieces)
    impatient.delete("jobs/1/big")
    time.sleep(2.2)
    with pytest.raises(BlobMissing, match="jobs/1/big"):
        list(pieces)


def test_a_prefix_is_a_folder_and_not_the_beginning_of_a_name(store: Blobs) -> None:
    for key in ("jobs/1/a", "jobs/1/b/c", "jobs/10/a", "jobs/1.zip"):
        store.put(key, b"x")
    assert sorted(store.list("jobs/1/")) == ["jobs/1/a", "jobs/1/b/c"]
    store.delete_prefix("jobs/1/")
    assert sorted(store.list()) == ["jobs/1.zip", "jobs/10/a"]
    store.delete_prefix("jobs/1/")


def test_many_blobs_are_listed_and_deleted(store: Blobs) -> None:
    for n in range(30):
        store.put(f"many/{n}", b"x")
    assert len(list(store.list("many/"))) == 30
    store.delete("many/99", *(f"many/{n}" for n in range(10)), "many/98")
    assert len(list(store.list("many/"))) == 20
    store.delete_prefix("many/")
    assert list(store.list("many/")) == []
    store.delete()


@pytest.fixture
def asked(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The methods of the requests that reach the bucket; each store opened now goes by this way.

    With the word "slowly" among them a megabyte takes 0.8 s.
    """
    requests: list[str] = []

    class Between(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            requests.append(self.command)
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            answer = httpx.request(
                self.command, s3_endpoint + self.path, headers=dict(self.headers), content=body, trust_env=False
            )
            self.send_response(answer.status_code)
            for name in ("Content-Length", "Content-Range", "ETag", "Last-Modified"):
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])
            self.end_headers()
            with suppress(OSError):  # who asked may have no more patience
                for start in range(0, len(answer.content), PIECE):
                    self.wfile.write(answer.content[start : start + PIECE])
                    time.sleep(0.8 if "slowly" in requests else 0)

        do_DELETE = do_GET = do_HEAD = do_PUT = do_POST

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Between) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        yield requests
        server.shutdown()


def test_many_blobs_of_a_bucket_are_deleted_by_one_request(s3_url: str, asked: list[str]) -> None:
    store = Blobs(s3_url)
    store.put("many/0", b"x")
    asked.clear()
    store.delete(*(f"many/{n}" for n in range(100)))
    assert asked == ["POST"]
    assert list(store.list()) == []


def test_a_whole_blob_may_take_longer_than_a_request_to_the_bucket(
    s3_url: str, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Blobs(s3_url).put("big", content := bytes(range(256)) * (4 * PIECE // 256))
    monkeypatch.setenv("AWS_TIMEOUT", "2s")
    monkeypatch.setitem(RETRIES, "retry_timeout", timedelta(seconds=1))
    asked[:] = ["slowly"]
    assert Blobs(s3_url).get("big") == content
    assert asked.count("GET") > 1


def test_a_part_of_a_blob_is_one_request_to_the_bucket(s3_url: str, asked: list[str]) -> None:
    store = Blobs(s3_url)
    store.put("a", bytes(range(100)))
    asked.clear()
    assert b"".join(store.stream("a", 10, 100)) == bytes(range(10, 100))
    assert asked == ["GET"]


def test_readers_see_the_old_blob_or_the_new_one_and_nothing_between(tmp_path: Path) -> None:
    store = Blobs(f"file://{tmp_path}")
    store.put("a", b"0" * 1_000_000)
    over = threading.Event()

    def write() -> None:
        for turn in range(40):
            store.put("a", str(turn % 10).encode() * 1_000_000)
        over.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not over.is_set():
        seen = store.get("a")
        assert len(seen) == 1_000_000
        assert len(set(seen)) == 1
    writer.join()


def test_what_was_written_before_a_moment_is_told_from_what_came_after(store: Blobs) -> None:
    for n in range(3):
        store.put(f"jobs/{n}/a", b"x")
    now = datetime.now(UTC)
    assert list(store.written_before(now - timedelta(minutes=1))) == []
    (found,) = store.written_before(now + timedelta(minutes=1), "jobs/")
    assert sorted(found) == ["jobs/0/a", "jobs/1/a", "jobs/2/a"]


def test_a_file_that_has_no_name_is_written_whole(store: Blobs) -> None:
    content = bytes(range(256)) * 50_000  # more than one part of a multipart upload
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        store.put_file("jobs/1/archive.zip", file)
    assert store.get("jobs/1/archive.zip") == content


@pytest.mark.parametrize("size", [0, 10, 12_000_000])
def test_a_file_of_an_upload_is_written_without_its_neighbours(store: Blobs, size: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    with tempfile.TemporaryFile() as stored:
        stored.write(b"before" + content[:size] + b"after")
        stored.flush()
        with UploadedFile("a.png", 6, size, Spool(stored)).open() as file:
            store.put_file("jobs/1/uploads/0", file)
    assert store.get("jobs/1/uploads/0") == content[:size]


def test_a_bucket_serves_its_blobs_by_addresses_that_only_we_can_make(s3_url: str) -> None:
    store = Blobs(s3_url)
    store.put("jobs/1/dataset.zip", b"the zip")
    address = store.address("jobs/1/dataset.zip", 60)
    assert address is not None and "X-Amz-Signature=" in address and "X-Amz-Expires=60" in address
    assert httpx.get(address, trust_env=False).content == b"the zip"


def test_a_folder_serves_nothing(tmp_path: Path) -> None:
    assert Blobs(f"file://{tmp_path}").address("a", 60) is None
