"""A service that others can reach: who gets in, and what of a person is left of files full of names; then its end."""

import httpx
import pytest

from cli.client import connect
from cli.failure import Failure
from tests import identified
from tests.identified import FILE_NAME
from tests.system.names import guide_files, pool_files
from tests.system.running import PATIENT, Ended, Left, Radiographs, Restarted, import_pool

pytestmark = PATIENT


def test_the_files_hold_what_is_searched_for() -> None:
    sent = b"".join(data for _, (_, data) in pool_files() + guide_files())
    assert identified.found_in(sent) == {*identified.ELEMENTS, *identified.OTHERS} - {"PNG zTXt"}


def test_a_host_that_others_can_reach_asks_for_the_key(restarted: Restarted, radiographs: Radiographs) -> None:
    url = restarted.service.url
    assert httpx.get(f"{url}/jobs").status_code == 401
    with pytest.raises(Failure, match="PANSYNTH_API_KEY"), connect(url) as client:
        import_pool(client, radiographs)


def test_nothing_that_names_a_person_is_left_anywhere(ended: Ended) -> None:
    before, after, answers = ended.files_before, ended.files_after, ended.answers
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


def test_ctrl_c_leaves_no_process_and_no_socket(restarted: Restarted, ended: Ended) -> None:
    assert len(restarted.began.processes) == 4  # broker, API, worker and the process that it forked
    assert [path.name for path in restarted.began.sockets] == ["broker.sock"]
    assert ended.after == Left([], [])
    assert ended.status == 0
