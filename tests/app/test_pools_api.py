import io
import socket
import tracemalloc
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.blobs import RETRIES
from app.service import Service
from app.settings import Settings
from tests.serving import answer_of, fill_pool, guide_files, head, refused, serving, stored, submit


def test_the_default_pool_is_there_from_the_first_start(client: httpx.Client) -> None:
    pools = client.get("/pools").json()
    assert [(pool["name"], pool["image_count"]) for pool in pools["items"]] == [("default", 0)]
    assert pools["next"] is None


def test_a_pool_is_created_found_and_deleted(client: httpx.Client) -> None:
    created = client.post("/pools", json={"name": "clinic-a"})
    assert created.status_code == 201
    assert created.headers["Location"] == "/pools/clinic-a"
    assert created.json()["links"] == {"self": "/pools/clinic-a", "images": "/pools/clinic-a/images"}
    assert client.get("/pools/clinic-a").json() == created.json()
    deleted = client.delete("/pools/clinic-a")
    assert (deleted.status_code, deleted.headers.get("Content-Type")) == (204, None)  # nothing comes that is JSON
    assert client.get("/pools/clinic-a").status_code == 404


def test_a_name_that_exists_is_a_conflict(client: httpx.Client) -> None:
    answer = client.post("/pools", json={"name": "default"})
    assert answer.status_code == 409
    assert "default" in answer.json()["detail"]


@pytest.mark.parametrize("name", ["", "A", "-a", "a" * 64, "a b", "ä", "a\n", "../a", None, 7])
def test_a_name_of_another_form_is_refused_by_its_field(client: httpx.Client, name: object) -> None:
    answer = client.post("/pools", json={"name": name})
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == ["name"]


@pytest.mark.parametrize("name", ["nowhere", "A", "%00", "a%0A", "x" * 300])
def test_an_unknown_pool_is_not_found(client: httpx.Client, name: str) -> None:
    for method, path in [("GET", ""), ("DELETE", ""), ("GET", "/images"), ("POST", "/images")]:
        answer = client.request(method, f"/pools/{name}{path}")
        assert answer.status_code == 404
        assert answer.headers["Content-Type"] == "application/problem+json"


def test_lists_go_on_at_their_cursor(client: httpx.Client, service: Service) -> None:
    fill_pool(service, "held", 5)
    first = client.get("/pools/held/images", params={"limit": 3}).json()
    second = client.get("/pools/held/images", params={"limit": 3, "cursor": first["next"]}).json()
    names = [image["name"] for image in first["items"] + second["items"]]
    assert names == [f"pan-{n}.png" for n in range(5)]
    assert second["next"] is None


@pytest.mark.parametrize("cursor", ["y", "\0", "9" * 30])
def test_a_cursor_of_nobodys_is_refused_as_one_whatever_it_looks_like(client: httpx.Client, cursor: str) -> None:
    answer = client.get("/pools/default/images", params={"cursor": cursor})
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:pansynth:problem:bad-cursor")
    assert set(refused(answer)) == {"cursor"}


@pytest.mark.parametrize("limit", ["0", "1001", "x"])
def test_a_bad_limit_is_refused_by_its_field(client: httpx.Client, limit: str) -> None:
    assert set(refused(client.get("/pools/default/images", params={"limit": limit}))) == {"limit"}


def test_a_pool_image_is_served_by_its_content(client: httpx.Client, service: Service) -> None:
    digests = fill_pool(service, "held", 2)
    image = client.get("/pools/held/images").json()["items"][1]
    assert (image["width"], image["height"], image["sha256"]) == (600, 300, digests[1])
    answer = client.get(image["links"]["self"])
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.headers["ETag"] == f'"{digests[1]}"'
    again = client.get(image["links"]["self"], headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_kept_pool_image_is_asked_for_again_since_its_address_may_come_to_name_another(
    client: httpx.Client, service: Service
) -> None:
    digests = fill_pool(service, "held", 2)
    address = client.get("/pools/held/images").json()["items"][1]["links"]["self"]
    kept = client.get(address)
    assert client.delete("/pools/held").status_code == 204
    fill_pool(service, "other", 1)
    fill_pool(service, "held", 1)  # SQLite gives the highest id out again when it has become free
    answer = client.get(address, headers={"If-None-Match": kept.headers["ETag"]})
    assert (answer.status_code, answer.headers["ETag"]) == (200, f'"{digests[0]}"')
    assert kept.headers["Cache-Control"] == "private, no-cache"


def test_the_same_import_under_the_same_key_is_one_job(client: httpx.Client, service: Service) -> None:
    def send(content: bytes = b"one", **data: str) -> httpx.Response:
        files = [("images", ("a.png", content)), ("images", ("b.png", b"two"))]
        return client.post("/pools/default/images", files=files, data=data, headers={"Idempotency-Key": "once"})

    first = send()
    after_first = stored(service)
    second = send()
    assert (first.status_code, second.status_code) == (202, 200)
    assert second.json() == first.json()
    for other in (send(b"eno"), send(region="crop")):
        assert other.status_code == 422
        assert other.json()["errors"][0]["field"] == "Idempotency-Key"
    assert stored(service) == after_first


def test_an_import_sent_again_is_the_first_one_whatever_has_become_of_its_pool(client: httpx.Client, pool: str) -> None:
    def send() -> httpx.Response:
        path = f"/pools/{pool}/images"
        return client.post(path, files={"images": ("a.png", b"one")}, headers={"Idempotency-Key": "once"})

    first = send().json()
    client.post(first["links"]["cancel"])
    client.delete(f"/pools/{pool}")
    again = send()
    assert (again.status_code, again.json()["id"]) == (200, first["id"])


def test_a_zip_sent_as_an_image_and_then_as_an_archive_is_other_content(client: httpx.Client) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.png", b"one")

    def send(field: str) -> httpx.Response:
        files = [(field, ("images.zip", packed.getvalue()))]
        return client.post("/pools/default/images", files=files, headers={"Idempotency-Key": "once"})

    assert send("images").status_code == 202, "its job says that a zip is no image"
    assert send("archive").json()["type"] == "urn:pansynth:problem:idempotency-conflict"


@pytest.mark.parametrize("image", ["999", "-1", "0", str(10**30)])
def test_an_unknown_image_is_not_found(client: httpx.Client, pool: str, image: str) -> None:
    assert client.get(f"/pools/{pool}/images/{image}").status_code == 404


@pytest.mark.parametrize("spelled", ["+{}", "{}.0", "0_{}"])
def test_an_image_has_one_address(client: httpx.Client, pool: str, spelled: str) -> None:
    image = client.get(f"/pools/{pool}/images").json()["items"][0]["id"]
    assert client.get(f"/pools/{pool}/images/{image}").status_code == 200
    answer = client.get(f"/pools/{pool}/images/{spelled.format(image)}")
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:pansynth:problem:not-found")


def test_files_are_taken_in_for_an_import_job(client: httpx.Client, service: Service) -> None:
    files = [("images", (f"a{n}.png", bytes([n]), "image/png")) for n in range(3)]
    answer = client.post("/pools/default/images", files=files)
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["Location"] == f"/jobs/{job['id']}"
    assert "Retry-After" in answer.headers
    assert (job["kind"], job["status"], job["progress"]) == ("pool_import", "queued", {"done": 0, "total": 3})
    assert (job["stored"], job["duplicates"], job["rejected"]) == (0, 0, [])
    assert stored(service)[1] == {f"jobs/{job['id']}/uploads/{n}" for n in range(3)}


@pytest.mark.parametrize("field", ["images", "archive"])
def test_a_large_file_flows_through_the_api_and_is_never_held_whole(
    settings: Settings, tmp_path: Path, field: str
) -> None:
    size = 64_000_000
    large = tmp_path / "large.zip"
    with zipfile.ZipFile(large, "w") as archive:
        archive.writestr("a.png", b"pixels")
    with large.open("rb+") as file:
        content = file.read()
        file.seek(size - len(content))
        file.write(content)  # after a gap, as in a program that unpacks itself
    more = {"data_dir": tmp_path / "data", "max_upload_bytes": 2 * size}
    with serving(settings.model_copy(update=more)) as served, large.open("rb") as file:
        tracemalloc.start()
        answer = served.client.post("/pools/default/images", files={field: ("large.zip", file)}, timeout=300)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert answer.status_code == 202, answer.text
        (blob,) = (key for key in served.service.blobs.list(f"jobs/{answer.json()['id']}"))
        assert served.service.blobs.get(blob) == large.read_bytes()
    assert peak < size / 2


def test_while_the_store_hangs_uploads_wait_for_it_and_nobody_else(
    settings: Settings, s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = b'--xyz\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\nx\r\n--xyz--\r\n'
    with ExitStack() as stack:
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=128))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setitem(RETRIES, "max_retries", 0)
        given = settings.model_copy(update={"data_dir": tmp_path, "blob_url": s3_url})
        served = stack.enter_context(serving(given))
        uploads = []
        for _ in range(45):  # more than there are threads
            uploads.append(stack.enter_context(socket.create_connection(("127.0.0.1", served.port), timeout=20)))
            uploads[-1].sendall(head(f"Content-Length: {len(part)}", "/pools/default/images") + part)
        silent.accept()[0].close()
        assert served.client.get("/jobs").json()["items"] == []
        silent.close()
        assert {answer_of(upload).partition("\n")[0] for upload in uploads} == {"HTTP/1.1 503 Service Unavailable"}


def test_an_archive_is_taken_in_as_it_is(client: httpx.Client, service: Service) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a.png", b"pixels")
    answer = client.post("/pools/default/images", files={"archive": ("pans.zip", content.getvalue())})
    assert answer.status_code == 202
    assert service.blobs.get(f"jobs/{answer.json()['id']}/archive.zip") == content.getvalue()


def test_an_import_may_ask_for_a_crop(client: httpx.Client, service: Service) -> None:
    def sent(**data: str) -> dict[str, Any]:
        answer = client.post("/pools/default/images", data=data, files=[("images", ("a.png", b"pixels"))])
        assert answer.status_code == 202
        found: dict[str, Any] = answer.json()["parameters"]
        return found

    assert sent()["region"] == sent(region="none")["region"] == "none"
    assert sent(region="crop")["region"] == "crop"
    before = stored(service)
    for wrong in ({"region": "mouth"}, {"region": ["crop", "none"]}):
        answer = client.post("/pools/default/images", data=wrong, files=[("images", ("a.png", b"pixels"))])
        assert [error["field"] for error in answer.json()["errors"]] == ["region"]
    assert stored(service) == before


@pytest.mark.parametrize(
    ("files", "field"),
    [
        ([("region", ("a.png", b"x")), ("images", ("b.png", b"x"))], "region"),
        ([("webhook", ("a.png", b"x")), ("images", ("b.png", b"x"))], "webhook"),
        ([("other", ("a.png", b"x")), ("images", ("b.png", b"x"))], "other"),
        ([("archive", ("a.zip", b"x")), ("archive", ("b.zip", b"x"))], "archive"),
        ([("archive", ("a.zip", b"x")), ("images", ("b.png", b"x"))], "archive"),
        ([("images", ("", b""))], "images"),
    ],
)
def test_other_imports_are_refused_and_leave_nothing(
    client: httpx.Client, service: Service, files: list[tuple[str, tuple[str, bytes]]], field: str
) -> None:
    before = stored(service)
    answer = client.post("/pools/default/images", files=files)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert stored(service) == before


def test_a_pool_that_a_job_uses_cannot_be_deleted(client: httpx.Client, pool: str) -> None:
    job = submit(client, pool)
    answer = client.delete(f"/pools/{pool}")
    assert answer.status_code == 409
    assert job["id"] in answer.json()["detail"]


def test_a_deleted_pool_takes_its_blobs_along(client: httpx.Client, service: Service, pool: str) -> None:
    assert client.delete(f"/pools/{pool}").status_code == 204
    assert stored(service)[1] == set()
    assert client.post("/synthesize", data={"pool": pool}, files=guide_files()).status_code == 422
