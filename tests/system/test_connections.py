"""Clients that hold their connections open."""

import resource
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import httpx

from tests.serving import answer_of, head
from tests.system.running import PATIENT, api
from tests.waiting import until

pytestmark = PATIENT

FEW, MANY = 256, 300


def test_more_clients_than_a_shell_grants_descriptors_leave_the_service_answering(
    tmp_path: Path, broker_url: str
) -> None:
    granted, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (granted, most))
        resource.setrlimit(resource.RLIMIT_NOFILE, (FEW, most))  # inherited by what is started now
        environment = {"PANSYNTH_DATA_DIR": str(tmp_path / "data"), "PANSYNTH_BROKER_URL": broker_url}
        service = stack.enter_context(api(tmp_path, environment))
        resource.setrlimit(resource.RLIMIT_NOFILE, (granted, most))
        address = httpx.URL(service.url)
        for _ in range(MANY):
            held = stack.enter_context(socket.create_connection((address.host, address.port)))
            held.sendall(b"GET /livez HTTP/1.1\r\n")  # and never the rest
        assert httpx.get(f"{service.url}/livez", timeout=30).status_code == 200


def test_a_connection_that_rested_is_used_again(tmp_path: Path, broker_url: str) -> None:
    """A proxy sends the next request by it; were it just being closed, that request would be lost."""
    environment = {"PANSYNTH_DATA_DIR": str(tmp_path / "data"), "PANSYNTH_BROKER_URL": broker_url}
    with api(tmp_path, environment) as service:
        address = httpx.URL(service.url)
        with socket.create_connection((address.host, address.port), timeout=60) as held:
            for pause in (6, 0):
                held.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert answer_of(held).startswith("HTTP/1.1 200 ")
                time.sleep(pause)


def test_an_api_told_to_stop_ends_event_streams_and_has_uploads_come_again(tmp_path: Path, broker_url: str) -> None:
    environment = {"PANSYNTH_DATA_DIR": str(tmp_path / "data"), "PANSYNTH_BROKER_URL": broker_url}
    with api(tmp_path, environment) as service, service.client() as client:
        job = client.post("/pools/default/images", files={"images": ("a.png", b"x")}).json()
        address = httpx.URL(service.url)
        with socket.create_connection((address.host, address.port)) as upload:
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
