"""Clients that hold their connections open."""

import resource
import socket
from contextlib import ExitStack
from pathlib import Path

import httpx

from tests.system.running import PATIENT, api

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
