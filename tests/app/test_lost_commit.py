"""A commit whose answer never arrives: the job is there, and so must be what it needs."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import make_url

from app import database
from app.settings import Settings
from tests.serving import fill_pool, guide_files, serving


class Wire:
    """Between the API and PostgreSQL: once `cut` is set, a new job is committed, but the answer does not arrive."""

    def __init__(self, server: str, port: int) -> None:
        self.cut = threading.Event()
        self._server = f"{server}/.s.PGSQL.{port}"
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._server)
            for ends in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, asking: bool) -> None:
        submitting = False
        try:
            while data := source.recv(65536):
                submitting |= asking and self.cut.is_set() and b"INSERT INTO jobs" in data
                if submitting and b"COMMIT" in data:
                    self.cut.clear()
                    source.shutdown(socket.SHUT_RDWR)  # nobody is left whom the answer could reach
                target.sendall(data)
        except OSError:
            pass
        target.close()


@pytest.fixture
def wire(postgres_url: str) -> Iterator[Wire]:
    address = make_url(postgres_url)
    wire = Wire(str(address.query["host"]), address.port or 5432)
    yield wire
    wire.close()


def test_a_job_whose_commit_got_no_answer_keeps_its_guides(
    settings: Settings, postgres_url: str, wire: Wire, tmp_path: Path
) -> None:
    database.migrate(postgres_url)
    through = make_url(postgres_url).set(host="127.0.0.1", port=wire.port, query={})
    stores = {"database_url": through.render_as_string(hide_password=False), "data_dir": tmp_path}
    with serving(settings.model_copy(update=stores)) as served:
        fill_pool(served.service, "held", 3)
        wire.cut.set()
        answer = submit_once(served.client)
        assert not wire.cut.is_set()
        assert answer.status_code == 503
        (job,) = served.client.get("/jobs").json()["items"]
        assert job["status"] == "queued"
        assert len(list(served.service.blobs.list(f"jobs/{job['id']}/guides/"))) == 2
        assert submit_once(served.client).json()["id"] == job["id"]


def submit_once(client: httpx.Client) -> httpx.Response:
    request = {"data": {"pool": "held", "top_k": "1"}, "files": guide_files()}
    return client.post("/synthesize", headers={"Idempotency-Key": "once"}, **request)
