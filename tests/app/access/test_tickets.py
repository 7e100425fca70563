"""app/access/tickets.py: an address that a browser can save from without a header."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from app.access import api_keys, tickets
from tests.clocks import set_clock
from tests.key_holders import as_of, holder_of, make_key
from tests.serving import Served, fill_pool, finish, refused, submit


@pytest.fixture
def holder(guarded: Served) -> Iterator[httpx.Client]:
    with holder_of(guarded, make_key(guarded.service)) as client:
        fill_pool(as_of(guarded.service, "clinic"), "held", 2)
        submit(client, "held")
        finish(as_of(guarded.service, "clinic"), "held", 2, b"the dataset")
        yield client


def dataset(client: httpx.Client) -> str:
    (job,) = client.get("/jobs", params={"kind": "synthesis"}).json()["items"]
    path: str = job["links"]["dataset"]
    return path


def test_a_ticket_downloads_from_its_address_and_no_other(guarded: Served, holder: httpx.Client) -> None:
    path = dataset(holder)
    href = holder.post("/tickets", json={"path": path}).json()["href"]
    assert guarded.client.get(href).content == b"the dataset"
    part = guarded.client.get(href, headers={"Range": "bytes=4-6"})
    assert (part.status_code, part.content) == (206, b"dat")
    for other in (path.removesuffix("/dataset"), f"{path.removesuffix('dataset')}samples", "/pools"):
        assert guarded.client.get(href.replace(path, other)).status_code == 401


def test_a_ticket_changes_nothing(guarded: Served, holder: httpx.Client) -> None:
    job = dataset(holder).removesuffix("/dataset")
    for method, path in (("DELETE", job), ("POST", f"{job}/cancel")):
        href = holder.post("/tickets", json={"path": path}).json()["href"]
        assert guarded.client.request(method, href).status_code == 401
    assert holder.get(job).status_code == 200


def test_a_ticket_lists_too(guarded: Served, holder: httpx.Client) -> None:
    href = holder.post("/tickets", json={"path": "/jobs"}).json()["href"]
    assert guarded.client.get(href).json() == holder.get("/jobs").json()


def test_a_ticket_runs_out_and_cannot_be_stretched() -> None:
    secret, now = b"s" * 32, datetime(2030, 1, 1, tzinfo=UTC)
    ticket, expires_at = tickets.ticket_for(secret, "0123456789ab", "/x", now)
    assert expires_at == now + timedelta(seconds=60)
    assert tickets.holder(secret, ticket, "/x", now + timedelta(seconds=59)) == "0123456789ab"
    assert tickets.holder(secret, ticket, "/x", now + timedelta(seconds=60)) is None
    prefix, until, signature = ticket.split(".")
    for forged in (f"{prefix}.{int(until) + 9}.{signature}", f"fedcba987654.{until}.{signature}", "", "x.y.z"):
        assert tickets.holder(secret, forged, "/x", now) is None
    assert tickets.holder(b"t" * 32, ticket, "/x", now) is None


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_ticket_of_an_api_is_good_at_another_whose_clock_is_off(
    guarded: Served, holder: httpx.Client, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    path = dataset(holder)
    right = holder.post("/tickets", json={"path": path}).json()["href"]
    with monkeypatch.context() as its:
        set_clock(its, timedelta(hours=hours), "routes.access")
        wrong = holder.post("/tickets", json={"path": path}).json()["href"]
    set_clock(monkeypatch, timedelta(hours=hours), "access.callers")
    assert [guarded.client.get(href).status_code for href in (right, wrong)] == [200, 200]


def test_a_ticket_ends_with_its_key(guarded: Served, holder: httpx.Client) -> None:
    href = holder.post("/tickets", json={"path": dataset(holder)}).json()["href"]
    prefix = api_keys.prefix_of(holder.headers["Authorization"].removeprefix("Bearer ")) or ""
    with guarded.service.database.write() as session:
        api_keys.revoke(session, prefix)
    guarded.service.callers._believed.clear()  # as after five seconds
    assert guarded.client.get(href).status_code == 401


def test_a_ticket_opens_no_foreign_job(guarded: Served, holder: httpx.Client) -> None:
    with holder_of(guarded, make_key(guarded.service, "stranger")) as stranger:
        href = stranger.post("/tickets", json={"path": dataset(holder)}).json()["href"]
    assert guarded.client.get(href).status_code == 404


def test_where_no_keys_are_asked_for_a_ticket_is_the_address_itself(client: httpx.Client) -> None:
    assert client.post("/tickets", json={"path": "/jobs/x"}).json() == {"href": "/jobs/x", "expires_at": None}


@pytest.mark.parametrize(
    "path", ["jobs", "https://elsewhere.example/", "//elsewhere.example/x", "/a b", "/jobs?limit=1", ""]
)
def test_a_ticket_is_for_a_path_of_this_service(client: httpx.Client, path: str) -> None:
    assert "as in a job's links" in refused(client.post("/tickets", json={"path": path}))["path"]
