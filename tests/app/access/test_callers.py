"""Who gets in: app/access/callers.py and the dependencies of app/service.py, over HTTP."""

import socket
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from app.access import api_keys
from app.access.api_keys import Scope
from app.service import Service
from app.tables import ApiKey
from tests.clocks import set_clock
from tests.key_holders import holder_of, make_key
from tests.serving import Served, answer_of, head, statements_of, stored
from tests.waiting import until

OPEN = {"/livez", "/readyz"}
BODIES = {"/pools": {"name": "x"}, "/tickets": {"path": "/"}}


def addresses(client: httpx.Client) -> list[tuple[str, str]]:
    """(method, path) of every documented route, with ids that nobody has."""
    parameters = {"{job_id}": "0" * 32, "{name}": "nobody", "{image_id}": "1", "{index}": "0"}
    found = []
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for name, value in parameters.items():
            path = path.replace(name, value)
        assert "{" not in path, f"{path}: say here what stands for it"
        found += [(method.upper(), path) for method in methods]
    return found


def test_without_a_key_every_route_but_the_open_ones_is_refused(guarded: Served) -> None:
    asked = addresses(guarded.client)
    assert len(asked) > 20
    for method, path in asked:
        answer = guarded.client.request(method, path, json=BODIES.get(path))
        if path in OPEN:
            assert answer.status_code in (200, 503), path
            continue
        assert (answer.status_code, answer.headers["Content-Type"]) == (401, "application/problem+json"), path
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="pansynth"'
        assert "Authorization: Bearer pansynth_" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/", "/docs", "/static/main.js", "/openapi.json", "/livez"])
def test_the_pages_own_files_need_no_key(guarded: Served, path: str) -> None:
    assert guarded.client.get(path).status_code == 200


def test_where_no_keys_are_asked_for_a_key_changes_nothing(client: httpx.Client) -> None:
    assert client.get("/jobs", headers={"Authorization": "Bearer of something else"}).status_code == 200


@pytest.mark.parametrize("host", ["localhost", "LocalHost:8000", "127.0.0.1", "127.0.0.1:80", "[::1]:8000"])
def test_without_keys_it_answers_under_names_of_this_machine(client: httpx.Client, host: str) -> None:
    assert client.get("/jobs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.test", "evil.test:8000", "127.0.0.1.evil.test", "192.168.1.7", "a b", "[::1", ""]
)
def test_without_keys_it_answers_under_no_other_name(client: httpx.Client, guarded: Served, host: str) -> None:
    answer = client.get("/jobs", headers={"Host": host})
    assert (answer.status_code, answer.headers["Content-Type"]) == (403, "application/problem+json")
    assert "PANSYNTH_API_KEYS_REQUIRED" in answer.json()["detail"]
    with holder_of(guarded, make_key(guarded.service)) as holder:
        assert holder.get("/jobs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_without_keys_a_page_of_another_site_changes_nothing(client: httpx.Client, service: Service, site: str) -> None:
    before = stored(service)
    for method, path in addresses(client):
        answer = client.request(method, path, headers={"Sec-Fetch-Site": site}, json=BODIES.get(path))
        assert method == "GET" or path in OPEN or answer.status_code == 403, (method, path, answer.text)
    assert stored(service) == before


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "http://localhost:1", "null", ""])
def test_without_keys_a_browser_that_names_its_pages_site_by_origin_alone_changes_nothing(
    client: httpx.Client, origin: str
) -> None:
    answer = client.post("/pools", headers={"Origin": origin}, json={"name": "theirs"})
    assert (answer.status_code, answer.json()["title"]) == (403, "Forbidden")
    of_our_page = {"Origin": str(client.base_url).rstrip("/")}
    assert client.delete("/pools/none", headers=of_our_page).status_code == 404


def test_without_keys_the_own_page_and_other_clients_may(client: httpx.Client) -> None:
    for number, site in enumerate(("same-origin", "none", None)):
        headers = {"Sec-Fetch-Site": site} if site else {}
        assert client.post("/pools", headers=headers, json={"name": f"p{number}"}).status_code == 201


def test_a_key_lets_in_and_a_wrong_one_does_not(guarded: Served) -> None:
    token = make_key(guarded.service)
    with holder_of(guarded, token) as client:
        assert client.get("/pools").json()["items"][0]["name"] == "default"
    forged = token[:-4] + ("AAAA" if not token.endswith("AAAA") else "BBBB")
    for wrong in (forged, token[:-1], token.replace("pansynth", "other"), "x", "pansynth_000000000000_" + "a" * 43):
        answer = guarded.client.get("/pools", headers={"Authorization": f"Bearer {wrong}"})
        assert answer.status_code == 401
        assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


def test_a_key_is_asked_for_in_the_documentation(guarded: Served) -> None:
    document = guarded.client.get("/openapi.json").json()
    assert document["components"]["securitySchemes"]["api_key"]["scheme"] == "bearer"
    assert document["paths"]["/jobs"]["get"]["security"] == [{"api_key": []}]
    assert "security" not in document["paths"]["/livez"]["get"]


@pytest.mark.parametrize(
    ("scope", "allowed", "refused"),
    [
        ("read", [("GET", "/jobs"), ("GET", "/presets"), ("GET", "/models")], [("POST", "/pools"), ("GET", "/audit")]),
        ("submit", [("POST", "/pools"), ("DELETE", "/pools/x")], [("GET", "/jobs"), ("GET", "/metrics")]),
        ("admin", [("GET", "/audit"), ("GET", "/metrics")], [("GET", "/jobs"), ("DELETE", "/pools/default")]),
    ],
)
def test_a_scope_lets_do_what_it_is_for_and_the_refusal_names_the_one_that_lacks(
    guarded: Served, scope: Scope, allowed: list[tuple[str, str]], refused: list[tuple[str, str]]
) -> None:
    body = {"name": "x"}
    with holder_of(guarded, make_key(guarded.service, scopes=[scope])) as client:
        for method, path in allowed:
            answer = client.request(method, path, json=body if method == "POST" else None)
            assert answer.is_success, (path, answer.text)
        for method, path in refused:
            answer = client.request(method, path, json=body if method == "POST" else None)
            assert answer.status_code == 403, path
            needed = "admin" if path in ("/audit", "/metrics") else "read" if method == "GET" else "submit"
            assert f"the scope '{needed}'" in answer.json()["detail"]
            assert f'scope="{needed}"' in answer.headers["WWW-Authenticate"]


def test_an_expired_key_is_refused(guarded: Served) -> None:
    token = make_key(guarded.service, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    with holder_of(guarded, token) as client:
        assert "expired at" in client.get("/jobs").json()["detail"]


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_key_expires_by_the_databases_clock_whatever_that_of_the_api_says(
    guarded: Served, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    now = datetime.now(UTC)
    good = make_key(guarded.service, expires_at=now + timedelta(hours=1))
    late = make_key(guarded.service, expires_at=now - timedelta(hours=1))
    set_clock(monkeypatch, timedelta(hours=hours), "access.callers", "access.api_keys")
    answers = []
    for token in (good, late):
        with holder_of(guarded, token) as client:
            answers.append(client.get("/jobs").status_code)
    assert answers == [200, 401]


def test_a_revoked_key_is_refused_within_seconds_and_its_event_streams_end(guarded: Served) -> None:
    token = make_key(guarded.service)
    with holder_of(guarded, token) as client:
        job = client.post("/pools/default/images", files={"images": ("a.png", b"x")}).json()
        with client.stream("GET", job["links"]["events"]) as stream:
            with guarded.service.database.write() as session:
                api_keys.revoke(session, token[:21])
            assert "data: " in stream.read().decode()  # the stream ends, though the job does not
        answer = client.get("/jobs")
    assert answer.status_code == 401
    assert "was revoked" in answer.json()["detail"]


def test_an_upload_that_began_before_its_key_was_revoked_does_not_come_in(guarded: Served) -> None:
    token = make_key(guarded.service)
    part = b'--xyz\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\nx\r\n--xyz--\r\n'
    upload = head(f"Content-Length: {len(part)}\r\nAuthorization: Bearer {token}", "/pools/default/images") + part
    before = stored(guarded.service)
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=60) as connection:
        connection.sendall(upload[:-9])
        until(lambda: api_keys.prefix_of(token) in guarded.service.callers._believed)  # it was let in
        with guarded.service.database.write() as session:
            api_keys.revoke(session, token[:21])
        guarded.service.callers._believed.clear()
        connection.sendall(upload[-9:])
        answer = answer_of(connection)
    assert answer.startswith("HTTP/1.1 401 ")
    assert "was revoked" in answer
    rows, blobs = stored(guarded.service)
    assert (rows["jobs"], blobs) == (before[0]["jobs"], before[1])


def test_the_last_use_is_written_once_a_minute(guarded: Served) -> None:
    service = guarded.service
    token = make_key(service)
    prefix = api_keys.prefix_of(token)
    with statements_of(service, "UPDATE api_keys") as writes, holder_of(guarded, token) as client:
        for _ in range(3):
            client.get("/jobs")
            service.callers._believed.clear()
        assert len(writes) == 1
        with service.database.write() as session:
            session.get_one(ApiKey, prefix).last_used_at = datetime.now(UTC) - timedelta(seconds=61)
        writes.clear()
        client.get("/jobs")
    assert len(writes) == 1


def test_who_knows_only_a_keys_prefix_does_not_use_it(guarded: Served) -> None:
    token = make_key(guarded.service)
    with holder_of(guarded, token[:22] + "A" * 43) as client:
        assert client.get("/jobs").status_code == 401
    with guarded.service.database.read() as session:
        assert session.get_one(ApiKey, api_keys.prefix_of(token)).last_used_at is None


def test_the_key_itself_is_nowhere_in_the_store(guarded: Served) -> None:
    token = make_key(guarded.service)
    with holder_of(guarded, token) as client:
        client.get("/jobs")
    folder = guarded.service.settings.data_dir
    stored = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert token[:21].removeprefix("pansynth_").encode() in stored  # its prefix
    assert token[22:].encode() not in stored
