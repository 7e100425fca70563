import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.blobs import Blobs
from app.service import Service
from app.settings import Settings
from cli.client import connect, download
from tests.serving import Served, fill_pool, finish, serving, submit, write_weights

DATASET = bytes(range(256)) * 40  # 10,240 bytes
ETAG = f'"{hashlib.sha256(DATASET).hexdigest()}"'


@pytest.fixture
def dataset(client: httpx.Client, service: Service, pool: str) -> str:
    """The address of a finished dataset."""
    job = submit(client, pool)
    finish(service, pool, 2, DATASET)
    return str(job["links"]["dataset"])


def test_a_dataset_comes_whole_as_a_file(client: httpx.Client, dataset: str) -> None:
    answer = client.get(dataset)
    assert (answer.status_code, answer.content) == (200, DATASET)
    assert answer.headers["ETag"] == ETAG
    assert answer.headers["Content-Length"] == str(len(DATASET))
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Content-Type"] == "application/zip"
    assert answer.headers["Content-Disposition"].startswith("attachment; filename=")


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=100-199", 100, 200),
        ("bytes=0-0", 0, 1),
        ("bytes=10000-", 10_000, 10_240),
        ("bytes=10000-99999999", 10_000, 10_240),
        ("bytes=-40", 10_200, 10_240),
        ("bytes=-99999", 0, 10_240),
    ],
)
def test_a_range_is_those_bytes(client: httpx.Client, dataset: str, asked: str, start: int, end: int) -> None:
    answer = client.get(dataset, headers={"Range": asked})
    assert (answer.status_code, answer.content) == (206, DATASET[start:end])
    assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(DATASET)}"
    assert answer.headers["Content-Length"] == str(end - start)
    assert answer.headers["ETag"] == ETAG


@pytest.mark.parametrize("asked", ["bytes=10240-", "bytes=99999-100000", "bytes=-0"])
def test_a_range_beyond_the_end_cannot_be_satisfied(client: httpx.Client, dataset: str, asked: str) -> None:
    answer = client.get(dataset, headers={"Range": asked})
    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(DATASET)}"
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    "asked",
    ["bytes=", "bytes=-", "bytes=5-2", "bytes=a-b", "lines=1-2", "bytes=0-1,5-6", "bytes=" + "9" * 50 + "-"],
)
def test_a_range_that_means_nothing_here_gets_the_whole(client: httpx.Client, dataset: str, asked: str) -> None:
    answer = client.get(dataset, headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, DATASET)


@pytest.mark.parametrize("tags", [ETAG, f"W/{ETAG}", "*", f'"other", {ETAG}'])
def test_what_the_client_has_is_not_sent_again(client: httpx.Client, dataset: str, tags: str) -> None:
    answer = client.get(dataset, headers={"If-None-Match": tags})
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["ETag"] == ETAG


def test_what_the_client_has_may_be_told_on_several_lines(client: httpx.Client, dataset: str) -> None:
    lines = [("If-None-Match", '"other"'), ("If-None-Match", ETAG)]
    assert client.get(dataset, headers=lines).status_code == 304
    assert client.get(dataset, headers=lines[:1] * 2).status_code == 200


def test_a_range_of_another_version_gets_the_whole(client: httpx.Client, dataset: str) -> None:
    asked = {"Range": "bytes=0-9"}
    assert client.get(dataset, headers=asked | {"If-Range": ETAG}).status_code == 206
    assert client.get(dataset, headers=asked | {"If-Range": '"other"'}).content == DATASET
    assert client.get(dataset, headers=asked | {"If-Range": f"W/{ETAG}"}).content == DATASET


def test_head_tells_size_and_etag_without_the_bytes(client: httpx.Client, dataset: str) -> None:
    for headers in ({}, {"Range": "bytes=0-9"}, {"Range": "bytes=99999-"}):  # a range is for GET alone
        answer = client.head(dataset, headers=headers)
        assert (answer.status_code, answer.content) == (200, b"")
        assert (answer.headers["Content-Length"], answer.headers["ETag"]) == (str(len(DATASET)), ETAG)


def test_a_dataset_whose_blob_is_gone_is_a_problem(client: httpx.Client, service: Service, dataset: str) -> None:
    service.blobs.delete(f"{dataset.removeprefix('/')}.zip")
    answer = client.get(dataset)
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_large_blob_is_read_in_pieces(tmp_path: Path) -> None:
    blobs = Blobs(f"file://{tmp_path}")
    blobs.put("large", bytes(5_000_000))
    pieces: Iterator[bytes] = blobs.stream("large", 1, 4_999_999)
    sizes = [len(piece) for piece in pieces]
    assert sum(sizes) == 4_999_998
    assert max(sizes) < 2_500_000


@pytest.fixture
def on_a_bucket(s3_url: str, broker_url: str, tmp_path: Path) -> Iterator[Served]:
    write_weights(tmp_path / "weights")
    settings = Settings(
        data_dir=tmp_path / "data",
        broker_url=broker_url,
        blob_url=s3_url,
        weights_dir=tmp_path / "weights",
        presigned_downloads=True,
    )
    with serving(settings) as served:
        fill_pool(served.service, "held", 2)
        yield served


def test_a_dataset_in_a_bucket_can_come_from_there(on_a_bucket: Served, tmp_path: Path) -> None:
    client = on_a_bucket.client
    address = submit(client, "held")["links"]["dataset"]
    finish(on_a_bucket.service, "held", 2, DATASET)
    answer = client.get(address)
    assert (answer.status_code, answer.content) == (307, b"")
    assert (answer.headers["ETag"], answer.headers["Cache-Control"]) == (ETAG, "no-store")
    assert httpx.get(answer.headers["Location"], headers={"Range": "bytes=3-6"}).content == DATASET[3:7]
    assert client.head(address).headers["Content-Length"] == str(len(DATASET))
    assert client.get(address, headers={"If-None-Match": ETAG}).status_code == 304
    with connect(str(client.base_url)) as command:
        download(command, address, tmp_path / "dataset.zip", lambda *_: None)
    assert (tmp_path / "dataset.zip").read_bytes() == DATASET
    on_a_bucket.service.blobs.delete_prefix("jobs/")
    assert client.get(address).status_code == 404
