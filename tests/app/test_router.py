import httpx
import pytest

from tests.serving import guide_files, submit


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/jobs", "/jobs/{}", "/jobs/{}/samples", "/pools", "/pools/held/images", "/metrics"]
)
def test_head_is_answered_as_get_without_the_body(client: httpx.Client, pool: str, path: str) -> None:
    path = path.format(submit(client, pool)["id"])
    asked, told = client.get(path), client.head(path)
    assert told.status_code == 200
    assert not told.content
    assert told.headers["Content-Type"] == asked.headers["Content-Type"]
    if path != "/metrics":  # which has counted one request more
        assert told.headers["Content-Length"] == asked.headers["Content-Length"]


def test_head_does_not_follow_a_job(client: httpx.Client, pool: str) -> None:
    told = client.head(submit(client, pool)["links"]["events"])
    assert told.headers["Content-Type"].startswith("text/event-stream")
    assert client.get("/livez").status_code == 200, "the connection is free again"


def test_head_of_what_is_not_there_is_404(client: httpx.Client) -> None:
    assert client.head("/jobs/x").status_code == 404


def test_an_address_with_a_slash_too_many_is_refused_in_words(client: httpx.Client, pool: str) -> None:
    """A redirection says nothing to whoever does not follow it, and would name the service as its proxy sees it."""
    for answer in (
        client.post("/synthesize/", data={"pool": pool, "top_k": "1"}, files=guide_files()),
        client.get("/jobs/"),
    ):
        assert answer.status_code == 404
        assert "/docs lists what there is" in answer.json()["detail"]
