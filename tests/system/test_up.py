"""`pansynth up`: what it refuses, and what it takes up again."""

import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from app import database
from app.settings import Settings
from cli.children import pansynth
from cli.client import download, wait
from cli.failure import Failure
from cli.up import up
from tests.system.running import (
    ENVIRONMENT,
    PATIENT,
    Radiographs,
    Restarted,
    quiet,
    submit_job,
    until_halfway,
)

pytestmark = PATIENT


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it was, for the tests after: `up` sets its data folder there, for what it starts."""
    monkeypatch.setenv("PANSYNTH_DATA_DIR", "")


def test_it_says_where_it_is_and_where_its_data_are(restarted: Restarted) -> None:
    address, folder = restarted.service.log.read_text().splitlines()
    assert address == f"pansynth is ready at http://0.0.0.0:{httpx.URL(restarted.service.url).port}"
    assert folder == f"its data folder is {restarted.data_dir}"


def test_a_kill_leaves_no_process(restarted: Restarted) -> None:
    assert not restarted.left.processes
    assert restarted.left.sockets  # which the next start must cope with


def test_other_users_of_the_machine_can_open_nothing_in_its_folder(restarted: Restarted) -> None:
    """Whoever made the folder may let them in."""
    assert (restarted.data_dir / "logs").is_dir()
    assert [path.name for path in restarted.data_dir.iterdir() if path.stat().st_mode & 0o077] == []


def test_the_next_start_finishes_the_job(restarted: Restarted, reference: bytes, tmp_path: Path) -> None:
    with restarted.service.client() as client:
        wait(client, restarted.job, quiet)
        download(client, restarted.job["links"]["dataset"], tmp_path / "dataset.zip", quiet)
    assert (tmp_path / "dataset.zip").read_bytes() == reference


def test_a_running_job_is_cancelled_within_seconds(restarted: Restarted, radiographs: Radiographs) -> None:
    with restarted.service.client() as client:
        job = submit_job(client, radiographs)
        until_halfway(client, job)
        begun = time.monotonic()
        assert client.post(job["links"]["cancel"]).status_code == 202
        with pytest.raises(Failure, match="cancelled"):
            wait(client, job, quiet)
        assert time.monotonic() - begun < 10
        assert client.get(job["links"]["dataset"]).status_code == 409


def test_a_second_one_on_the_same_folder_is_refused(restarted: Restarted) -> None:
    words = rf"process {restarted.service.process.pid}\) already runs on"
    with pytest.raises(Failure, match=words):
        up(port=0, data_dir=restarted.data_dir)


def test_a_port_in_use_is_refused_with_words(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = subprocess.run(
            pansynth("up", "--port", str(port), "--data-dir", str(tmp_path / "data")),
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert refused.returncode == 1
    assert refused.stderr == (
        f"pansynth: cannot listen on 127.0.0.1:{port}: Address already in use; "
        "choose another --port, 0 for a free one\n"
    )


def test_a_host_that_others_can_reach_is_refused_while_there_is_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which hosts those are: tests/cli/test_keys.py."""
    monkeypatch.setenv("PANSYNTH_API_KEYS_REQUIRED", "false")
    with pytest.raises(Failure, match="Make one first: pansynth keys create NAME"):
        up(host="::", data_dir=tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_data_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Failure, match="choose a folder that can be written"):
        up(port=0, data_dir=tmp_path / "file" / "data")


def test_a_worker_that_cannot_begin_ends_and_says_why(tmp_path: Path, broker_url: str) -> None:
    environment = {"PANSYNTH_BROKER_URL": broker_url, "PANSYNTH_DEVICE": "cuda:99"}
    database.migrate(Settings(data_dir=tmp_path).database())
    done = subprocess.run(
        pansynth("worker", "--data-dir", str(tmp_path)),
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "this worker cannot begin" in done.stderr
    assert "PANSYNTH_DEVICE says cuda:99" in done.stderr
    assert "Traceback" not in done.stderr
