"""Clients that hold their connections open."""

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from tests.serving import answer_of, head
from tests.system.running import PATIENT, Running, api
from tests.waiting import until

pytestmark = PATIENT

FEW, MANY = 256, 300


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, broker_url: str) -> Iterator[Running]:
    """An API with few descriptors. The last test ends it."""
    folder = tmp_path_factory.mktemp("connections")
    granted, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    environment = {"PANSYNTH_DATA_DIR": str(folder / "data"), "PANSYNTH_BROKER_URL": broker_url}
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (granted, most))
        resource.setrlimit(resource.RLIMIT_NOFILE, (FEW, most))  # inherited by what is started now
        started = stack.enter_context(api(folder, environment))
        resource.setrlimit(resource.RLIMIT_NOFILE, (granted, most))
        yield started


def test_more_clients_than_a_shell_grants_descriptors_leave_the_service_answering(service: Running) -> None:
    address = httpx.URL(service.url)
    with ExitStack() as stack:
        for _ in range(MANY):
            held = stack.enter_context(socket.create_connection((address.host, address.port)))
            held.sendall(b"GET /livez HTTP/1.1\r\n")  # and never the rest
        assert httpx.get(f"{service.url}/livez", timeout=30).status_code == 200


def test_a_connection_that_rested_is_used_again(service: Running) -> None:
    """A proxy sends the next request by it; were it just being closed, that request would be lost."""
    address = httpx.URL(service.url)
    with socket.create_connection((address.host, address.port), timeout=60) as held:
        for pause in (6, 0):
            held.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert answer_of(held).startswith("HTTP/1.1 200 ")
            time.sleep(pause)


def test_an_api_told_to_stop_ends_event_streams_and_has_uploads_come_again(service: Running) -> None:
    address = httpx.URL(service.url)
    with service.client() as client, socket.create_connection((address.host, address.port)) as upload:
        job = client.post("/pools/default/images", files={"images": ("a.png", b"x")}).json()
        upload.sendall(head("Content-Length: 100000") + b"--xyz\r\n")  # and the rest never comes
        with client.stream("GET", job["links"]["events"]) as stream:
            lines = stream.iter_lines()
            until(lambda: next(lines).startswith("data:"))
            service.process.terminate()
            assert not [line for line in lines if line], "it was cut off"
        answer = answer_of(upload)
    service.process.wait(30)
    assert answer.startswith("HTTP/1.1 503 ")
    assert "application/problem+json" in answer
    assert "Traceback" not in service.log.read_text()
