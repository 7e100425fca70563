"""A corpus of bad files and requests against the API on its socket: each is refused in words and leaves nothing."""

import contextlib
import socket
from http.client import HTTPResponse
from json import loads

import httpx
import pytest

from app.service import Service
from tests import bad_archives, bad_files, bad_headers, bad_requests
from tests.app.test_synthesis_api import BAD_FILES, WRONG
from tests.serving import Served, guide_files, stored

REQUESTS = bad_requests.requests()
LIARS = bad_headers.liars()
NO_ZIPS = {name: bad.data for name, bad in bad_archives.archives().items() if not bad.is_zip}


@pytest.mark.parametrize("name", REQUESTS, ids=lambda name: name.replace(" ", "-"))
def test_a_bad_request_is_refused_in_words_and_leaves_nothing(served: Served, pool: str, name: str) -> None:
    assert pool == "held"
    bad = REQUESTS[name]
    before = stored(served.service)
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as connection:
        connection.sendall(bad.raw())
        response = HTTPResponse(connection, method=bad.method)
        response.begin()
        with response:
            body = response.read()
    assert response.status in bad.statuses, body
    assert response.getheader("Set-Cookie") is None
    if not bad.below and response.status >= 400:
        assert response.getheader("Content-Type") == "application/problem+json"
        problem = loads(body)
        assert problem["status"] == response.status
        assert problem["type"].startswith("urn:pansynth:problem:")
        assert problem["title"] and problem["detail"]
        fields = [error["field"] for error in problem.get("errors", [])]
        assert bad.field is None or any(field.startswith(bad.field) for field in fields), problem
    assert stored(served.service) == before
    assert served.client.get("/livez").status_code == 200


@pytest.mark.parametrize("endless", [b"X-Long: ", b"X-%d: 1\r\n", b"GET /"], ids=["header", "headers", "address"])
def test_a_head_without_end_is_cut_off(served: Served, endless: bytes) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as connection:
        connection.sendall(b"" if endless.startswith(b"GET") else b"GET /livez HTTP/1.1\r\nHost: localhost\r\n")
        connection.sendall(endless.replace(b"%d", b"0"))
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                connection.sendall((endless if b"%d" in endless else b"a" * 10).replace(b"%d", b"1") * 1000)
            raise AssertionError("10 MB of it were taken")
    assert served.client.get("/livez").status_code == 200


@pytest.mark.parametrize("name", LIARS, ids=lambda name: name.replace(" ", "-"))
def test_a_file_whose_header_lies_is_refused_and_leaves_nothing(
    client: httpx.Client, service: Service, pool: str, name: str
) -> None:
    before = stored(service)
    files = guide_files()
    files[0] = ("image", ("guide", LIARS[name].data, "image/png"))
    answer = client.post("/synthesize", data={"pool": pool, "top_k": "1"}, files=files)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["field"] == "image"
    assert "'guide'" in error["detail"] and ";" in error["detail"]
    assert bad_files.PATIENT not in answer.text
    assert stored(service) == before


@pytest.mark.parametrize("name", NO_ZIPS, ids=lambda name: name.replace(" ", "-"))
def test_an_archive_that_is_none_is_refused_at_the_door(client: httpx.Client, service: Service, name: str) -> None:
    before = stored(service)
    answer = client.post("/pools/default/images", files={"archive": ("pans.zip", NO_ZIPS[name])})
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == ["archive"]
    assert stored(service) == before


@pytest.mark.parametrize("name", ["Range", "If-Range", "If-None-Match", "If-Match", "If-Modified-Since"])
def test_a_condition_that_makes_no_sense_is_passed_over(client: httpx.Client, pool: str, name: str) -> None:
    image = client.get(f"/pools/{pool}/images").json()["items"][0]["links"]["self"]
    whole = client.get(image).content
    for value in ("bytes=", "bytes=a-b", "bytes=5-2", "bytes=0-1,3-4", "lines=1-2", "=", "9"):
        answer = client.get(image, headers={name: value})
        assert (answer.status_code, answer.content) == (200, whole), value


def test_the_corpus_is_large() -> None:
    """Each under a name of its own, and tried in this folder or in tests/worker/test_importing.py."""
    files = {what for _, what in BAD_FILES} | LIARS.keys() | bad_archives.archives().keys()
    assert len(files) >= 100
    assert len(WRONG) + len(REQUESTS) >= 150
