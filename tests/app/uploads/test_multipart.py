import contextlib
import socket
import stat
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select

from app.service import Service
from app.tables import Upload
from app.uploads import bodies
from app.uploads.multipart import UploadedFile, checked_name
from tests.serving import Served, answer_of, guide_files, head, refused, stored
from tests.waiting import until

LIMIT = 2_000_000  # of the served settings


def test_a_file_of_the_form_reads_as_a_file_of_its_own_and_no_further(tmp_path: Path) -> None:
    with (tmp_path / "stored").open("wb+") as stored:
        stored.write(b"before" + b"the file" + b"after")
        stored.flush()
        uploaded = UploadedFile("a.png", 6, 8, stored)
        assert b"".join(uploaded) == b"the file"
        with uploaded.open() as file:
            assert file.read() == b"the file"
            assert (file.read(), file.read(1)) == (b"", b"")
            assert (file.seek(-4, 2), file.read(99)) == (4, b"file")
            assert (file.seek(1), file.read(2), file.tell()) == (1, b"he", 3)
            assert (file.seek(100), file.read()) == (100, b"")
            with pytest.raises(OSError, match="Invalid"):
                file.seek(-9, 2)


def test_an_announced_size_over_the_limit_is_refused_before_anything_is_sent(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "DRAIN_SECONDS", 600.0)  # the answer is there before the body is waited for
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as connection:
        connection.sendall(head(f"Content-Length: {10**12}"))
        answer = answer_of(connection)
    assert answer.startswith("HTTP/1.1 413 ")
    assert "application/problem+json" in answer and str(LIMIT) in answer


def test_a_body_of_unknown_size_is_refused_as_soon_as_it_passes_the_limit(served: Served) -> None:
    piece = b"x" * 65_536
    part = b'--xyz\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as connection:
        connection.sendall(head("Transfer-Encoding: chunked"))
        connection.sendall(b"%x\r\n%b\r\n" % (len(part), part))
        for _ in range(LIMIT // len(piece) + 1):
            connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        assert answer_of(connection).startswith("HTTP/1.1 413 ")


def test_a_form_may_be_large_however_its_media_type_is_spelt(client: httpx.Client) -> None:
    files = {"images": ("a.png", bytes(100_000))}
    request = client.build_request("POST", "/pools/default/images", files=files)
    request.headers["Content-Type"] = request.headers["Content-Type"].replace("multipart", "Multipart")
    assert client.send(request).status_code == 202


def test_a_client_that_sends_it_all_still_gets_the_refusal(client: httpx.Client, service: Service) -> None:
    before = stored(service)
    answer = client.post("/synthesize", files={"image": ("a.png", bytes(8 * LIMIT))})
    assert answer.status_code == 413
    assert answer.json()["type"] == "urn:pansynth:problem:upload-too-large"
    answer = client.post("/pools/default/images", files={"images": ("a.png", bytes(8 * LIMIT))})
    assert answer.status_code == 413
    assert stored(service) == before
    assert client.get("/livez").status_code == 200


def test_a_client_that_breaks_off_leaves_nothing(served: Served) -> None:
    before = stored(served.service)
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as connection:
        connection.sendall(head("Content-Length: 1000", "/pools/default/images") + b"--xyz\r\n")
    assert served.client.get("/livez").status_code == 200
    assert stored(served.service) == before


def test_what_has_come_of_an_upload_that_stalls_lies_on_the_disk(served: Served) -> None:
    """In memory, a thousand of them would fill it."""
    before = in_nameless_files()
    part = b'--xyz\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as connection:
        connection.sendall(head("Content-Length: 1000000", "/pools/default/images") + part + bytes(900_000))
        until(lambda: in_nameless_files() - before > 800_000, 20)


def in_nameless_files() -> int:
    """Bytes in this process's temporary files."""
    total = 0
    for file in Path("/dev/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            found = file.stat()
            if stat.S_ISREG(found.st_mode) and found.st_nlink == 0:
                total += found.st_size
    return total


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no form at all",
        b"--xyz\r\n",
        b'--xyz\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\nhalf',
        b"--xyz\r\nContent-Disposition: form-data\r\n\r\nnameless\r\n--xyz--\r\n",
        b"--xyz\r\n" + b"X" * 100_000 + b": y\r\n\r\n\r\n--xyz--\r\n",
    ],
)
def test_a_body_that_is_no_form_is_malformed(client: httpx.Client, body: bytes) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=xyz"}
    answer = client.post("/synthesize", content=body, headers=headers)
    assert answer.status_code in (400, 422)
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("kind", ["multipart/form-data", f"multipart/form-data; boundary={'b' * 300}"])
def test_a_form_without_a_usable_boundary_is_malformed(client: httpx.Client, kind: str) -> None:
    answer = client.post("/synthesize", content=b"x", headers={"Content-Type": kind})
    assert answer.status_code == 400


def test_too_many_or_too_long_texts_are_refused(client: httpx.Client) -> None:
    file = {"image": ("a.png", b"x")}
    many = client.post("/synthesize", data={f"f{n}": "1" for n in range(200)}, files=file)
    long = client.post("/synthesize", data={"pool": "p" * 5000}, files=file)
    twice = client.post("/synthesize", data={"seed": ["1", "2"]}, files=file)
    named = client.post("/synthesize", files={"f" * 5000: file["image"], "g" * 5000: file["image"]})
    assert [answer.status_code for answer in (many, long, twice, named)] == [422, 422, 422, 422]
    assert len(refused(named)) == 1, "the first should have ended it: names are kept in memory"
    assert long.json()["errors"][0]["field"] == "pool"
    assert {"field": "seed", "detail": "is given 2 times; give it once"} in twice.json()["errors"]


def test_files_keep_their_bytes_across_pieces(client: httpx.Client, service: Service) -> None:
    contents = [b"", b"\r\n--xyz", bytes(range(256)) * 3000, b"\r\n" * 70_000, b"-"]
    files = [("images", (f"{n}.png", content)) for n, content in enumerate(contents)]
    job = client.post("/pools/default/images", files=files).json()["id"]
    assert [service.blobs.get(f"jobs/{job}/uploads/{n}") for n in range(len(contents))] == contents


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("a.png", "a.png"),
        ("2021/March/a.png", "2021/March/a.png"),
        ("2021\\March\\a.png", "2021/March/a.png"),
        ("/home/me/a.png", "a.png"),
        ("C:\\pans\\a.png", "a.png"),
        ("f" * 250 + "/a.png", "a.png"),
        ("Röntgen 1.dcm", "Röntgen 1.dcm"),
    ],
)
def test_a_file_keeps_its_name_below_the_folder_that_was_sent(given: str, kept: str) -> None:
    assert checked_name("image", given) == kept


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("filename*=utf-8''r%C3%B6ntgen.png", "röntgen.png"),
        ("filename=\"=?utf-8?B?csO2bnRnZW4ucG5n?=\"; filename*=utf-8''r%C3%B6ntgen.png", "röntgen.png"),
        ("filename*=UTF-8'de'r%C3%B6ntgen.png; filename=\"r_ntgen.png\"", "röntgen.png"),
        ('filename="röntgen.png"', "röntgen.png"),
    ],
)
def test_a_name_with_umlauts_arrives_from_any_client(
    client: httpx.Client, service: Service, sent: str, kept: str
) -> None:
    part = f'--xyz\r\nContent-Disposition: form-data; name="images"; {sent}\r\n\r\nx\r\n--xyz--\r\n'.encode()
    headers = {"Content-Type": "multipart/form-data; boundary=xyz"}
    answer = client.post("/pools/default/images", content=part, headers=headers)
    assert answer.status_code == 202, answer.text
    with service.database.read() as session:
        assert session.scalars(select(Upload.name)).all() == [kept]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("Röntgen.png".encode("cp850"), "R\ufffdntgen.png"),  # from an old zip, unpacked under Linux
        (b"a\x00b.png", "a\ufffdb.png"),
        (b"\x1b[2J.png", "\ufffd[2J.png"),
        ("a\u202egnp.exe".encode(), "a\ufffdgnp.exe"),  # shown as aexe.png
        ("a\u2028b.png".encode(), "a\ufffdb.png"),  # two lines to `splitlines`
        ("صورة\u200f \u0646\u0645\u06cc\u200c\u062e.png".encode(), "صورة\u200f نمی\u200cخ.png"),
    ],
)
def test_one_odd_name_does_not_refuse_all_files(client: httpx.Client, service: Service, sent: bytes, kept: str) -> None:
    head = b'--xyz\r\nContent-Disposition: form-data; name="images"; filename="'
    parts = b"".join(head + name + b'"\r\n\r\nx\r\n' for name in (b"a.png", sent)) + b"--xyz--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=xyz"}
    answer = client.post("/pools/default/images", content=parts, headers=headers)
    assert answer.status_code == 202, answer.text
    with service.database.read() as session:
        assert set(session.scalars(select(Upload.name))) == {"a.png", kept}


def test_an_extended_name_is_checked_as_any_other(client: httpx.Client) -> None:
    part = b"--xyz\r\nContent-Disposition: form-data; name=images; filename*=utf-8''..%2Fa.png\r\n\r\nx\r\n--xyz--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=xyz"}
    assert client.post("/pools/default/images", content=part, headers=headers).status_code == 422


def test_a_parameter_in_the_address_is_not_ignored(client: httpx.Client, pool: str) -> None:
    answer = client.post("/synthesize?top_k=1", data={"pool": pool}, files=guide_files())
    assert refused(answer) == {"top_k": "stands in the address; send it as a field of the form"}


def test_any_file_name_is_taken_or_refused_but_never_an_error(client: httpx.Client) -> None:
    names = [bytes([n]) for n in (0, 1, 10, 13, 27, 34, 37, 39, 47, 58, 59, 92, 127, 128, 255)]
    names += [
        b"\xff\xfe",
        b"a" * 255,
        b"a" * 256,
        b"/",
        b"..",
        b'\\"',
        b"%00",
    ]
    for name in names:
        part = b'--xyz\r\nContent-Disposition: form-data; name="images"; filename="' + name + b'"\r\n\r\nx\r\n'
        headers = {"Content-Type": "multipart/form-data; boundary=xyz", "X-Request": "name"}
        answer = client.post("/pools/default/images", content=part + b"--xyz--\r\n", headers=headers)
        assert answer.status_code < 500, name
        if answer.status_code == 202:
            client.post(answer.json()["links"]["cancel"])


def test_a_request_holds_thousands_of_files_and_not_more_than_20000(client: httpx.Client, service: Service) -> None:
    def sent(count: int) -> httpx.Response:
        part = b'--xyz\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n\r\n'
        headers = {"Content-Type": "multipart/form-data; boundary=xyz"}
        return client.post("/pools/default/images", content=count * part + b"--xyz--\r\n", headers=headers)

    before = stored(service)
    assert refused(sent(20_001))["images"].startswith("at most 20000 files")
    assert stored(service) == before
    assert sent(2000).json()["progress"]["total"] == 2000
