"""POST /evaluations and its report."""

import json

import httpx
import pytest

from app import evaluations, keys
from app.service import Service
from models import pixels
from tests.evaluations import both_sets, finished_synthesis, labeled_files, send
from tests.serving import claim, guide_files, refused, stored


@pytest.fixture
def synthesis(client: httpx.Client, service: Service, pool: str) -> str:
    return finished_synthesis(client, service, pool)


def test_an_evaluation_is_a_job_of_an_arm_per_seed(client: httpx.Client, synthesis: str) -> None:
    answer = send(client, synthesis)
    assert answer.status_code == 202
    job = answer.json()
    assert client.get(answer.headers["Location"]).json() == job
    assert (job["kind"], job["progress"]) == ("evaluation", {"done": 0, "total": 6})
    assert [arm["name"] for arm in job["parameters"]["arms"]] == [
        "real",
        "top 2 paper, synthetic",
        "top 2 paper, real+synthetic",
    ]
    assert (job["parameters"]["real_images"], job["parameters"]["test_images"]) == (2, 2)
    assert [item["id"] for item in client.get("/jobs?kind=evaluation").json()["items"]] == [job["id"]]


def test_what_is_no_synthesis_is_refused_in_words(client: httpx.Client) -> None:
    words = "should be the id of a synthesis job, as GET /jobs?kind=synthesis lists it; got 'nope'"
    assert refused(send(client, "nope"))["synthesis"] == words
    assert refused(client.post("/evaluations", files=both_sets()))["synthesis"] == "is missing"


def test_two_syntheses_alike_are_told_apart(client: httpx.Client, service: Service, pool: str, synthesis: str) -> None:
    other = finished_synthesis(client, service, pool)
    control = finished_synthesis(client, service, pool, method="paste", selection="random")
    arms = send(client, f"{synthesis},{other}", arms="synthetic").json()["parameters"]["arms"]
    assert [arm["name"] for arm in arms] == [f"top 2 paper {job[:8]}, synthetic" for job in (synthesis, other)]
    arms = send(client, f"{synthesis},{control}", arms="synthetic").json()["parameters"]["arms"]
    names = ["top 2 paper, synthetic", "top 2 paper paste random selection, synthetic"]
    assert [arm["name"] for arm in arms] == names


def test_a_synthesis_named_twice_is_evaluated_once(client: httpx.Client, synthesis: str) -> None:
    parameters = send(client, f"{synthesis},{synthesis}", arms="synthetic,real").json()["parameters"]
    assert parameters["synthesis"] == [synthesis]
    assert [arm["name"] for arm in parameters["arms"]] == ["real", "top 2 paper, synthetic"]


def test_the_report_comes_after_the_last_arm(client: httpx.Client, service: Service, synthesis: str) -> None:
    job = send(client, synthesis, arms="real").json()
    early = client.get(job["links"]["report"])
    assert early.status_code == 409 and "wait for it" in early.json()["detail"]
    for made in (0, 1):
        with service.database.write() as session:
            assert evaluations.arm_done(session, claim(service)) == made
    assert client.get(job["links"]["self"]).json()["stage"] == "reporting"
    last = claim(service)
    forms = {form: form.encode() for form in evaluations.FORMATS}
    for form, data in forms.items():
        service.blobs.put(keys.report(job["id"], form), data)
    with service.database.write() as session:
        evaluations.reported(session, last, {form: pixels.sha256(data) for form, data in forms.items()})
    done = client.get(job["links"]["self"]).json()
    assert (done["status"], done["stage"], done["progress"]) == ("succeeded", None, {"done": 2, "total": 2})
    for form, link in {"json": "report", "csv": "csv", "md": "md", "png": "png"}.items():
        answer = client.get(job["links"][link])
        assert answer.content == forms[form]
        assert answer.headers["Content-Type"] == evaluations.FORMATS[form]
        assert answer.headers["ETag"] == f'"{pixels.sha256(forms[form])}"'
        head = client.head(job["links"][link])
        assert (head.status_code, head.content, head.headers["ETag"]) == (200, b"", answer.headers["ETag"])
    assert client.delete(job["links"]["self"]).status_code == 204
    assert not list(service.blobs.list(f"jobs/{job['id']}/"))


def test_the_same_key_and_content_give_the_same_job(client: httpx.Client, synthesis: str) -> None:
    data = {"synthesis": synthesis, "seeds": "1"}
    posts = [
        client.post("/evaluations", data=data, files=both_sets(), headers={"Idempotency-Key": "k"}) for _ in range(2)
    ]
    assert [post.status_code for post in posts] == [202, 200]
    assert posts[0].json()["id"] == posts[1].json()["id"]


def test_a_test_image_that_was_trained_on_is_refused_and_nothing_is_kept(
    client: httpx.Client, service: Service, synthesis: str
) -> None:
    before = stored(service)
    found = refused(send(client, synthesis, labeled_files("real", 0, 2) + labeled_files("test", 1, 2)))
    assert found["test_image"].startswith("'test-0.png' has the same pixels as the real image 'real-1.png'; ")
    found = refused(send(client, synthesis, labeled_files("real", 0, 2) + labeled_files("test", 0, 3)))
    assert "'real-0.png', 'test-1.png' has" in found["test_image"], "all that leak are named at once"
    assert "'test-2.png'" not in found["test_image"]
    assert stored(service) == before


def test_a_test_image_that_a_synthesis_was_made_from_is_refused(
    client: httpx.Client, pool: str, synthesis: str
) -> None:
    (_, mask) = labeled_files("test", 2, 1)
    background = client.get(client.get(f"/pools/{pool}/images").json()["items"][0]["links"]["self"]).content
    files = [*labeled_files("real", 0, 2), ("test_image", ("pan.png", background, "image/png")), mask]
    files += [(f"test_{field}", file) for field, file in guide_files()]
    found = refused(send(client, synthesis, files))["test_image"]
    assert "'pan.png' has the same pixels as the pool image 'pan-0.png' of a synthesis" in found
    assert f"'guide-0.png' has the same pixels as the guide 'guide-0.png' of job {synthesis}" in found


def test_a_synthesis_of_cropped_guides_is_not_compared_with_whole_frames(
    client: httpx.Client, service: Service, pool: str
) -> None:
    cropped = finished_synthesis(client, service, pool, region="crop")
    assert "region none" in refused(send(client, cropped))["synthesis"]


def test_only_finished_syntheses_can_be_evaluated(client: httpx.Client, synthesis: str) -> None:
    running = send(client, synthesis).json()["id"]
    assert "it is of kind evaluation, and queued" in refused(send(client, running))["synthesis"]
    assert "there is none" in refused(send(client, "0" * 32))["synthesis"]
    assert "the id of a synthesis job" in refused(send(client, "'; drop table jobs"))["synthesis"]


def test_every_job_that_cannot_be_evaluated_is_named_at_once_and_before_the_images_are_read(
    client: httpx.Client, synthesis: str
) -> None:
    running = send(client, synthesis).json()["id"]
    damaged = [(name, (file, b"no image", kind)) for name, (file, _, kind) in both_sets()]
    found = refused(send(client, f"{running},{synthesis},{'0' * 32}", damaged))
    assert list(found) == ["synthesis"]
    assert f"'{running}' is not a finished synthesis: it is of kind evaluation, and queued" in found["synthesis"]
    assert f"'{'0' * 32}' is not a finished synthesis: there is none" in found["synthesis"]
    assert found["synthesis"].endswith("name jobs of GET /jobs?kind=synthesis&status=succeeded")
    assert synthesis not in found["synthesis"]


def test_every_wrong_field_is_named_at_once(client: httpx.Client, synthesis: str) -> None:
    files = [*labeled_files("real", 0, 2)[:3], ("tset_image", ("t.png", b"x", "image/png"))]
    found = refused(send(client, synthesis, files, steps="0", arms="imaginary", backbone="/etc", colour="red"))
    assert set(found) == {
        "real_mask",
        "test_image",
        "test_mask",
        "tset_image",
        "steps",
        "arms",
        "backbone",
        "colour",
    }


def test_sets_of_more_than_a_thousand_images_are_refused_before_any_is_read(
    client: httpx.Client, synthesis: str
) -> None:
    fields = ("real_image", "real_mask", "test_image", "test_mask")
    found = refused(send(client, synthesis, [(field, ("a.png", b"x", "image/png")) for field in fields] * 1001))
    assert found == dict.fromkeys(("real_image", "test_image"), "1001 files, at most 1000 fit in one job; send fewer")


def test_a_synthesis_cannot_be_deleted_while_an_evaluation_trains_on_it(client: httpx.Client, synthesis: str) -> None:
    evaluation = send(client, synthesis).json()
    answer = client.delete(f"/jobs/{synthesis}")
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:pansynth:problem:job-in-use")
    assert f"evaluation {evaluation['id']} trains on" in answer.json()["detail"]
    assert client.get(f"/jobs/{synthesis}/dataset").status_code == 200
    client.post(evaluation["links"]["cancel"])
    assert client.delete(f"/jobs/{synthesis}").status_code == 204


def test_a_bad_file_is_named_with_its_set(client: httpx.Client, synthesis: str) -> None:
    files = labeled_files("real", 0, 1) + labeled_files("test", 2, 1)
    files[2] = ("test_image", ("t.png", b"no image", "image/png"))
    assert set(refused(send(client, synthesis, files))) == {"test_image"}


def test_a_synthesis_has_no_report(client: httpx.Client, synthesis: str) -> None:
    answer = client.get(f"/jobs/{synthesis}/report")
    assert answer.status_code == 404 and "only evaluation jobs" in answer.json()["detail"]


def test_an_evaluation_has_no_dataset_and_can_be_cancelled(client: httpx.Client, synthesis: str) -> None:
    job = send(client, synthesis).json()
    assert client.get(f"{job['links']['self']}/dataset").status_code == 404
    assert client.post(job["links"]["cancel"]).json()["status"] == "cancelled"
    assert json.loads(client.get(job["links"]["report"]).content)["detail"].endswith("it never will be")
