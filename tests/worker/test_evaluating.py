"""Evaluations by real workers: the same figures however the arms were cut and shared out."""

import csv
import io
import json
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from app import evaluations, janitor, jobs, keys, pools
from app.blobs import Blobs
from app.errors import LeaseLost
from app.records import NewGuide
from models import evaluation, pixels
from models.metrics import METRICS
from models.phantoms import Phantom
from tests.waiting import until
from tests.worker_service import GoingOn, claim, ends_after, failure, look, submit, work_off, work_off_impatiently
from worker import evaluating, reading
from worker.lease import Lease
from worker.tasks import work
from worker.workplace import Workplace

LONG = 4  # steps of an arm: after fewer its figures are the same even where a handed-over arm lost its network


@pytest.fixture(scope="module")
def evaluated(
    going_on: GoingOn, filled: Callable[[int], Path], radiographs: Sequence[Phantom]
) -> tuple[Path, str, bytes]:
    """A data folder in which a synthesis has been made and evaluated once; the synthesis' id, and the report."""
    with going_on(filled(3)) as place:
        synthesis = submit(place, radiographs[:2], method="paste", top_k=2)
        work_off(place)
        evaluation = evaluate(place, radiographs, synthesis, steps=LONG)
        work_off(place)
        return place.settings.data_dir, synthesis, report(place, evaluation)


@pytest.fixture
def beginning(evaluated: tuple[Path, str, bytes]) -> Path:
    return evaluated[0]


@pytest.fixture
def synthesis(evaluated: tuple[Path, str, bytes]) -> str:
    return evaluated[1]


@pytest.fixture
def undisturbed(evaluated: tuple[Path, str, bytes]) -> bytes:
    """The report on it by one worker that nothing happens to."""
    return evaluated[2]


def evaluate(
    place: Workplace,
    radiographs: Sequence[Phantom],
    synthesis: str,
    seeds: int = 1,
    tests: Sequence[Phantom] | None = None,
    steps: int = 2,
    arms: Sequence[str] = (evaluations.REAL, evaluations.BOTH),
) -> str:
    """An evaluation of the two guides, tested on `tests` (None: the last two radiographs); its id."""
    job_id = uuid4().hex
    sets: list[list[NewGuide]] = []
    for name, chosen in (("real", radiographs[:2]), ("test", tests or radiographs[-2:])):
        rows = []
        for number, phantom in enumerate(chosen):
            image, mask = pixels.image_png(phantom.image), pixels.mask_png(phantom.mask)
            for png in (image, mask):
                place.blobs.put(keys.guide(job_id, pixels.sha256(png)), png)
            rows.append(NewGuide(f"{name}-{number}.png", 512, 256, pixels.sha256(image), pixels.sha256(mask)))
        sets.append(rows)
    parameters = {"arms": list(arms), "steps": steps, "seeds": seeds, "backbone": "tiny", "batch": 2}
    with place.database.write() as session:
        evaluations.submit_evaluation(
            session,
            job_id,
            real=sets[0],
            test=sets[1],
            parameters={**parameters, "equal_weights": True, "synthesis": [synthesis]},
        )
    return job_id


def report(place: Workplace, job_id: str, form: str = "json") -> bytes:
    job = look(place, job_id)
    assert (job.status, job.error) == ("succeeded", None)
    return place.blobs.get(keys.report(job_id, form))


def test_workers_of_earlier_versions_which_hold_out_other_images_leave_its_arms(
    place: Workplace, radiographs: Sequence[Phantom], synthesis: str
) -> None:
    evaluate(place, radiographs, synthesis)
    kinds = ("arm", "arm-2", "arm-4", "arm-5", "report")
    older = {"worker": "older", "lease_seconds": 9, "max_attempts": 5, "kinds": kinds}
    with place.database.write() as session:
        assert jobs.claim(session, now=datetime.now(UTC), **older) is None


def test_an_evaluation_compares_every_arm_with_real(
    place: Workplace, radiographs: Sequence[Phantom], synthesis: str
) -> None:
    job_id = evaluate(place, radiographs, synthesis, seeds=2, arms=evaluations.KINDS)
    work_off(place)
    found = json.loads(report(place, job_id))
    assert [(arm["name"], arm["training_images"]) for arm in found["arms"]] == [
        ("real", {"real": 2}),
        ("top 2 paper paste, synthetic", {"synthetic": 4}),
        ("top 2 paper paste, real+synthetic", {"real": 2, "synthetic": 4}),
    ]
    assert found["seeds"] == [0, 1] and found["parameters"]["steps"] == 2
    assert set(found["arms"][2]["against_real"]["dice"]) == {"difference", "low", "high", "p"}
    rows = list(csv.DictReader(io.StringIO(report(place, job_id, "csv").decode())))
    assert len(rows) == 3 * 2 * 2 and {row["image"] for row in rows} == {"test-0.png", "test-1.png"}
    assert report(place, job_id, "md").startswith(b"| training data |")
    assert report(place, job_id, "png").startswith(b"\x89PNG")
    assert not [key for key in place.blobs.list(f"jobs/{job_id}/") if key.endswith(".checkpoint")]


def test_a_samples_anatomy_is_that_of_its_guide_with_which_it_is_held_out(
    place: Workplace, synthesis: str, radiographs: Sequence[Phantom]
) -> None:
    evaluate(place, radiographs, synthesis)
    lease, made = Lease(place.database, claim(place), 9), evaluating._read_synthesis(place, synthesis)
    real = evaluating._load(place, lease, synthesis, made.guides)
    assert len(set(real.groups)) == 2
    assert evaluating._load_samples(place, lease, made).groups == tuple(np.repeat(real.groups, 2))


def test_arms_handed_from_worker_to_worker_give_the_same_figures(
    place: Workplace,
    second_place: Workplace,
    radiographs: Sequence[Phantom],
    synthesis: str,
    undisturbed: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for length in ("TURN_SECONDS", "TURN_PER_READING"):
        monkeypatch.setattr(evaluating, length, 0.0)  # every step of the optimiser is a turn
    together = evaluate(place, radiographs, synthesis, steps=LONG)
    work_off(second_place, place)
    assert report(place, together) == undisturbed
    assert not [key for key in place.blobs.list(f"jobs/{together}/arms/") if key.endswith(".checkpoint")]


@pytest.mark.parametrize(
    ("seen", "words"),
    [((0, 1), r"real image \d\) .* \(2 such\)"), ((2, 3, 4), r"synthetic image \d\) .* \([23] such\)")],
    ids=["guides", "pool images"],
)
def test_brightened_copies_of_what_is_trained_on_are_no_test_images(
    place: Workplace,
    radiographs: Sequence[Phantom],
    synthesis: str,
    seen: Sequence[int],
    words: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    copies = [replace(radiographs[row], image=(radiographs[row].image * 0.8 + 30).astype("uint8")) for row in seen]
    job_id = evaluate(place, radiographs, synthesis, tests=copies)
    work_off(place)
    expected = rf"test image test-\d\.png \(nearly the same image as {words}; test on images used nowhere else"
    assert re.fullmatch(expected, failure(place, job_id))
    error = look(place, job_id).error
    assert error is not None and error["status"] == 422
    assert "failed at arm" in caplog.text and "test-" not in caplog.text  # names may name patients: not in a log


@pytest.mark.parametrize(("anatomy", "seen", "words"), [("region", (2, 3, 4), "pool image"), ("mask", (8, 9), "guide")])
def test_copies_of_what_samples_are_made_of_are_found_where_no_sample_resembles_them(
    place: Workplace, radiographs: Sequence[Phantom], anatomy: str, seen: Sequence[int], words: str
) -> None:
    """A sample holds half of its pool image beside a jaw, and of its guide a canal; these guides are no real images."""
    guides = [replace(guide, mask=getattr(guide, anatomy)) for guide in radiographs[8:10]]
    synthesis = submit(place, guides, method="paste", top_k=2)
    work_off(place)
    copies = [replace(radiographs[row], image=(radiographs[row].image * 0.8 + 30).astype("uint8")) for row in seen]
    job_id = evaluate(place, radiographs, synthesis, tests=copies)
    work_off(place)
    assert re.search(rf"test-\d\.png \(nearly the same image as {words} '.*'\)", failure(place, job_id))


def test_a_pool_that_is_deleted_while_an_evaluation_looks_through_it_does_not_fail_it(
    place: Workplace,
    radiographs: Sequence[Phantom],
    synthesis: str,
    undisturbed: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read, one_by_one, deleted = place.blobs.get, threading.Lock(), []

    def get(key: str, sha256: str | None = None) -> bytes:
        with one_by_one:
            if key.startswith("pools/") and not deleted:
                with place.database.write() as session:
                    deleted.append(pools.delete(session, "p"))
                janitor.remove_now(place.blobs, deleted[0])
        return read(key, sha256)

    monkeypatch.setattr(place.blobs, "get", get)
    job_id = evaluate(place, radiographs, synthesis, steps=LONG)
    work_off(place)
    assert deleted and report(place, job_id) == undisturbed


def test_a_cancelled_evaluation_stops_in_the_middle_of_an_arm(
    place: Workplace, radiographs: Sequence[Phantom], synthesis: str
) -> None:
    job_id = evaluate(place, radiographs, synthesis)
    with Lease(place.database, claim(place), 9) as lease:
        with place.database.write() as session:
            jobs.cancel(session, job_id, now=datetime.now(UTC))
        until(lease.over)
        with pytest.raises(LeaseLost):
            evaluating.train_arm(place, lease)
    assert look(place, job_id).done == 0


def test_workers_that_are_told_to_end_hand_their_arms_back_as_far_as_they_got(
    place: Workplace, radiographs: Sequence[Phantom], synthesis: str, undisturbed: bytes
) -> None:
    disturbed = evaluate(place, radiographs, synthesis, steps=LONG)
    checkpoints = 0
    for looks in count(1, 2):
        ends_after(place, looks)
        if look(place, disturbed).status == "succeeded":
            break
        checkpoints += place.blobs.exists(keys.checkpoint(disturbed, 0))
    assert checkpoints > 1
    assert report(place, disturbed) == undisturbed


def test_an_arm_whose_checkpoint_cannot_be_read_is_begun_anew(
    place: Workplace, radiographs: Sequence[Phantom], synthesis: str, undisturbed: bytes
) -> None:
    disturbed = evaluate(place, radiographs, synthesis, steps=LONG)
    checkpoint = keys.checkpoint(disturbed, 0)
    looks = count(1)
    while not place.blobs.exists(checkpoint):
        ends_after(place, next(looks))
    place.blobs.put(checkpoint, place.blobs.get(checkpoint)[:1000])  # as a power cut may leave it
    work_off_impatiently(place)
    assert report(place, disturbed) == undisturbed


@pytest.fixture
def story(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a worker does: " " it asks for its lease, "r" it reads a blob, "k" it takes an image's signature, "s" it
    scores an image, "c" it compares arms."""
    done: list[str] = []

    def noted(what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            done.append(what)
            return function(*given)

        return call

    monkeypatch.setattr(Lease, "over", noted(" ", Lease.over))
    monkeypatch.setattr(Blobs, "get", noted("r", Blobs.get))
    monkeypatch.setattr(evaluating, "known", noted("k", evaluating.known))
    monkeypatch.setattr(evaluation, "scores", noted("s", evaluation.scores))
    monkeypatch.setattr(evaluation, "compare", noted("c", evaluation.compare))
    return done


def test_the_lease_is_asked_for_again_and_again_while_images_are_read_and_scored(
    place: Workplace, radiographs: Sequence[Phantom], synthesis: str, story: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(place, radiographs, synthesis)
    assert work(place)  # the arm `real`; the next reads samples, too
    story.clear()
    monkeypatch.setattr(reading, "READ_AHEAD", 2)
    assert work(place)
    told = "".join(story)
    assert told.count("r") > 6 and told.count("k") > 6 and told.count("s") == 2
    assert max(map(len, told.split())) <= 3, "one that has thousands of images would be taken to hang"


def test_the_lease_is_asked_for_again_and_again_while_arms_are_compared(
    place: Workplace, radiographs: Sequence[Phantom], synthesis: str, story: list[str]
) -> None:
    evaluate(place, radiographs, synthesis, steps=1, arms=evaluations.KINDS)
    for _ in evaluations.KINDS:
        assert work(place)
    story.clear()
    assert work(place)
    told = "".join(story)
    assert (told.count("r"), told.count("c")) == (3, 2 * len(METRICS))
    assert max(map(len, told.split())) <= len(METRICS), "a report on many arms would be taken to hang"


def test_arms_of_one_evaluation_are_shared_out(
    place: Workplace, second_place: Workplace, radiographs: Sequence[Phantom], synthesis: str
) -> None:
    job_id = evaluate(place, radiographs, synthesis)
    assert work(place) and work(second_place)
    assert look(place, job_id).done == 2
