import tempfile
from pathlib import Path

import httpx
import psycopg
import pytest
from sqlalchemy import event, make_url

from app import database, errors
from app.problems import DOMAIN_ERRORS, from_domain
from app.service import Service
from app.settings import Settings
from tests.bad_requests import status_of_deep
from tests.serving import fill_pool, guide_files, refused, serving


def test_a_kind_of_problem_has_one_title_whoever_tells_it(client: httpx.Client) -> None:
    """RFC 9457: it should not change from one to the next."""
    paths = ("/nowhere", "/static/none.js", "/pools/default/images/x")
    assert {client.get(path).json()["title"] for path in paths} == {"Not found"}


def test_a_mistake_of_the_service_is_a_problem_with_every_header_on_a_connection_that_stays(
    client: httpx.Client, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistaken(_: object) -> None:
        raise ZeroDivisionError("of patient Jane Doe")

    with monkeypatch.context() as patched:
        patched.setattr(type(service.database), "read", mistaken)
        answer = client.get("/jobs")
    assert (answer.status_code, answer.headers["Content-Type"]) == (500, "application/problem+json")
    assert answer.json()["type"] == "urn:pansynth:problem:internal-error"
    assert "Jane" not in answer.text
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert client.get("/jobs").status_code == 200


def test_a_method_that_is_not_allowed_names_those_that_are(client: httpx.Client) -> None:
    assert client.put("/pools").headers["Allow"] == "GET, HEAD, POST"
    assert client.put("/").headers["Allow"] == "GET, HEAD"


def test_json_that_is_not_as_asked_is_refused_in_plain_words(client: httpx.Client) -> None:
    assert refused(client.post("/pools", json={"nme": "b"})) == {
        "name": "is missing",
        "nme": "is no field of this request; leave it out",
    }
    for content in (b'{"name": "\xff"}', *(b'{"name": ' + n * b"[" + n * b"]" + b"}" for n in (3000, 30_000))):
        answer = client.post("/pools", content=content, headers={"Content-Type": "application/json"})
        if b"[" in content and status_of_deep(content) == 422:
            assert list(refused(answer)) == ["name"]
        else:
            assert answer.status_code == 400
            assert answer.json()["detail"].startswith("the body is not JSON in UTF-8, is nested too deeply or ")


def test_json_with_a_number_too_long_to_be_read_is_told_as_that(client: httpx.Client) -> None:
    content = b'{"name": ' + 5000 * b"1" + b"}"
    answer = client.post("/pools", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400 and answer.json()["detail"].endswith("a number of thousands of digits")


def test_a_field_whose_name_is_no_text_is_told_as_that(client: httpx.Client) -> None:
    answer = client.post("/pools", content=b'{"\\ud800": 1}', headers={"Content-Type": "application/json"})
    assert refused(answer) == {"body": r"has a field whose name is no text: '\ud800'; leave it out"}


def test_a_name_as_long_as_a_body_is_not_repeated_whole(client: httpx.Client) -> None:
    name = "n" * 25_000
    for answer in (
        client.post("/pools", json={"name": "a", name: 1}),
        client.get("/pools", params={name: "1"}),
        client.get("/pools", params=[(name, "1"), (name, "2")]),
    ):
        assert list(refused(answer)) == [f"{'n' * 60}..."]
        assert len(answer.content) < 1000


def test_json_under_another_name_is_told_which_name_to_bear(client: httpx.Client) -> None:
    answer = client.post(
        "/pools", content=b'{"name": "a"}', headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert answer.status_code == 415
    assert "as application/json, not as application/x-www-form-urlencoded" in answer.json()["detail"]


@pytest.mark.parametrize("body", [b"", b"[]"])
def test_a_body_that_is_no_object_is_told_to_be_one(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/pools", content=body, headers={"Content-Type": "application/json"})
    assert answer.json()["errors"] == [{"field": "body", "detail": "should be a JSON object"}]


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=x"])
def test_a_large_body_is_refused_where_none_is_expected_whatever_it_calls_itself(
    client: httpx.Client, kind: str
) -> None:
    answer = client.post("/pools", content=b'{"name": "' + b"a" * 1_000_000, headers={"Content-Type": kind})
    assert answer.status_code == 413
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:pansynth:problem:request-entity-too-large"  # under any version of Python


def test_every_error_of_the_domain_has_its_status() -> None:
    internal = {errors.PansynthError, errors.BlobDamaged, errors.LeaseLost, errors.LastingError, errors.UnusableInput}
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.PansynthError) and kind not in internal:
            assert kind in DOMAIN_ERRORS
            assert from_domain(kind("in words")).status in (*range(400, 500), 503)


def test_a_database_that_is_away_is_503_and_comes_back(settings: Settings) -> None:
    away = settings.model_copy(update={"database_url": "postgresql://nobody@127.0.0.1:1/none"})
    with serving(away) as served:
        answers = [served.client.get("/jobs"), served.client.post("/pools", json={"name": "a"})]
        assert served.client.get("/livez").status_code == 200
    for answer in answers:
        assert answer.status_code == 503
        assert "Retry-After" in answer.headers
        assert "database" in answer.json()["detail"]


def test_a_database_that_is_read_only_for_now_is_503(
    settings: Settings, postgres: str, postgres_url: str, tmp_path: Path
) -> None:
    """As a standby is while another server takes over, or one that its provider found too full."""
    database.migrate(postgres_url)

    def read_only(value: str) -> None:
        with psycopg.connect(postgres, autocommit=True) as connection:
            name = make_url(postgres_url).database
            connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = {value}")

    read_only("on")
    with serving(settings.model_copy(update={"database_url": postgres_url, "data_dir": tmp_path})) as served:
        refused = served.client.post("/pools", json={"name": "a"})
        assert served.client.get("/pools").status_code == 200
        read_only("off")
        accepted = [served.client.post("/pools", json={"name": name}).status_code for name in "abc"]
    assert refused.status_code == 503
    assert "database" in refused.json()["detail"]
    assert accepted[1:] == [201, 201]  # the first may meet a connection of before


def test_a_job_is_accepted_while_the_broker_is_away(
    settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("away")
    change = {"broker_url": "redis+socket:///nowhere/broker.sock", "data_dir": folder}
    with serving(settings.model_copy(update=change)) as served:
        fill_pool(served.service, "held", 1)
        data = {"pool": "held", "top_k": "1"}
        answer = served.client.post("/synthesize", data=data, files=guide_files())
        assert answer.status_code == 202
        assert served.client.get(answer.headers["Location"]).json()["status"] == "queued"


def test_what_is_deleted_while_the_blob_store_is_away_is_gone_and_not_to_be_deleted_again(
    settings: Settings, s3_url: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    change = {"blob_url": s3_url, "data_dir": tmp_path_factory.mktemp("away")}
    with serving(settings.model_copy(update=change)) as served:
        served.client.post("/pools", json={"name": "held"})
        upload = served.client.post("/pools/held/images", files={"images": ("a.png", b"x")})
        deletion = served.client.delete("/pools/held")
        assert served.client.get("/pools/held").status_code == 404
    assert (upload.status_code, deletion.status_code) == (503, 204)
    assert "the blob store does not answer" in upload.json()["detail"]


def test_a_blob_store_that_cannot_be_read_is_away_and_not_said_where_it_is(
    settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("broken")
    with serving(settings.model_copy(update={"data_dir": folder})) as served:
        fill_pool(served.service, "held", 1)
        (folder / "blobs").rename(folder / "moved")
        (folder / "blobs").write_text("a file where the blobs were")
        answer = served.client.get("/pools/held/images/1")
    assert (answer.status_code, answer.headers["Content-Type"]) == (503, "application/problem+json")
    assert "the blob store does not answer" in answer.json()["detail"]
    assert str(folder) not in answer.text


def test_an_upload_for_which_there_is_no_room_may_come_again(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, full_device: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: full_device.open("r+b", 0))
    answer = client.post("/pools/default/images", files={"images": ("a.png", b"pixels")})
    assert answer.status_code == 503
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert "Retry-After" in answer.headers
    assert "the folder of uploads under way has no room" in answer.json()["detail"]
    assert f"in {tempfile.gettempdir()}: " in caplog.text, "it is another disk than the service's, maybe"


def test_a_database_for_which_there_is_no_room_is_not_said_to_be_away(
    settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with serving(settings.model_copy(update={"data_dir": tmp_path_factory.mktemp("full")})) as served:
        engine = served.service.database.engine
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA max_page_count=1"))
        engine.dispose()  # the connections that there are may still grow the file
        files = [("images", (f"{number:0200}.png", b"x")) for number in range(500)]
        answer = served.client.post("/pools/default/images", files=files)
    assert answer.status_code == 503
    assert "the database has no room" in answer.json()["detail"]
