"""A service that others can reach: who gets in, and what of a person is left of files full of names."""

from tests import identified
from tests.identified import FILE_NAME
from tests.system.names import guide_files, pool_files
from tests.system.running import PATIENT, FirstRun

pytestmark = PATIENT


def test_the_files_hold_what_is_searched_for() -> None:
    sent = b"".join(data for _, (_, data) in pool_files() + guide_files())
    assert identified.found_in(sent) == {*identified.ELEMENTS, *identified.OTHERS} - {"PNG zTXt"}


def test_a_host_that_others_can_reach_asks_for_the_key(first_run: FirstRun) -> None:
    assert first_run.status_without_key == 401
    assert "PANSYNTH_API_KEY" in first_run.words_without_key


def test_nothing_that_names_a_person_is_left_anywhere(first_run: FirstRun) -> None:
    before, after, answers = first_run.files_before, first_run.files_after, first_run.answers
    for place, data in {**before, **after, "answers": b"".join(answers)}.items():
        for part in identified.unpacked(data):
            assert identified.found_in(part) == set(), place
    assert FILE_NAME.encode() in manifest(answers), "the manifest names the guide, as its clients want"
    logs = {place: data for place, data in after.items() if place.endswith((".log", ".txt"))}
    assert logs
    for place, data in logs.items():
        assert FILE_NAME.encode() not in data, place
    blobs = [place for place in after if "/blobs/" in place]
    assert blobs and not [place for place in blobs if FILE_NAME in place]


def manifest(answers: list[bytes]) -> bytes:
    (dataset,) = [data for data in answers if data.startswith(b"PK")]
    return b"".join(part for part in identified.unpacked(dataset) if part.startswith(b"index,image"))
